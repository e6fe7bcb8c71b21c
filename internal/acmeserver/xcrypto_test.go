package acmeserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// client gives x/crypto's client, which others wrote, a connection to the
// world over TLS, under its real name.
func (w *world) client(t *testing.T, directory string) *acme.Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(w.handler)
	srv.Config = HTTPServer(w.handler, nil)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	transport := srv.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = "example.com" // in httptest's certificate
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &acme.Client{Key: newKey(t).PrivateKey, DirectoryURL: base + "/acme/" + directory + "/directory", HTTPClient: &http.Client{Transport: transport}}
}

// TestXCrypto: every verb of golang.org/x/crypto/acme, which is also what
// autocert and cert-manager speak.
func TestXCrypto(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w := newWorld(t)
	c := w.client(t, "main")
	d, err := c.Discover(ctx)
	if err != nil || d.OrderURL == "" || d.Terms == "" || d.KeyChangeURL == "" {
		t.Fatalf("%+v %v", d, err)
	}
	account, err := c.Register(ctx, &acme.Account{Contact: []string{"mailto:a@b.test"}}, acme.AcceptTOS)
	if err != nil || account.Status != "valid" {
		t.Fatalf("%+v %v", account, err)
	}
	if _, err := c.GetReg(ctx, ""); err != nil {
		t.Error(err)
	}
	if _, err := c.UpdateReg(ctx, &acme.Account{Contact: []string{"mailto:c@d.test"}}); err != nil {
		t.Error(err)
	}
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AccountKeyRollover(ctx, fresh); err != nil {
		t.Fatal(err)
	}

	order, err := c.AuthorizeOrder(ctx, append(acme.DomainIDs("a.test", "*.a.test"), acme.IPIDs("::1")...))
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range order.AuthzURLs {
		z, err := c.GetAuthorization(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		want := "http-01"
		if z.Wildcard {
			want = "dns-01"
		}
		for _, challenge := range z.Challenges {
			if challenge.Type == want {
				if _, err := c.Accept(ctx, challenge); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := c.WaitAuthorization(ctx, url); err != nil {
			t.Fatal(err)
		}
	}
	if order, err = c.WaitOrder(ctx, order.URI); err != nil {
		t.Fatal(err)
	}
	key := newKey(t).PrivateKey
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.test", "*.a.test"}, IPAddresses: []net.IP{net.IPv6loopback}}, key)
	if err != nil {
		t.Fatal(err)
	}
	// Needs Location in finalize's answer, as cert-manager does.
	chain, url, err := c.CreateOrderCert(ctx, order.FinalizeURL, request, true)
	if err != nil || len(chain) != 2 {
		t.Fatalf("%d certificates, %v", len(chain), err)
	}
	if others, err := c.ListCertAlternates(ctx, url); err != nil || len(others) != 1 {
		t.Errorf("alternates %q, %v", others, err)
	}
	if err := c.RevokeCert(ctx, key, chain[0], acme.CRLReasonKeyCompromise); err != nil {
		t.Error(err)
	}
	if err := c.RevokeCert(ctx, nil, chain[0], acme.CRLReasonUnspecified); err != nil { // alreadyRevoked counts as done
		t.Error(err)
	}
	z, err := c.Authorize(ctx, "b.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RevokeAuthorization(ctx, z.URI); err != nil {
		t.Error(err)
	}
	if err := c.DeactivateReg(ctx); err != nil {
		t.Error(err)
	}

	k, err := w.console.CreateEABKey(ctx, operator.Caller{Name: "test", Role: operator.Administrator}, protocol.EABKey{Directory: "eab", Label: "x"})
	if err != nil {
		t.Fatal(err)
	}
	c = w.client(t, "eab")
	binding := &acme.ExternalAccountBinding{KID: string(k.ID), Key: k.MACKey}
	if account, err := c.Register(ctx, &acme.Account{ExternalAccountBinding: binding}, acme.AcceptTOS); err != nil || account.Status != "valid" {
		t.Errorf("%+v %v", account, err)
	}
}
