package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// kubeconfig names an API that nothing answers at.
const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
users: [{name: u, user: {token: secret}}]
`

// newPods is a CA whose servers' directory asks a cluster.
func newPods(t *testing.T, proof string) *setup.Made {
	t.Helper()
	made := newCA(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(made.Config), "kube"), []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	edit(t, made.Config, "\nprofiles:\n", "\nclusters:\n  prod:\n    kubeconfig: kube\n\nprofiles:\n")
	edit(t, made.Config, "challenges: [http-01, dns-01, tls-alpn-01]", "challenges: [dns-01, kubernetes-01]")
	edit(t, made.Config, "    profiles: [\"server\"]\n", "    profiles: [\"server\"]\n    kubernetes:\n      cluster: prod\n      proof: "+proof+"\n")
	return made
}

// client is an ACME client with an account.
func (r *running) client(directory string) *acme.Client {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, r.Listen.String())
	}
	c := &acme.Client{
		DirectoryURL: "https://127.0.0.1/acme/" + directory + "/directory", Key: key,
		HTTPClient: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: r.roots}}},
	}
	r.t.Cleanup(c.HTTPClient.CloseIdleConnections)
	if _, err := c.Register(r.t.Context(), acme.Registration{}); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// away checks that the client is told to come back.
func away(t *testing.T, err error) {
	t.Helper()
	p, ok := errors.AsType[*acme.Problem](err)
	if !ok || p.Type != acme.ErrServerInternal || p.Status != 503 || p.RetryAfter != 5*time.Second || !strings.Contains(p.Detail, "cluster prod") {
		t.Errorf("%+v", p)
	}
}

// A server starts while the cluster is away, offers its pods their challenge,
// and says when to come back.
func TestKubernetes(t *testing.T) {
	r := start(t, newPods(t, "token"))
	c := r.client("servers")
	o, err := c.NewOrder(t.Context(), acme.OrderRequest{Identifiers: []acme.Identifier{{Type: "dns", Value: "a.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	z, err := c.Authorization(t.Context(), o.Authorizations[0])
	if err != nil || len(z.Challenges) != 2 {
		t.Fatalf("%+v, %v", z, err)
	}
	ch := z.Challenges[1]
	if ch.Type != "kubernetes-01" || string(ch.Extra["audiences"]) != `["https://127.0.0.1/acme/servers/directory"]` {
		t.Errorf("%+v", ch)
	}
	_, err = c.Accept(t.Context(), ch, map[string]string{"serviceAccountToken": "secret-token"})
	away(t, err)
	if z, err = c.Authorization(t.Context(), o.Authorizations[0]); err != nil || z.Status != "pending" {
		t.Errorf("%+v, %v", z, err)
	}
	if r.log.count("secret-token") != 0 {
		t.Error("the token is in the log")
	}
}

// Where the address is a proof, it is asked for when an order is made.
func TestKubernetesByAddress(t *testing.T) {
	c := start(t, newPods(t, "source-address")).client("servers")
	_, err := c.NewOrder(t.Context(), acme.OrderRequest{Identifiers: []acme.Identifier{{Type: "dns", Value: "a.example"}}})
	away(t, err)
}

// A reload takes clusters in and lets go of them; a bad one changes nothing, and
// is told at its place in the file.
func TestReloadClusters(t *testing.T) {
	made := newPods(t, "token")
	r := start(t, made)
	challenges := func() (n int) {
		t.Helper()
		c := r.client("servers")
		o, err := c.NewOrder(t.Context(), acme.OrderRequest{Identifiers: []acme.Identifier{{Type: "dns", Value: "a.example"}}})
		if err != nil {
			t.Fatal(err)
		}
		z, err := c.Authorization(t.Context(), o.Authorizations[0])
		if err != nil {
			t.Fatal(err)
		}
		return len(z.Challenges)
	}
	for change, says := range map[[2]string]string{
		{"kubeconfig: kube\n", "kubeconfig: gone\n"}:                                 "clusters.prod.kubeconfig: ",
		{"kubeconfig: kube\n", "kubeconfig: kube\n    templates: [\"{label:a}\"]\n"}: "clusters.prod.templates: ",
		{"cluster: prod\n", "cluster: stage\n"}:                                      "directories.servers.kubernetes.cluster: ",
	} {
		edit(t, made.Config, change[0], change[1])
		r.hangUp(says)
		if n := challenges(); n != 2 {
			t.Errorf("%s: %d challenges", says, n)
		}
		c, err := load(made.Config)
		if err == nil {
			err = server.Check(t.Context(), c, false, func(error) {})
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("check: %v, want %s", err, says)
		}
		edit(t, made.Config, change[1], change[0])
	}
	edit(t, made.Config, "    kubernetes:\n      cluster: prod\n      proof: token\n", "")
	edit(t, made.Config, "clusters:\n  prod:\n    kubeconfig: kube\n", "")
	edit(t, made.Config, "[dns-01, kubernetes-01]", "[dns-01]")
	r.hangUp("configuration reloaded")
	if n := challenges(); n != 1 {
		t.Errorf("%d challenges without the cluster", n)
	}
}

// While balancers tell clients' addresses, these don't become proofs: the
// listener changes at the next start only.
func TestAddressesOfBalancers(t *testing.T) {
	made := newPods(t, "token")
	edit(t, made.Config, "\ntls:\n", "\ntrusted_proxies: [192.0.2.0/24]\ntls:\n")
	c, err := load(made.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Check(t.Context(), c, false, func(error) {}); err != nil {
		t.Fatal(err)
	}
	logged := &log{}
	ready, ended := make(chan server.Running, 1), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t: t, log: logged}
	go func() {
		ended <- server.Run(ctx, server.Options{
			Config: c, Reload: reader(made.Config), Logger: slog.New(slog.NewTextHandler(logged, nil)), Ready: func(r server.Running) { ready <- r },
		})
	}()
	<-ready
	edit(t, made.Config, "\ntrusted_proxies: [192.0.2.0/24]", "")
	edit(t, made.Config, "proof: token", "proof: source-address")
	r.hangUp("directories.servers.kubernetes.proof: the listener takes")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
