package e2e_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// acmezClient is an acmez client with an account, answering challenges of the
// given type only.
type acmezClient struct {
	acmez.Client
	w       *harness.World
	ca      *harness.CA
	account acme.Account
}

func newAcmez(w *harness.World, ca *harness.CA, solvers map[string]acmez.Solver) *acmezClient {
	w.Helper()
	c := &acmezClient{w: w, ca: ca, Client: acmez.Client{
		Client:           &acme.Client{Directory: ca.Directory, HTTPClient: ca.HTTPClient(), PollInterval: 50 * time.Millisecond},
		ChallengeSolvers: solvers,
	}}
	c.account = c.register(acme.Account{})
	return c
}

// register makes an account with a new P-256 key.
func (c *acmezClient) register(a acme.Account) acme.Account {
	c.w.Helper()
	if a.PrivateKey == nil {
		a.PrivateKey = c.w.NewKey()
	}
	a.Contact = []string{"mailto:a@example.org"}
	a.TermsOfServiceAgreed = true
	a, err := c.NewAccount(c.w.Context(), a)
	if err != nil {
		c.w.Fatal(err)
	}
	if a.Status != acme.StatusValid || a.Location == "" {
		c.w.Fatalf("new account: status %q, location %q", a.Status, a.Location)
	}
	return a
}

// obtain gets a certificate, has it verified, and returns it with its URL.
func (c *acmezClient) obtain(key crypto.Signer, change func(*acmez.OrderParameters), names ...string) (*x509.Certificate, acme.Certificate) {
	c.w.Helper()
	csr, err := acmez.NewCSR(key, names)
	if err != nil {
		c.w.Fatal(err)
	}
	params, err := acmez.OrderParametersFromCSR(c.account, csr)
	if err != nil {
		c.w.Fatal(err)
	}
	if change != nil {
		change(&params)
	}
	certs, err := c.ObtainCertificate(c.w.Context(), params)
	if err != nil {
		c.w.Fatalf("%q: %v", names, err)
	}
	file := c.w.Write("acmez.pem", string(certs[0].ChainPEM))
	return c.w.Verify(c.ca, names, file), certs[0]
}

// solver is a challenge's answer and its removal, as functions.
type solver struct{ present, cleanUp func(acme.Challenge) error }

func (s solver) Present(_ context.Context, ch acme.Challenge) error { return s.present(ch) }
func (s solver) CleanUp(_ context.Context, ch acme.Challenge) error {
	if s.cleanUp == nil {
		return nil
	}
	return s.cleanUp(ch)
}

func solveHTTP01(r *harness.Responder) map[string]acmez.Solver {
	return map[string]acmez.Solver{acme.ChallengeTypeHTTP01: solver{present: func(ch acme.Challenge) error {
		r.HTTP(ch.Token, ch.KeyAuthorization)
		return nil
	}}}
}

func solveALPN01(r *harness.Responder) map[string]acmez.Solver {
	return map[string]acmez.Solver{acme.ChallengeTypeTLSALPN01: solver{present: func(ch acme.Challenge) error {
		cert, err := acmez.TLSALPN01ChallengeCert(ch)
		if err != nil {
			return err
		}
		r.ALPN(sniOf(ch.Identifier.Value), cert)
		return nil
	}}}
}

// solveDNS01 puts TXT records into BIND by dynamic updates.
func solveDNS01(w *harness.World, b *harness.BIND) map[string]acmez.Solver {
	hook := b.Hook(w)
	update := func(verb string) func(acme.Challenge) error {
		return func(ch acme.Challenge) error {
			w.Run(hook, verb, ch.DNS01TXTRecordName(), ch.DNS01KeyAuthorization())
			return nil
		}
	}
	return map[string]acmez.Solver{acme.ChallengeTypeDNS01: solver{update("add"), update("del")}}
}

// sniOf is the server name under which tls-alpn-01 asks for an identifier: an
// IPv4 address is asked for by its reverse name (RFC 8738, 6).
func sniOf(value string) string {
	if value == "127.0.0.1" {
		return "1.0.0.127.in-addr.arpa"
	}
	return value
}

