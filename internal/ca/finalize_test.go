package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// RFC 8555 section 7.4: the certificate says what was ordered, and its URL is
// in finalize's own answer.
func TestFinalize(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.prove(a.order("a.example", "b.example", "10.1.2.3"), protocol.HTTP01)
		k := newKey(t)
		o, err := a.Finalize(t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: csrOf(t, k, &x509.CertificateRequest{
			// What a CSR may ask for and doesn't get.
			Subject: pkix.Name{CommonName: "a.example", Organization: []string{"Evil"}},
			ExtraExtensions: []pkix.Extension{
				{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}, // CA:TRUE
				{Id: []int{1, 2, 3, 4}, Value: []byte{5, 0}},
			},
		}, "b.example", "a.example", "10.1.2.3")})
		if err != nil {
			t.Fatal(err)
		}
		c, serial := a.fetch(o)
		if c.IsCA || len(c.Subject.Organization) != 0 || !k.PublicKey.Equal(c.PublicKey) || fmt.Sprint(c.DNSNames, c.IPAddresses) != "[a.example b.example] [10.1.2.3]" {
			t.Errorf("%v %v %v %v", c.IsCA, c.Subject, c.DNSNames, c.IPAddresses)
		}
		if len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || c.NotAfter.Sub(c.NotBefore) != day-time.Second || cert.SerialOf(c.SerialNumber) != serial {
			t.Errorf("%v, %v, %v", c.ExtKeyUsage, c.NotAfter.Sub(c.NotBefore), serial)
		}
		// RFC 8555 section 7.4.2: alternate chains.
		var chains [][]byte
		for i := range 2 {
			v, err := a.Certificate(t.Context(), a.Requester, serial, i)
			if err != nil || v.Alternates != 1 || len(v.Certificates) != 2 {
				t.Fatalf("%d: %d certificates, %d alternates, %v", i, len(v.Certificates), v.Alternates, err)
			}
			chains = append(chains, v.Certificates[1])
		}
		if bytes.Equal(chains[0], chains[1]) {
			t.Error("the alternate is the same chain")
		}
		for _, i := range []int{-1, 2} {
			_, err := a.Certificate(t.Context(), a.Requester, serial, i)
			wants(t, err, protocol.Malformed, "no such alternate")
		}
	})
}

// RFC 8555 section 7.4: exactly what the client asked for, or an error.
func TestDates(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		from, to := w.Now().Add(time.Hour).Truncate(time.Second), w.Now().Add(50*time.Hour).Truncate(time.Second)
		o := a.prove(a.orderAs(OrderRequest{Identifiers: ids("a.example"), NotBefore: from, NotAfter: to}), protocol.DNS01)
		if c, _ := a.fetch(a.finalize(o)); !c.NotBefore.Equal(from) || !c.NotAfter.Equal(to) {
			t.Errorf("%v to %v, want %v to %v", c.NotBefore, c.NotAfter, from, to)
		}
		soon := a.prove(a.orderAs(OrderRequest{Identifiers: ids("b.example"), NotAfter: w.Now().Add(time.Hour)}), protocol.DNS01)
		w.Add(2 * time.Hour)
		_, err := a.Finalize(t.Context(), a.Requester, soon.ID, FinalizeRequest{CSR: csr(t, newKey(t), "b.example")})
		wants(t, err, protocol.OrderNotReady, "") // the proof is an hour's
	})
}

