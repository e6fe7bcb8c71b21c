package mtls

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"
)

// What NewTrust refuses names the field and what would be right.
func TestNewTrustRefuses(t *testing.T) {
	root := []Roots{RootsPEM(trustPEM(trustIssue(t, nil, caNamed("root"))))}
	for name, test := range map[string]struct {
		cfg  TrustConfig
		want string
	}{
		"nothing":        {TrustConfig{}, "mtls: TrustConfig: neither Servers nor Clients has roots; name a RootsFile"},
		"zero source":    {TrustConfig{Servers: root, Clients: []Roots{{}}}, "mtls: TrustConfig.Clients[0] (nothing): it is the zero value; use RootsFile"},
		"missing file":   {TrustConfig{Servers: []Roots{RootsFile("/nonexistent/roots.pem")}}, `mtls: TrustConfig.Servers[0] (file "/nonexistent/roots.pem"): stat`},
		"bundle alone":   {TrustConfig{Clients: []Roots{RootsURL("https://ca.test/")}}, "mtls: TrustConfig.Clients: URL"},
		"hard, but off":  {TrustConfig{Servers: root, Revocation: Revocation{Hard: true}}, "mtls: TrustConfig.Revocation.Hard: nothing is looked up"},
		"negative wait":  {TrustConfig{Servers: root, Revocation: Revocation{Check: CheckCRL, Wait: -1}}, "TrustConfig.Revocation.Wait: -1ns is negative"},
		"no such check":  {TrustConfig{Servers: root, Revocation: Revocation{Check: 7}}, "TrustConfig.Revocation.Check: there is no 7; use CheckOff"},
		"negative check": {TrustConfig{Servers: root, Revocation: Revocation{Check: -1}}, "TrustConfig.Revocation.Check"},
	} {
		if _, err := NewTrust(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

// Servers and clients are apart, and a list that is empty believes nobody.
func TestTrustApart(t *testing.T) {
	a, b := trustIssue(t, nil, caNamed("a")), trustIssue(t, nil, caNamed("b"))
	ofA, ofB := chainOf(trustIssue(t, a, peerWith())), chainOf(trustIssue(t, b, peerWith()))
	trust := newTestTrust(t, TrustConfig{Servers: []Roots{RootsPEM(trustPEM(a))}, Clients: []Roots{RootsPEM(trustPEM(b))}})
	now := time.Now()
	wantRefusal(t, trust.verify(UsageServer, ofA, "web.test", nil, now), "", "")
	wantRefusal(t, trust.verify(UsageClient, ofB, "", nil, now), "", "")
	wantRefusal(t, trust.verify(UsageServer, ofB, "web.test", nil, now), RefusedUnknownCA, "trusted for servers")
	wantRefusal(t, trust.verify(UsageClient, ofA, "", nil, now), RefusedUnknownCA, "trusted for clients")
	only := newTestTrust(t, TrustConfig{Servers: []Roots{RootsPEM(trustPEM(a))}})
	wantRefusal(t, only.verify(UsageClient, ofA, "", nil, now), RefusedUnknownCA, "")
}

// A CA rotates: both roots are believed until the old one is taken out of the
// file; then what it certified isn't, remembered or not.
func TestTrustRotation(t *testing.T) {
	old, young := trustIssue(t, nil, caNamed("old")), trustIssue(t, nil, caNamed("young"))
	ofOld, ofYoung := chainOf(trustIssue(t, old, peerWith())), chainOf(trustIssue(t, young, peerWith()))
	path := filepath.Join(t.TempDir(), "roots.pem")
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(trustPEM(old))
	trust := newTestTrust(t, TrustConfig{Servers: []Roots{RootsFile(path)}, Clients: []Roots{RootsPEM(trustPEM(old))}, FilesEvery: -1})
	verify := func(chain []*x509.Certificate) error {
		return trust.verify(UsageServer, chain, "web.test", nil, time.Now())
	}
	wantRefusal(t, verify(ofOld), "", "")
	wantRefusal(t, verify(ofYoung), RefusedUnknownCA, "CN=young")

	_, before := trust.pool(UsageServer)
	_, others := trust.pool(UsageClient)
	write(trustPEM(old, young))
	if err := trust.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool, after := trust.pool(UsageServer)
	if _, same := trust.pool(UsageClient); after == before || same != others || pool.Equal(x509.NewCertPool()) {
		t.Errorf("generations %d, then %d; of clients %d, then %d", before, after, others, same)
	}
	wantRefusal(t, verify(ofOld), "", "")
	wantRefusal(t, verify(ofYoung), "", "")

	write(nil)
	if err := trust.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "mtls: roots of Servers (file") {
		t.Errorf("reload: %v", err)
	}
	if h := trust.Health().Sources; len(h) != 2 || h[0].Roots != 2 || h[0].List != "Servers" || !strings.Contains(h[0].Error, "no PEM") || h[1].Error != "" {
		t.Errorf("health %+v", h)
	}
	wantRefusal(t, verify(ofOld), "", "")

	write(trustPEM(young))
	if err := trust.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, verify(ofOld), RefusedUnknownCA, "CN=old")
	wantRefusal(t, verify(ofYoung), "", "")
}

// trustWeb is the network to the look at revocation.
type trustWeb func(*http.Request) ([]byte, error)

func (f trustWeb) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := f(req)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

func trustAnswer(t testing.TB, ca *trustCA, cert *x509.Certificate, state int) []byte {
	t.Helper()
	der, err := ocsp.CreateResponse(ca.cert, ca.cert, ocsp.Response{Status: state, SerialNumber: cert.SerialNumber,
		ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour), RevokedAt: time.Now().Add(-time.Minute)}, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func withPointers(c *x509.Certificate) {
	c.OCSPServer, c.CRLDistributionPoints = []string{"http://ocsp.test"}, []string{"http://crl.test/1.crl"}
}

// Every policy in front of a good, a revoked and an unreachable certificate,
// with and without a staple.
func TestTrustRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := trustIssue(t, nil, caNamed("root"))
		good, bad, dark := trustIssue(t, root, peerWith(withPointers)), trustIssue(t, root, peerWith(withPointers)), trustIssue(t, root, peerWith(func(c *x509.Certificate) {
			withPointers(c)
			c.OCSPServer[0], c.CRLDistributionPoints[0] = "http://down.test", "http://down.test/1.crl"
		}))
		bare := trustIssue(t, root, peerWith())
		list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: bad.cert.SerialNumber, RevocationTime: time.Now()}}}, root.cert, root.key)
		if err != nil {
			t.Fatal(err)
		}
		web := trustWeb(func(req *http.Request) ([]byte, error) {
			switch req.URL.Host {
			case "crl.test":
				return list, nil
			case "ocsp.test":
				if strings.Contains(req.URL.Path, requestOf(t, root, bad)) {
					return trustAnswer(t, root, bad.cert, ocsp.Revoked), nil
				}
				return trustAnswer(t, root, good.cert, ocsp.Good), nil
			}
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		type result struct {
			good, bad, dark, bare, stapled Refusal // stapled: dark, with a good staple
		}
		none := RefusedNoAnswer
		for policy, want := range map[Revocation]result{
			{}:                               {},
			{Check: CheckCRL}:                {bad: RefusedRevoked},
			{Check: CheckOCSP}:               {bad: RefusedRevoked},
			{Check: CheckCRL, Hard: true}:    {bad: RefusedRevoked, dark: none, bare: none},
			{Check: CheckOCSP, Hard: true}:   {bad: RefusedRevoked, dark: none, bare: none},
			{Check: CheckStaple}:             {good: none, bad: none, dark: none, bare: none},
			{Check: CheckStaple, Hard: true}: {good: none, bad: none, dark: none, bare: none},
		} {
			roots := []Roots{RootsPEM(trustPEM(root))}
			trust := newTestTrust(t, TrustConfig{Servers: roots, Clients: roots, Revocation: policy, transport: web})
			verify := func(leaf *trustCA, staple []byte) error {
				return trust.verify(UsageClient, chainOf(leaf), "", staple, time.Now())
			}
			for _, leaf := range []*trustCA{good, bad, dark} { // at first sight
				verify(leaf, nil)
			}
			synctest.Wait()
			wantRefusal(t, verify(good, nil), want.good, "")
			wantRefusal(t, verify(bad, nil), want.bad, "")
			wantRefusal(t, verify(dark, nil), want.dark, "")
			wantRefusal(t, verify(bare, nil), want.bare, "")
			wantRefusal(t, verify(dark, trustAnswer(t, root, dark.cert, ocsp.Good)), want.stapled, "")
			if t.Failed() {
				t.Fatalf("policy %+v", policy)
			}
			if policy.Check == CheckCRL {
				if h := trust.Health(); len(h.Lists) != 2 || h.Lists[1].Number+h.Lists[0].Number != "1" {
					t.Errorf("health %+v", h)
				}
			}
			trust.Close()
		}
	})
}

