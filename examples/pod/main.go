// Pod is the workload of deploy/kubernetes/workload.yaml: it serves, and calls
// its own Service every ten seconds. There is nothing to configure in it; the
// pod's environment says where the CA is and what the pod is called.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, ":8443"); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string) error {
	id, err := mtls.New(ctx, mtls.Config{})
	if err != nil {
		return err
	}
	defer id.Close()
	rules := acl.Allow("*.cluster.local") // whoever the cluster's CA calls so; be stricter in earnest
	srv := &http.Server{
		Addr: listen, TLSConfig: id.Server(rules), Handler: id.Handler(http.HandlerFunc(hello), rules),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: id.ErrorLog(),
	}
	served := make(chan error, 1)
	go func() { served <- srv.ListenAndServeTLS("", "") }()
	slog.Info("serving", "at", listen, "until", id.Health().DarkAt)
	for tick := time.NewTicker(10 * time.Second); ; {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return srv.Shutdown(last)
		case err := <-served:
			return err
		case <-tick.C:
			call(ctx, id)
		}
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	peer, _ := mtls.PeerFromContext(r.Context())
	host, _ := os.Hostname()
	fmt.Fprintf(w, "hello %s, this is %s", peer.Name(), host)
}

// call asks the first of the pod's own names, as any other pod would.
func call(ctx context.Context, id *mtls.Identity) {
	text, err := get(ctx, id.HTTPClient(), "https://"+id.Health().Certificates[0].Names[0]+"/")
	if err != nil {
		slog.Warn("my own Service doesn't answer", "error", err)
		return
	}
	slog.Info(text, "until", id.Health().DarkAt)
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, io.LimitReader(res.Body, 1<<10)); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", errors.New(res.Status)
	}
	return b.String(), nil
}
