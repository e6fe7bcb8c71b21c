// Http is a web server and its client: mutual TLS 1.3 with certificates that
// last a day and are renewed by themselves.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/chancery-pki/chancery/examples/demo"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

func main() { demo.Main(run) }

func run(ctx context.Context, listen string) error {
	// What I am. The CA and its roots come from the environment.
	id, err := mtls.New(ctx, mtls.Config{
		Names: []string{"localhost"},
		Proof: mtls.Proof{ListenALPN: listen}, // until our own server is up, which does it from then on
	})
	if err != nil {
		return err
	}
	defer id.Close()
	demo.Show(id)

	// Whom I allow.
	rules, err := acl.Parse("rules", []byte(`
allow localhost           GET /hello
allow *.batch.internal    GET,POST /reports/*
`))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := &http.Server{
		TLSConfig: id.Server(rules), Handler: id.Handler(http.HandlerFunc(hello), rules),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: id.ErrorLog(),
	}
	defer srv.Close()
	go srv.ServeTLS(l, "", "")

	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	url := "https://localhost:" + port
	for _, path := range []string{"/hello", "/reports/2026"} {
		if err := get(ctx, id.HTTPClient(), url+path); err != nil {
			return err
		}
	}
	nobody := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it is about the server here
	return demo.MustFail("somebody without a certificate", get(ctx, nobody, url+"/hello"))
}

func hello(w http.ResponseWriter, r *http.Request) {
	peer, _ := mtls.PeerFromContext(r.Context())
	fmt.Fprintf(w, "hello %s", peer.Name())
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	log.Printf("GET %s: %s %s, %q", url, res.Proto, res.Status, body)
	return err
}
