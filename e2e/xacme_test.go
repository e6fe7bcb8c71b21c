package e2e_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// xacme is a client of golang.org/x/crypto/acme with an account.
type xacme struct {
	*acme.Client
	w  *harness.World
	ca *harness.CA
	r  *harness.Responder
}

func newXacme(w *harness.World, ca *harness.CA, r *harness.Responder) *xacme {
	w.Helper()
	x := &xacme{&acme.Client{Key: w.NewKey(), DirectoryURL: ca.Directory, HTTPClient: ca.HTTPClient()}, w, ca, r}
	if _, err := x.Register(w.Context(), &acme.Account{Contact: []string{"mailto:a@example.org"}}, acme.AcceptTOS); err != nil {
		w.Fatal(err)
	}
	return x
}

// prove makes an authorization valid by one challenge type.
func (x *xacme) prove(url, kind string) *acme.Authorization {
	x.w.Helper()
	ctx := x.w.Context()
	z, err := x.GetAuthorization(ctx, url)
	if err != nil {
		x.w.Fatal(err)
	}
	if z.Status != acme.StatusPending {
		return z
	}
	for _, ch := range z.Challenges {
		if ch.Type != kind {
			continue
		}
		switch kind {
		case "http-01":
			answer, err := x.HTTP01ChallengeResponse(ch.Token)
			if err != nil {
				x.w.Fatal(err)
			}
			x.r.HTTP(ch.Token, answer)
		case "tls-alpn-01":
			cert, err := x.TLSALPN01ChallengeCert(ch.Token, z.Identifier.Value)
			if err != nil {
				x.w.Fatal(err)
			}
			x.r.ALPN(sniOf(z.Identifier.Value), &cert)
		}
		if _, err := x.Accept(ctx, ch); err != nil {
			x.w.Fatal(err)
		}
		if z, err = x.WaitAuthorization(ctx, url); err != nil {
			x.w.Fatal(err)
		}
		return z
	}
	x.w.Fatalf("no challenge %s is offered for %s", kind, z.Identifier.Value)
	return nil
}

// order proves an order's names and returns it ready.
func (x *xacme) order(kind string, ids []acme.AuthzID, opts ...acme.OrderOption) *acme.Order {
	x.w.Helper()
	ctx := x.w.Context()
	o, err := x.AuthorizeOrder(ctx, ids, opts...)
	if err != nil {
		x.w.Fatal(err)
	}
	for _, url := range o.AuthzURLs {
		x.prove(url, kind)
	}
	if o, err = x.WaitOrder(ctx, o.URI); err != nil {
		x.w.Fatal(err)
	}
	if o.Status != acme.StatusReady {
		x.w.Fatalf("the order is %s after all proofs, want ready", o.Status)
	}
	return o
}

// issue gets a certificate for DNS names.
func (x *xacme) issue(key crypto.Signer, kind string, names ...string) (*x509.Certificate, string) {
	x.w.Helper()
	o := x.order(kind, acme.DomainIDs(names...))
	return x.finalize(o, key, &x509.CertificateRequest{DNSNames: names}, names)
}

func (x *xacme) finalize(o *acme.Order, key crypto.Signer, req *x509.CertificateRequest, names []string) (*x509.Certificate, string) {
	x.w.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		x.w.Fatal(err)
	}
	chain, url, err := x.CreateCertFromOrder(x.w.Context(), o, csr, true)
	if err != nil {
		x.w.Fatal(err)
	}
	return x.w.Verify(x.ca, names, x.w.SavePEM("x.pem", chain...)), url
}

