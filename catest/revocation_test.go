package catest_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acme"
)

func fetch(t *testing.T, ca *catest.CA, r *http.Request) []byte {
	t.Helper()
	a, err := ca.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", r.URL, a.StatusCode, body, err)
	}
	return body
}

func request(t *testing.T, method, url string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func issuerOf(t *testing.T, c tls.Certificate) *x509.Certificate {
	t.Helper()
	issuer, err := x509.ParseCertificate(c.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// status asks the responder that the certificate names, in both ways.
func status(t *testing.T, ca *catest.CA, c tls.Certificate, hash crypto.Hash) *ocsp.Response {
	t.Helper()
	issuer := issuerOf(t, c)
	der, err := ocsp.CreateRequest(c.Leaf, issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	at := c.Leaf.OCSPServer[0]
	answers := [][]byte{
		fetch(t, ca, request(t, http.MethodPost, at, der)),
		fetch(t, ca, request(t, http.MethodGet, at+"/"+url.PathEscape(base64.StdEncoding.EncodeToString(der)), nil)),
	}
	var said *ocsp.Response
	for _, body := range answers {
		if said, err = ocsp.ParseResponseForCert(body, c.Leaf, issuer); err != nil {
			t.Fatal(err)
		}
		if now := ca.Clock().Now(); now.Before(said.ThisUpdate) || !now.Before(said.NextUpdate) {
			t.Errorf("the answer is from %v to %v at %v", said.ThisUpdate, said.NextUpdate, now)
		}
	}
	return said
}

// list fetches the CRL that the certificate names and checks whose it is.
func list(t *testing.T, ca *catest.CA, c tls.Certificate) *x509.RevocationList {
	t.Helper()
	l, err := x509.ParseRevocationList(fetch(t, ca, request(t, http.MethodGet, c.Leaf.CRLDistributionPoints[0], nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckSignatureFrom(issuerOf(t, c)); err != nil {
		t.Error(err)
	}
	if now := ca.Clock().Now(); now.Before(l.ThisUpdate) || !now.Before(l.NextUpdate) {
		t.Errorf("the list is from %v to %v at %v", l.ThisUpdate, l.NextUpdate, now)
	}
	return l
}

// OCSP and CRL say at once what Revoke did, of certificates of an older issuing CA too.
func TestRevoke(t *testing.T) {
	for _, where := range []struct {
		name string
		as   []catest.Option
	}{
		{"network", nil},
		{"memory, stopped", []catest.Option{catest.InMemory(), catest.StoppedAt(noon)}},
	} {
		t.Run(where.name, func(t *testing.T) {
			ca := catest.New(t, append(where.as, catest.WithRevocation())...)
			first, kept := ca.Issue(mtls.UsageServer, "first.test"), ca.Issue(mtls.UsageClient, "kept.test")
			ca.Rotate()
			second := ca.Issue(mtls.UsageServer, "second.test")
			for _, c := range []tls.Certificate{first, second, kept} {
				if s := status(t, ca, c, crypto.SHA1); s.Status != ocsp.Good {
					t.Errorf("%v: OCSP says %d", c.Leaf.DNSNames, s.Status)
				}
				if l := list(t, ca, c); len(l.RevokedCertificateEntries) > 0 {
					t.Errorf("%v: the CRL has %v", c.Leaf.DNSNames, l.RevokedCertificateEntries)
				}
				issuer := fetch(t, ca, request(t, http.MethodGet, c.Leaf.IssuingCertificateURL[0], nil))
				if !bytes.Equal(issuer, c.Certificate[1]) {
					t.Errorf("%v: another issuing certificate", c.Leaf.DNSNames)
				}
			}
			ca.Advance(5 * time.Hour) // answers are made anew
			for _, c := range []tls.Certificate{first, second} {
				number := list(t, ca, c).Number
				ca.Revoke(c.Leaf)
				if s := status(t, ca, c, crypto.SHA256); s.Status != ocsp.Revoked || s.RevokedAt.After(ca.Clock().Now()) {
					t.Errorf("%v: OCSP says %d at %v", c.Leaf.DNSNames, s.Status, s.RevokedAt)
				}
				l := list(t, ca, c)
				if es := l.RevokedCertificateEntries; len(es) != 1 || es[0].SerialNumber.Cmp(c.Leaf.SerialNumber) != 0 {
					t.Errorf("%v: the CRL has %v", c.Leaf.DNSNames, es)
				}
				if l.Number.Cmp(number) <= 0 {
					t.Errorf("CRL %v came after %v", l.Number, number)
				}
			}
			if s := status(t, ca, kept, crypto.SHA1); s.Status != ocsp.Good {
				t.Errorf("a third one: OCSP says %d", s.Status)
			}
		})
	}
}

// What it wasn't asked properly, or doesn't know, the responder says in OCSP's words.
func TestOCSPRefusals(t *testing.T) {
	ca, other := catest.New(t, catest.WithRevocation()), catest.New(t, catest.WithRevocation())
	mine, foreign := ca.Issue(mtls.UsageServer, "web.test"), other.Issue(mtls.UsageServer, "web.test")
	at := mine.Leaf.OCSPServer[0]
	ask := func(leaf, issuer *x509.Certificate) []byte {
		der, err := ocsp.CreateRequest(leaf, issuer, nil)
		if err != nil {
			t.Fatal(err)
		}
		return fetch(t, ca, request(t, http.MethodPost, at, der))
	}
	for _, test := range []struct {
		name   string
		answer []byte
		want   []byte
	}{
		{"another CA's", ask(foreign.Leaf, issuerOf(t, foreign)), ocsp.UnauthorizedErrorResponse},
		{"never issued", ask(issuerOf(t, mine), issuerOf(t, mine)), ocsp.UnauthorizedErrorResponse},
		{"no request", fetch(t, ca, request(t, http.MethodPost, at, []byte("?"))), ocsp.MalformedRequestErrorResponse},
	} {
		if !bytes.Equal(test.answer, test.want) {
			t.Errorf("%s: %x, want %x", test.name, test.answer, test.want)
		}
	}
	for _, path := range []string{"", "/", "/crl/", "/crl/00.crl", "/ca/zz.cer"} {
		u, _ := url.Parse(at)
		u.Path = path
		a, err := ca.Client().Get(u.String())
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
}

// Without the option, certificates are of the kind that has no revocation.
func TestWithoutRevocation(t *testing.T) {
	c := catest.New(t).Issue(mtls.UsageServer, "web.test")
	if len(c.Leaf.OCSPServer)+len(c.Leaf.CRLDistributionPoints) > 0 {
		t.Errorf("%v, %v", c.Leaf.OCSPServer, c.Leaf.CRLDistributionPoints)
	}
}

// Who asks for renewal information learns at once that it needs another.
func TestRevokeAsksForRenewal(t *testing.T) {
	ca := catest.New(t)
	c := ca.Config("web.test")
	leaf, _ := mustObtain(t, c)
	client := &acme.Client{DirectoryURL: c.CAs[0].Directory, HTTPClient: c.CAs[0].HTTPClient, Key: newKey(t)}
	window := func() acme.RenewalInfo {
		info, err := client.RenewalInfo(t.Context(), leaf)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if w := window().SuggestedWindow; !w.Start.After(time.Now()) || w.End.After(leaf.NotAfter) {
		t.Errorf("renew from %v to %v", w.Start, w.End)
	}
	ca.Revoke(leaf)
	if w := window().SuggestedWindow; w.End.After(time.Now()) {
		t.Errorf("revoked: renew until %v", w.End)
	}
}