func TestBadCSR(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.ready("a.example", "b.example")
		names := []string{"a.example", "b.example"}
		weak, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		otherCurve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		blocked := newKey(t)
		broken := csr(t, newKey(t), names...)
		broken[len(broken)-1] ^= 1
		hash := hashOf(t, blocked.Public())
		if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.BlockKey(hash, "test") }); err != nil {
			t.Fatal(err)
		}
		for name, der := range map[string][]byte{
			"nothing":                    {},
			"no CSR":                     []byte("hello"),
			"broken signature":           broken,
			"a name too few":             csr(t, newKey(t), "a.example"),
			"a name too many":            csr(t, newKey(t), "a.example", "b.example", "c.example"),
			"another name":               csr(t, newKey(t), "a.example", "c.example"),
			"an address too many":        csr(t, newKey(t), "a.example", "b.example", "10.0.0.1"),
			"its account's key":          csr(t, a.own, names...),
			"another account's key":      csr(t, w.account(t, "main").own, names...),
			"another directory's":        csr(t, w.account(t, "other").own, names...),
			"RSA of 1024 bits":           csr(t, weak, names...),
			"a compromised key":          csr(t, blocked, names...),
			"a curve that isn't allowed": csr(t, otherCurve, names...),
		} {
			_, err := a.Finalize(t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: der})
			if p, ok := errors.AsType[*protocol.Problem](err); !ok || p.Type != protocol.BadCSR || p.HTTPStatus() != 400 {
				t.Errorf("%s: %v", name, err)
			}
		}
		if o = a.look(o); o.Status != protocol.OrderReady {
			t.Errorf("the order is %s: a bad CSR leaves it as it is", o.Status)
		}
		if o = a.finalize(o); o.Status != protocol.OrderValid {
			t.Error(o.Status)
		}
	})
}

// RFC 8555 section 7.4: finalize is for ready orders.
func TestNotReady(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.order("a.example")
		_, err := a.Finalize(t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: csr(t, newKey(t), "a.example")})
		if p := wants(t, err, protocol.OrderNotReady, "pending"); p.HTTPStatus() != 403 {
			t.Error(p.HTTPStatus())
		}
		a.finalize(a.prove(o, protocol.HTTP01))
		_, err = a.Finalize(t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: csr(t, newKey(t), "a.example")})
		wants(t, err, protocol.OrderNotReady, "already")
	})
}

// An order finalized twenty times at once makes one certificate.
func TestFinalizeAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		for range 5 {
			o := a.ready("a.example")
			der := csr(t, newKey(t), "a.example")
			var mu sync.Mutex
			good := 0
			parallel(20, func(int) {
				v, err := a.Finalize(t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: der})
				mu.Lock()
				defer mu.Unlock()
				if err == nil && v.Status == protocol.OrderValid {
					good++
				} else if p, ok := errors.AsType[*protocol.Problem](err); !ok || p.Type != protocol.OrderNotReady {
					t.Errorf("%s, %v", v.Status, err)
				}
			})
			if good != 1 {
				t.Errorf("%d were told of success", good)
			}
		}
		if rows, signed := w.rows(t), len(w.key.signatures()); rows["certificates"] != 5 || signed != 5 {
			t.Errorf("%d certificates, %d signatures, want 5", rows["certificates"], signed)
		}
	})
}

// A signature that takes long: processing with Retry-After, then valid.
func TestSlowKey(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.ready("a.example")
		gate := make(chan bool)
		w.key.wait(func(context.Context) error { <-gate; return nil })
		w.hold = 10 * time.Millisecond
		o = a.finalize(o)
		if o.Status != protocol.OrderProcessing || o.RetryAfter < time.Second || o.Certificate != "" {
			t.Errorf("%s, retry after %v, certificate %q", o.Status, o.RetryAfter, o.Certificate)
		}
		_, err := a.Finalize(t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: csr(t, newKey(t), "a.example")})
		wants(t, err, protocol.OrderNotReady, "processing")
		planned := w.plans(t)[0]
		_, err = a.Certificate(t.Context(), a.Requester, planned.Serial, 0)
		wants(t, err, protocol.Malformed, "no such certificate") // not before it is recorded
		close(gate)
		until(t, "the order is valid", func() bool { return a.look(o).Status == protocol.OrderValid })
		a.fetch(a.look(o))
	})
}

// plans are the certificates that are planned only.
func (w *world) plans(t testing.TB) []cert.Certificate {
	t.Helper()
	all, err := w.db.Certificates(t.Context(), store.CertificateFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(c cert.Certificate) bool { return c.State != cert.Planned })
}

