package mtlsgrpc_test

import (
	"context"
	"log"
	"net"

	"google.golang.org/grpc"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/mtlsgrpc"
)

func ExampleServerOptions() {
	id, err := mtls.New(context.Background(), mtls.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	l, err := net.Listen("tcp", ":443")
	if err != nil {
		log.Fatal(err)
	}
	srv := grpc.NewServer(mtlsgrpc.ServerOptions(id, acl.Allow("*.batch.internal"))...)
	log.Fatal(srv.Serve(l))
}

func ExampleClientCredentials() {
	id, err := mtls.New(context.Background(), mtls.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	conn, err := grpc.NewClient("api.prod.internal:443", grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(id)))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}
