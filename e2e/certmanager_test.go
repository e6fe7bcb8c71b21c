package e2e_test

import (
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/cert-manager/cert-manager/third_party/forked/acme"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// cert-manager's fork of x/crypto/acme is the code with which its controllers
// talk to the server; this is what they do with it.
func TestCertManager(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it sends no Location with finalize, without which this client polls an empty URL")
		b := w.BIND()
		ca := w.CA(harness.Options{})
		r := w.Responder()
		hook := b.Hook(w)
		ctx := w.Context()
		c := &acme.Client{Key: w.NewKey(), DirectoryURL: ca.Directory, HTTPClient: ca.HTTPClient()}
		kid, hmac := ca.EAB()
		account := &acme.Account{Contact: []string{"mailto:a@example.org"},
			ExternalAccountBinding: &acme.ExternalAccountBinding{KID: kid, Key: base64key(w, hmac)}}
		if _, err := c.Register(ctx, account, acme.AcceptTOS); err != nil {
			w.Fatal(err)
		}
		prove := func(url, kind string) {
			z, err := c.GetAuthorization(ctx, url)
			if err != nil {
				w.Fatal(err)
			}
			for _, ch := range z.Challenges {
				if ch.Type != kind {
					continue
				}
				if kind == "dns-01" {
					value, err := c.DNS01ChallengeRecord(ch.Token)
					if err != nil {
						w.Fatal(err)
					}
					w.Run(hook, "add", "_acme-challenge."+z.Identifier.Value, value)
				} else {
					answer, err := c.HTTP01ChallengeResponse(ch.Token)
					if err != nil {
						w.Fatal(err)
					}
					r.HTTP(ch.Token, answer)
				}
				if _, err := c.Accept(ctx, ch); err != nil {
					w.Fatal(err)
				}
				if _, err := c.WaitAuthorization(ctx, url); err != nil {
					w.Fatal(err)
				}
				return
			}
			w.Fatalf("no challenge %s is offered", kind)
		}
		issue := func(kind string, names ...string) *x509.Certificate {
			o, err := c.AuthorizeOrder(ctx, acme.DomainIDs(names...))
			if err != nil {
				w.Fatal(err)
			}
			for _, url := range o.AuthzURLs {
				prove(url, kind)
			}
			if o, err = c.WaitOrder(ctx, o.URI); err != nil {
				w.Fatal(err)
			}
			csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, w.NewKey())
			if err != nil {
				w.Fatal(err)
			}
			chain, url, err := c.CreateOrderCert(ctx, o.FinalizeURL, csr, true)
			if err != nil {
				w.Fatal(err)
			}
			if _, err := c.ListCertAlternates(ctx, url); err != nil {
				w.Fatal(err)
			}
			return w.Verify(ca, names, w.SavePEM("cm.pem", chain...))
		}
		cert := issue("http-01", "b.test")
		issue("dns-01", "*.a.test", "a.test")
		if _, err := c.GetRenewalInfo(ctx, cert); err != nil {
			w.Errorf("renewal information: %v", err)
		}
		if err := c.RevokeCert(ctx, nil, cert.Raw, acme.CRLReasonSuperseded); err != nil {
			w.Fatal(err)
		}
	})
}
