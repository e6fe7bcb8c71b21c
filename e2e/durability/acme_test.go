package durability

import (
	"context"
	"crypto/x509"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// solver answers http-01 through the harness's responder.
type solver struct{ *harness.Responder }

func (s solver) Type() string { return acme.HTTP01 }

func (s solver) Present(_ context.Context, p acme.Proof) (any, error) {
	s.HTTP(p.Challenge.Token, p.KeyAuthorization)
	return nil, nil
}

func (s solver) CleanUp(context.Context, acme.Proof) error { return nil }

// register makes an account in the directory of that name.
func (s *server) register(h *http.Client, directory string, eab *acme.ExternalAccount) *acme.Client {
	s.w.Helper()
	c := &acme.Client{DirectoryURL: s.directory(directory), HTTPClient: h, Key: newKey(s.w)}
	a, err := c.Register(s.w.Context(), acme.Registration{TermsAgreed: true, EAB: eab})
	if err != nil {
		s.w.Fatal(err)
	}
	c.AccountURL = a.URL
	return c
}

// through is the same account over other connections.
func through(c *acme.Client, h *http.Client) *acme.Client {
	return &acme.Client{DirectoryURL: c.DirectoryURL, HTTPClient: h, Key: c.Key, AccountURL: c.AccountURL}
}

// order makes an order.
func newOrder(t testing.TB, c *acme.Client, names ...string) acme.Order {
	t.Helper()
	o, err := c.NewOrder(t.Context(), acme.OrderRequest{Identifiers: acme.Identifiers(names...)})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// challenge fetches an authorization and finds its http-01 challenge, which
// the responder answers from now on.
func challenge(t testing.TB, c *acme.Client, r *harness.Responder, authorization string) acme.Challenge {
	t.Helper()
	z, err := c.Authorization(t.Context(), authorization)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(z.Challenges, func(ch acme.Challenge) bool { return ch.Type == acme.HTTP01 })
	if i < 0 {
		t.Fatalf("authorization %s offers no http-01", authorization)
	}
	answer, err := c.KeyAuthorization(z.Challenges[i].Token)
	if err != nil {
		t.Fatal(err)
	}
	r.HTTP(z.Challenges[i].Token, answer)
	return z.Challenges[i]
}

// ready makes an order whose names are proven.
func ready(t testing.TB, c *acme.Client, r *harness.Responder, names ...string) acme.Order {
	t.Helper()
	o := newOrder(t, c, names...)
	for _, url := range o.Authorizations {
		ch, err := c.Accept(t.Context(), challenge(t, c, r, url), nil)
		if err != nil {
			t.Fatal(err)
		}
		if ch.Status != acme.StatusValid {
			becomes(t, c, url, acme.StatusValid, 15*time.Second)
		}
	}
	o.Status = acme.StatusReady
	return o
}

// becomes waits until an authorization has the status, which is final.
func becomes(t testing.TB, c *acme.Client, authorization, status string, limit time.Duration) {
	t.Helper()
	var z acme.Authorization
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if z, err = c.Authorization(t.Context(), authorization); err != nil {
			t.Fatal(err)
		}
		if z.Status == status {
			return
		}
		if time.Now().After(end) || z.Status != acme.StatusPending {
			t.Fatalf("authorization %s is %s, want %s within %v", authorization, z.Status, status, limit)
		}
	}
}

// obtain does a whole issuance and returns the leaf.
func obtain(t testing.TB, c *acme.Client, r *harness.Responder, names ...string) *x509.Certificate {
	t.Helper()
	return obtainAs(t, c, r, acme.OrderRequest{Identifiers: acme.Identifiers(names...)})
}

func obtainAs(t testing.TB, c *acme.Client, r *harness.Responder, req acme.OrderRequest) *x509.Certificate {
	t.Helper()
	chain, err := c.Obtain(t.Context(), acme.ObtainRequest{Order: req, Key: newKey(t), Solvers: []acme.Solver{solver{r}}})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain.DER[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// refused checks that err is a problem of the type.
func refused(t testing.TB, err error, typ, what string) {
	t.Helper()
	if !acme.HasType(err, typ) {
		t.Errorf("%s: %v, want %s", what, err, typ)
	}
}