func TestAcmez(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		r := w.Responder()

		w.Sub("http-01, every kind of key", func(w *harness.World) {
			c := newAcmez(w, ca, solveHTTP01(r))
			rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				w.Fatal(err)
			}
			p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				w.Fatal(err)
			}
			keys := map[string]crypto.Signer{"RSA-2048": rsaKey, "P-256": w.NewKey(), "P-384": p384}
			if !harness.Pebble { // it knows no Ed25519
				_, ed, err := ed25519.GenerateKey(rand.Reader)
				if err != nil {
					w.Fatal(err)
				}
				keys["Ed25519"] = ed
			}
			for kind, key := range keys {
				cert, _ := c.obtain(key, nil, "a.test", "b.test")
				w.KeyIs(cert, kind)
			}
		})
		w.Sub("tls-alpn-01", func(w *harness.World) {
			newAcmez(w, ca, solveALPN01(r)).obtain(w.NewKey(), nil, "a.test")
		})
		w.Sub("IP address by http-01 and tls-alpn-01", func(w *harness.World) {
			newAcmez(w, ca, solveHTTP01(r)).obtain(w.NewKey(), nil, "127.0.0.1")
			newAcmez(w, ca, solveALPN01(r)).obtain(w.NewKey(), nil, "127.0.0.1")
		})
		w.Sub("RSA account key", func(w *harness.World) {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				w.Fatal(err)
			}
			c := newAcmez(w, ca, solveHTTP01(r))
			c.account = c.register(acme.Account{PrivateKey: key})
			c.obtain(w.NewKey(), nil, "a.test")
		})
		w.Sub("renewal with ARI and replaces", func(w *harness.World) {
			c := newAcmez(w, ca, solveHTTP01(r))
			first, got := c.obtain(w.NewKey(), nil, "a.test")
			if got.RenewalInfo == nil || !got.RenewalInfo.HasWindow() {
				w.Errorf("no renewal information came with the certificate: %+v", got.RenewalInfo)
			}
			second, _ := c.obtain(w.NewKey(), func(p *acmez.OrderParameters) { p.Replaces = first }, "a.test")
			w.Renewed(first, second)
		})
		w.Sub("external account binding", func(w *harness.World) {
			c := newAcmez(w, ca, solveHTTP01(r))
			kid, hmac := ca.EAB()
			a := acme.Account{PrivateKey: w.NewKey()}
			if err := a.SetExternalAccountBinding(w.Context(), c.Client.Client, acme.EAB{KeyID: kid, MACKey: hmac}); err != nil {
				w.Fatal(err)
			}
			c.account = c.register(a)
			c.obtain(w.NewKey(), nil, "a.test")

			forged := acme.Account{PrivateKey: w.NewKey(), TermsOfServiceAgreed: true}
			kid, _ = ca.EAB()
			if err := forged.SetExternalAccountBinding(w.Context(), c.Client.Client, acme.EAB{KeyID: kid, MACKey: "AAAA" + hmac[4:]}); err != nil {
				w.Fatal(err)
			}
			if _, err := c.NewAccount(w.Context(), forged); problem(err).Status/100 != 4 {
				w.Errorf("a binding by another key is answered by %v, want 4xx", err)
			}
		})
		w.Sub("revocation", func(w *harness.World) {
			c := newAcmez(w, ca, solveHTTP01(r))
			for _, byCertKey := range []bool{false, true} {
				for _, reason := range []int{acme.ReasonKeyCompromise, acme.ReasonSuperseded} {
					key := w.NewKey()
					cert, _ := c.obtain(key, nil, "a.test")
					account, signer := c.account, crypto.Signer(nil)
					if byCertKey {
						account, signer = acme.Account{}, key
					}
					if err := c.RevokeCertificate(w.Context(), account, cert, signer, reason); err != nil {
						w.Fatalf("reason %d, by the certificate's key %t: %v", reason, byCertKey, err)
					}
					w.RevokedKey(ca, cert, key)
				}
			}
		})
		w.Sub("account", func(w *harness.World) {
			c := newAcmez(w, ca, solveHTTP01(r))
			found, err := c.GetAccount(w.Context(), acme.Account{PrivateKey: c.account.PrivateKey})
			if err != nil || found.Location != c.account.Location {
				w.Fatalf("looking the account up: %q, %v; want %q", found.Location, err, c.account.Location)
			}
			rolled, err := c.AccountKeyRollover(w.Context(), c.account, w.NewKey())
			if err != nil {
				w.Fatal(err)
			}
			old := c.account
			c.account = rolled
			c.obtain(w.NewKey(), nil, "a.test")
			if _, err := c.GetAccount(w.Context(), acme.Account{PrivateKey: old.PrivateKey}); problem(err).Type != acme.ProblemTypeAccountDoesNotExist {
				w.Errorf("the old key is answered by %v, want accountDoesNotExist", err)
			}
		})
		w.Sub("profiles", func(w *harness.World) {
			c := newAcmez(w, ca, solveHTTP01(r))
			dir, err := c.GetDirectory(w.Context())
			if err != nil {
				w.Fatal(err)
			}
			if len(dir.Meta.Profiles) == 0 {
				w.Fatal("the directory offers no profile")
			}
			for name := range dir.Meta.Profiles {
				c.obtain(w.NewKey(), func(p *acmez.OrderParameters) { p.Profile = name }, "a.test")
			}
		})
	})
}

func TestAcmezDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		c := newAcmez(w, ca, solveDNS01(w, b))
		c.obtain(w.NewKey(), nil, "a.test")
		// Both identifiers look at one name: two TXT records at one time.
		c.obtain(w.NewKey(), nil, "*.a.test", "a.test")
	})
}

// problem is the ACME problem in an error of acmez's, or a zero one.
func problem(err error) acme.Problem {
	p, _ := errors.AsType[acme.Problem](err)
	return p
}

var _ http.Handler = (*harness.Responder)(nil)
