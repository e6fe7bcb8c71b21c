// Outside is a client outside any cluster, with no listener and no hardware:
// nobody could connect to it to see whether it is who it says. An external
// account key that an operator made for its name is its proof:
//
//	chancery admin eab create --directory workloads --name outside.demo.internal --pre-approved
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/chancery-pki/chancery/examples/demo"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

const name = "outside.demo.internal"

func main() { demo.Main(run) }

func run(ctx context.Context, listen string) error {
	stop, err := service(ctx, listen)
	if err != nil {
		return err
	}
	defer stop()

	// The library finds the key's file by CHANCERY_EAB.
	if err := os.Setenv("CHANCERY_EAB", os.Getenv("DEMO_EAB")); err != nil {
		return err
	}
	id, err := mtls.New(ctx, mtls.Config{Names: []string{name}, Usage: mtls.UsageClient})
	if err != nil {
		return err
	}
	defer id.Close()
	demo.Show(id)

	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://localhost:"+port+"/", nil)
	if err != nil {
		return err
	}
	res, err := id.HTTPClient().Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	log.Printf("GET %s: %s, %q", req.URL, res.Status, body)
	return err
}

// service is what the client calls. It would run elsewhere.
func service(ctx context.Context, listen string) (stop func(), err error) {
	id, err := mtls.New(ctx, mtls.Config{Names: []string{"localhost"}, Usage: mtls.UsageServer, Proof: mtls.Proof{ListenALPN: listen}})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		id.Close()
		return nil, err
	}
	rules := acl.Allow(name)
	srv := &http.Server{
		TLSConfig: id.Server(rules), ReadHeaderTimeout: 10 * time.Second, ErrorLog: id.ErrorLog(),
		Handler: id.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, _ := mtls.PeerFromContext(r.Context())
			fmt.Fprintf(w, "hello %s", peer.Name())
		}), rules),
	}
	go srv.ServeTLS(l, "", "")
	return func() { srv.Close(); id.Close() }, nil
}