func TestXAcme(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		r := w.Responder()
		w.Sub("http-01, alternate chains, revocation", func(w *harness.World) {
			x := newXacme(w, ca, r)
			key := w.NewKey()
			cert, url := x.issue(key, "http-01", "a.test", "b.test")
			if _, err := x.FetchCert(w.Context(), url, true); err != nil {
				w.Fatal(err)
			}
			if _, err := x.ListCertAlternates(w.Context(), url); err != nil {
				w.Fatal(err)
			}
			if err := x.RevokeCert(w.Context(), nil, cert.Raw, acme.CRLReasonSuperseded); err != nil {
				w.Fatal(err)
			}
			w.RevokedKey(ca, cert, key)
		})
		w.Sub("tls-alpn-01, RSA, revocation by the certificate's key", func(w *harness.World) {
			x := newXacme(w, ca, r)
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				w.Fatal(err)
			}
			cert, _ := x.issue(key, "tls-alpn-01", "a.test")
			stranger := &acme.Client{Key: w.NewKey(), DirectoryURL: ca.Directory, HTTPClient: ca.HTTPClient()}
			if err := stranger.RevokeCert(w.Context(), key, cert.Raw, acme.CRLReasonKeyCompromise); err != nil {
				w.Fatal(err)
			}
			w.RevokedKey(ca, cert, key)
		})
		w.Sub("pre-authorization, deactivation of authorizations", func(w *harness.World) {
			w.Ours("it has no newAuthz and refuses unknown members")
			x := newXacme(w, ca, r)
			z, err := x.Authorize(w.Context(), "a.test")
			if err != nil {
				w.Fatal(err)
			}
			x.prove(z.URI, "http-01")
			o, err := x.AuthorizeOrder(w.Context(), acme.DomainIDs("a.test"))
			if err != nil {
				w.Fatal(err)
			}
			if o.Status != acme.StatusReady {
				w.Errorf("an order for a name proven before is %s, want ready", o.Status)
			}
			// x/crypto sends ACMEv1's members "resource" and "delete" with it.
			if err := x.RevokeAuthorization(w.Context(), z.URI); err != nil {
				w.Fatal(err)
			}
			if z, err = x.GetAuthorization(w.Context(), z.URI); err != nil || z.Status != acme.StatusDeactivated {
				w.Errorf("a deactivated authorization is %v, %v", z.Status, err)
			}
		})
		w.Sub("account: find, update, new key, deactivate", func(w *harness.World) {
			x := newXacme(w, ca, r)
			a, err := x.GetReg(w.Context(), "")
			if err != nil {
				w.Fatal(err)
			}
			a.Contact = []string{"mailto:b@example.org"}
			if a, err = x.UpdateReg(w.Context(), a); err != nil || len(a.Contact) != 1 || a.Contact[0] != "mailto:b@example.org" {
				w.Fatalf("the updated account is %+v, %v", a, err)
			}
			if err := x.AccountKeyRollover(w.Context(), w.NewKey()); err != nil {
				w.Fatal(err)
			}
			x.issue(w.NewKey(), "http-01", "a.test")
			if err := x.DeactivateReg(w.Context()); err != nil {
				w.Fatal(err)
			}
			if _, err := x.AuthorizeOrder(w.Context(), acme.DomainIDs("a.test")); problemOf(err) == "" {
				w.Errorf("an order of a deactivated account: %v, want a problem", err)
			}
		})
		w.Sub("external account binding", func(w *harness.World) {
			kid, hmac := ca.EAB()
			x := &xacme{&acme.Client{Key: w.NewKey(), DirectoryURL: ca.Directory, HTTPClient: ca.HTTPClient()}, w, ca, r}
			a := &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: kid, Key: base64key(w, hmac)}}
			if _, err := x.Register(w.Context(), a, acme.AcceptTOS); err != nil {
				w.Fatal(err)
			}
			x.issue(w.NewKey(), "http-01", "a.test")
		})
		w.Sub("requested times", func(w *harness.World) {
			x := newXacme(w, ca, r)
			end := time.Now().Add(3 * time.Hour).Truncate(time.Second)
			o := x.order("http-01", acme.DomainIDs("a.test"), acme.WithOrderNotAfter(end))
			cert, _ := x.finalize(o, w.NewKey(), &x509.CertificateRequest{DNSNames: []string{"a.test"}}, []string{"a.test"})
			if !cert.NotAfter.Equal(end) {
				w.Errorf("asked for notAfter %v, got %v", end, cert.NotAfter)
			}
		})
	})
}

// problemOf is the type of the ACME problem in an error of x/crypto's.
func problemOf(err error) string {
	if e, ok := errors.AsType[*acme.Error](err); ok {
		return e.ProblemType
	}
	return ""
}
