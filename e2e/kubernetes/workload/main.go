// Command workload is a program in a pod that speaks mutual TLS with all of
// mtls.Config left to the environment, as deploy/kubernetes/workload.yaml sets
// it. The tests run it where a kubelet would.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: workload serve ADDRESS | workload get URL")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatalf("workload: %v", err)
	}
}

func run(what, where string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	id, err := mtls.New(ctx, mtls.Config{})
	if err != nil {
		return err
	}
	defer id.Close()
	if what == "get" {
		return get(ctx, id.HTTPClient(), where)
	}
	rules := acl.Allow("web.demo.svc.cluster.local")
	srv := &http.Server{
		Addr: where, TLSConfig: id.Server(rules), Handler: id.Handler(http.HandlerFunc(hello), rules),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: id.ErrorLog(),
	}
	return srv.ListenAndServeTLS("", "")
}

func hello(w http.ResponseWriter, r *http.Request) {
	peer, _ := mtls.PeerFromContext(r.Context())
	fmt.Fprintf(w, "hello %s\n", peer.Name())
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
	_, err = io.Copy(os.Stdout, io.LimitReader(res.Body, 1<<10))
	return err
}
