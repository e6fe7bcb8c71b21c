package mtls_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

// A web service: whom to let in, and which requests they may make.
func ExampleIdentity_Handler() {
	id, err := mtls.New(context.Background(), mtls.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	rules, err := acl.Parse("rules", []byte(`
allow web.prod.internal
allow *.batch.internal   GET,POST /reports/*
`))
	if err != nil {
		log.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := mtls.PeerFromContext(r.Context())
		fmt.Fprintf(w, "hello %s", peer.Name())
	})
	srv := &http.Server{
		Addr: ":8443", TLSConfig: id.Server(rules), Handler: id.Handler(hello, rules),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: id.ErrorLog(),
	}
	log.Fatal(srv.ListenAndServeTLS("", ""))
}

// A service that shows the world a certificate of a public CA, and demands
// clients of the private PKI. The identity may be a client's only.
func ExampleIdentity_Server_publicCertificate() {
	id, err := mtls.New(context.Background(), mtls.Config{Usage: mtls.UsageClient})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	public, err := tls.LoadX509KeyPair("/etc/letsencrypt/live/www.example.org/fullchain.pem", "/etc/letsencrypt/live/www.example.org/privkey.pem")
	if err != nil {
		log.Fatal(err)
	}
	config := id.Server(acl.Allow("*.partners.internal"))
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &public, nil }
	srv := &http.Server{Addr: ":443", TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, ErrorLog: id.ErrorLog()}
	log.Fatal(srv.ListenAndServeTLS("", ""))
}

// A server known by its SPIFFE ID, at an address that nobody certified.
func ExampleIdentity_ClientFor() {
	id, err := mtls.New(context.Background(), mtls.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	dialer := tls.Dialer{Config: id.ClientFor(acl.Allow("spiffe://prod.internal/ns/web/sa/api"))}
	conn, err := dialer.DialContext(context.Background(), "tcp", "10.2.0.7:443")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}

// Raw TCP: whoever comes out of Accept is allowed.
func ExampleIdentity_Listen() {
	id, err := mtls.New(context.Background(), mtls.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	l, err := id.Listen("tcp", ":7000", acl.Allow("*.batch.internal"))
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			peer, _ := mtls.PeerOf(conn)
			fmt.Fprintf(conn, "hello %s\n", peer.Name())
		}()
	}
}
