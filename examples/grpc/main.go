// Grpc is a gRPC server and its client: mutual TLS 1.3 with certificates that
// last a day and are renewed by themselves.
package main

import (
	"context"
	"crypto/tls"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/chancery-pki/chancery/examples/demo"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/mtlsgrpc"
)

func main() { demo.Main(run) }

func run(ctx context.Context, listen string) error {
	id, err := mtls.New(ctx, mtls.Config{
		Names: []string{"localhost"},
		Proof: mtls.Proof{ListenALPN: listen}, // until our own server is up, which does it from then on
	})
	if err != nil {
		return err
	}
	defer id.Close()
	demo.Show(id)

	// Whoever may connect may ask one method only.
	rules, err := acl.Parse("rules", []byte("allow localhost POST /grpc.health.v1.Health/Check\n"))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := grpc.NewServer(mtlsgrpc.ServerOptions(id, rules)...)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	defer srv.Stop()
	go srv.Serve(l)

	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("localhost:"+port, grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(id)))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := healthpb.NewHealthClient(conn)
	answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	log.Printf("Health/Check: %s", answer.GetStatus())
	_, err = client.List(ctx, &healthpb.HealthListRequest{})
	if err := demo.MustFail("Health/List", err); err != nil {
		return err
	}

	nobody, err := grpc.NewClient("localhost:"+port, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		return err
	}
	defer nobody.Close()
	_, err = healthpb.NewHealthClient(nobody).Check(ctx, &healthpb.HealthCheckRequest{})
	return demo.MustFail("somebody without a certificate", err)
}