// requestOf is the part of a GET's path that is about one certificate only.
func requestOf(t testing.TB, ca, leaf *trustCA) string {
	t.Helper()
	der, err := ocsp.CreateRequest(leaf.cert, ca.cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// Our own certificate's answer, whoever has issued it.
func TestTrustStaple(t *testing.T) {
	root, other := trustIssue(t, nil, caNamed("root")), trustIssue(t, nil, caNamed("other"))
	middle := trustIssue(t, root, caNamed("middle"))
	var answer []byte
	trust := newTestTrust(t, TrustConfig{Servers: []Roots{RootsPEM(trustPEM(other))}, Clients: []Roots{RootsPEM(trustPEM(root))},
		transport: trustWeb(func(*http.Request) ([]byte, error) { return answer, nil })})
	below, direct := trustIssue(t, middle, peerWith(withPointers)), trustIssue(t, root, peerWith(withPointers))
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		by    *trustCA
		state int
		want  string // of the error; "": none
	}{
		"below an intermediate":   {chainOf(below, middle), middle, ocsp.Good, ""},
		"below a root":            {chainOf(direct), root, ocsp.Good, ""},
		"below a root, with it":   {chainOf(direct, root), root, ocsp.Good, ""},
		"revoked":                 {chainOf(direct), root, ocsp.Revoked, "was revoked at"},
		"unknown":                 {chainOf(direct), root, ocsp.Unknown, "doesn't know"},
		"somebody else's answer":  {chainOf(direct), other, ocsp.Good, "isn't about"},
		"issuer missing":          {chainOf(below), middle, ocsp.Good, `issuer "CN=middle" is neither`},
		"another's intermediate":  {chainOf(below, other), middle, ocsp.Good, "is neither"},
		"one of its key":          {chainOf(below, trustIssueFor(t, root, middle.key, caNamed("alias"))), middle, ocsp.Good, "is neither"},
		"no certificate":          {nil, root, ocsp.Good, "no certificate"},
		"one without a responder": {chainOf(trustIssue(t, root, peerWith())), root, ocsp.Good, "-"},
	} {
		if len(test.chain) > 0 {
			answer = trustAnswer(t, test.by, test.chain[0], test.state)
		}
		der, next, err := trust.staple(t.Context(), test.chain)
		switch {
		case test.want == "-":
			if der != nil || !next.IsZero() || err != nil {
				t.Errorf("%s: %x, %v, %v", name, der, next, err)
			}
		case test.want == "":
			if err != nil || !bytes.Equal(der, answer) || time.Until(next) < 50*time.Minute {
				t.Errorf("%s: %v, %v", name, next, err)
			}
		case err == nil || !strings.Contains(err.Error(), test.want) || der != nil:
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

// Close ends a handshake's waiting, and can be called again.
func TestTrustClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := trustIssue(t, nil, caNamed("root"))
		leaf := trustIssue(t, root, peerWith(withPointers))
		trust := newTestTrust(t, TrustConfig{Clients: []Roots{RootsPEM(trustPEM(root))}, Revocation: Revocation{Check: CheckOCSP, Hard: true},
			transport: trustWeb(func(req *http.Request) ([]byte, error) { <-req.Context().Done(); return nil, errors.New("gone") })})
		done := make(chan error)
		go func() { done <- trust.verify(UsageClient, chainOf(leaf), "", nil, time.Now()) }()
		synctest.Wait()
		start := time.Now()
		trust.Close()
		wantRefusal(t, <-done, RefusedNoAnswer, "")
		if time.Since(start) != 0 {
			t.Error("it waited on")
		}
		trust.Close()
	})
}

// A certificate that says noRevAvail is believed under the hardest policy.
func TestTrustShortLived(t *testing.T) {
	root := trustIssue(t, nil, caNamed("root"))
	leaf := trustIssue(t, root, peerWith(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 56}, Value: []byte{5, 0}}}
	}))
	trust := newTestTrust(t, TrustConfig{Clients: []Roots{RootsPEM(trustPEM(root))}, Revocation: Revocation{Check: CheckStaple, Hard: true}})
	wantRefusal(t, trust.verify(UsageClient, chainOf(leaf), "", nil, time.Now()), "", "")
}