// Whatever is withdrawn between the plan and the end of the signature: the
// order is invalid, and no certificate was ever seen.
func TestWithdrawnWhileSigning(t *testing.T) {
	for name, withdraw := range map[string]func(context.Context, *account, OrderView) error{
		"account deactivated": func(ctx context.Context, a *account, _ OrderView) error {
			_, err := a.DeactivateAccount(ctx, a.Requester)
			return err
		},
		"account revoked": func(ctx context.Context, a *account, _ OrderView) error {
			return a.endAccount(ctx, a.Requester.Account.ID)
		},
		"authorization deactivated": func(ctx context.Context, a *account, o OrderView) error {
			_, err := a.DeactivateAuthorization(ctx, a.Requester, o.Authorizations[0])
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				a := w.account(t, "main")
				o := a.ready("a.example")
				w.key.wait(func(ctx context.Context) error { return withdraw(ctx, a, o) })
				o = a.finalize(o)
				if o.Status != protocol.OrderInvalid || o.Certificate != "" || o.Error == nil || o.Error.Type != protocol.Unauthorized {
					t.Errorf("%+v", o)
				}
				if n := w.rows(t); n["certificates"] != 0 || n["certificate_names"] != 0 {
					t.Errorf("left behind: %v", n)
				}
				entries := w.entries(t, store.AuditFilter{Action: "certificate.issue"})
				if len(entries) != 1 || entries[0].Entry.Denied == "" {
					t.Errorf("audit: %+v", entries)
				}
			})
		})
	}
}

// RFC 8659: CAA is asked for every name, when it is proven and again
// immediately before the key is used.
func TestCAA(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "caa")
		o := a.prove(a.order("a.example", "*.b.example"), protocol.DNS01)
		w.caa.mu.Lock()
		proven := slices.Clone(w.caa.asked)
		w.caa.mu.Unlock()
		if fmt.Sprint(proven) != "[a.example false dns-01 b.example true dns-01]" {
			t.Errorf("asked: %q", proven)
		}
		if o = a.finalize(o); o.Status != protocol.OrderValid || fmt.Sprint(w.caa.asked[len(proven):]) != fmt.Sprint(proven) {
			t.Errorf("%s; asked again: %q", o.Status, w.caa.asked)
		}
		// The second of two names is forbidden meanwhile.
		signatures := len(w.key.signatures())
		o = a.ready("a.example", "c.example")
		w.caa.forbid("c.example")
		if o = a.finalize(o); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.CAAForbids || o.Error.Identifier.Value != "c.example" {
			t.Errorf("%s: %+v", o.Status, o.Error)
		}
		if len(w.key.signatures()) != signatures {
			t.Error("signed all the same")
		}
		if o := a.prove(a.order("*.c.example"), protocol.DNS01); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.CAAForbids {
			t.Errorf("%s: %+v", o.Status, o.Error)
		}
	})
}

// The server's own certificate is planned, recorded and audited as any other.
func TestIssueOwn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.options.Directories["main"].Policy.Profiles[0]
		k := newKey(t)
		chain, err := w.IssueOwn(t.Context(), p, ids("ca.internal", "10.0.0.1"), k.Public())
		if err != nil || len(chain) != 2 {
			t.Fatal(len(chain), err)
		}
		c, err := x509.ParseCertificate(chain[0])
		if err != nil || c.VerifyHostname("ca.internal") != nil || c.VerifyHostname("10.0.0.1") != nil || c.NotAfter.Sub(c.NotBefore) != day-time.Second {
			t.Error(err, c.DNSNames, c.NotAfter.Sub(c.NotBefore))
		}
		row, err := w.db.Certificate(t.Context(), cert.SerialOf(c.SerialNumber))
		if err != nil || row.State != cert.Issued || row.Directory != "" {
			t.Errorf("%+v, %v", row, err)
		}
		if len(w.entries(t, store.AuditFilter{Action: "certificate.issue", Object: string(row.Serial)})) != 1 {
			t.Error("not in the audit log")
		}
		// No directory's clients may revoke it.
		a := w.account(t, "main")
		wants(t, a.Revoke(t.Context(), a.Requester, chain[0], nil), protocol.Malformed, "no such certificate")
		p.Usages = []cert.Usage{cert.Client}
		if _, err := w.IssueOwn(t.Context(), p, ids("ca.internal"), k.Public()); err == nil {
			t.Error("a client's certificate for a server")
		}
		p = w.options.Directories["main"].Policy.Profiles[0]
		w.key.wait(func(context.Context) error { return errors.New("no") })
		if _, err := w.IssueOwn(t.Context(), p, ids("ca.internal"), k.Public()); err == nil {
			t.Error("issued without a signature")
		}
	})
}

func hashOf(t testing.TB, pub crypto.PublicKey) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(spki))
}
