package catest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// Issue issues a certificate with a new P-256 key for the names (dns names, IP
// addresses), with its chain, for a peer that doesn't get its own. It
// does so while the CA is down or slow too, and fails the test where it can't.
func (ca *CA) Issue(usage mtls.Usage, names ...string) tls.Certificate {
	ca.t.Helper()
	c, err := ca.issue(context.Background(), usage, names)
	if err != nil {
		ca.t.Fatalf("catest: %v", err)
	}
	return c
}

func (ca *CA) issue(ctx context.Context, usage mtls.Usage, names []string) (c tls.Certificate, err error) {
	client, err := ca.account.of(ctx, ca)
	if err != nil {
		return c, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	order := acme.OrderRequest{Profile: profileOf[usage], Identifiers: acme.Identifiers(names...)}
	chain, err := client.Obtain(ctx, acme.ObtainRequest{Order: order, Key: key})
	if err != nil {
		return c, err
	}
	leaf, err := x509.ParseCertificate(chain.DER[0])
	return tls.Certificate{Certificate: chain.DER, PrivateKey: key, Leaf: leaf}, err
}

var profileOf = map[mtls.Usage]string{mtls.UsageServer: "server", mtls.UsageClient: "client", mtls.UsageBoth: "both"}

// Revoke withdraws a certificate that this CA issued. From then on OCSP and CRL
// say so ([WithRevocation]), and renewal information asks for another at once
// (RFC 9773). It fails the test where it can't, as for a certificate that is
// revoked already.
func (ca *CA) Revoke(c *x509.Certificate) {
	ca.t.Helper()
	if err := ca.console.RevokeCertificate(context.Background(), caller, cert.SerialOf(c.SerialNumber), cert.Unspecified); err != nil {
		ca.t.Fatalf("catest: revoking: %v", err)
	}
}

// account is what Issue asks with, made at its first use.
type account struct {
	mu     sync.Mutex
	client *acme.Client
}

func (a *account) of(ctx context.Context, ca *CA) (*acme.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		return a.client, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	client := &acme.Client{DirectoryURL: ca.Directory(), Key: key, HTTPClient: &http.Client{Transport: direct{ca.handler}}}
	if _, err := client.Register(ctx, acme.Registration{TermsAgreed: true, EAB: ca.EAB()}); err != nil {
		return nil, fmt.Errorf("registering an account: %w", err)
	}
	a.client = client
	return client, nil
}

// direct answers requests by a handler, without a connection.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.RemoteAddr, r.RequestURI, r.Host = loopback.String(), r.URL.RequestURI(), r.URL.Host
	if r.Body == nil {
		r.Body = http.NoBody
	}
	answer := httptest.NewRecorder()
	d.ServeHTTP(answer, r)
	return answer.Result(), nil
}
