// Command mutual is plain, with the library.
package main

import (
	"context"
	"crypto/tls"
	"log"
	"log/slog"
	"net/http"
	"os"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

func main() {
	cert, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}}
	if _, err := client.Get(os.Args[3]); err != nil {
		log.Fatal(err)
	}
	rules, err := acl.Open(os.Args[5], slog.Default())
	if err != nil {
		log.Fatal(err)
	}
	id, err := mtls.New(context.Background(), mtls.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := id.HTTPClient().Get(os.Args[3]); err != nil {
		log.Fatal(err)
	}
	go (&http.Server{Addr: os.Args[6], TLSConfig: id.Server(rules), Handler: id.Handler(http.NotFoundHandler(), rules)}).ListenAndServeTLS("", "")
	server := &http.Server{Addr: os.Args[4], TLSConfig: config, Handler: http.NotFoundHandler()}
	log.Fatal(server.ListenAndServeTLS("", ""))
}
