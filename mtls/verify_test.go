package mtls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// trustCA is a certificate and its key, for the tests of Trust.
type trustCA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var trustSerial struct {
	sync.Mutex
	last int64
}

// trustIssue makes a certificate, valid for an hour either way; by nil: it
// signs itself.
func trustIssue(t testing.TB, by *trustCA, mod func(*x509.Certificate)) *trustCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return trustIssueFor(t, by, key, mod)
}

func trustIssueFor(t testing.TB, by *trustCA, key crypto.Signer, mod func(*x509.Certificate)) *trustCA {
	t.Helper()
	trustSerial.Lock()
	trustSerial.last++
	c := &x509.Certificate{SerialNumber: big.NewInt(trustSerial.last), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	trustSerial.Unlock()
	mod(c)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &trustCA{cert, key}
}

// caNamed makes a template a CA's.
func caNamed(name string, mods ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.BasicConstraintsValid = pkix.Name{CommonName: name}, true, true
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		for _, mod := range mods {
			mod(c)
		}
	}
}

// peerWith makes it an honest peer's.
func peerWith(mods ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"web.test"}, []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("fe80::1")}
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		for _, mod := range mods {
			mod(c)
		}
	}
}

func trustPEM(certs ...*trustCA) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
	}
	return out.Bytes()
}

func newTestTrust(t testing.TB, cfg TrustConfig) *Trust {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	trust, err := NewTrust(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trust.Close() })
	return trust
}

func trusting(t testing.TB, roots ...*trustCA) *Trust {
	t.Helper()
	list := []Roots{RootsPEM(trustPEM(roots...))}
	return newTestTrust(t, TrustConfig{Servers: list, Clients: list})
}

// chainOf lists the certificates of a chain.
func chainOf(certs ...*trustCA) (chain []*x509.Certificate) {
	for _, c := range certs {
		chain = append(chain, c.cert)
	}
	return chain
}

// wantRefusal checks why a peer was refused; "" means it wasn't.
func wantRefusal(t testing.TB, err error, want Refusal, text string) {
	t.Helper()
	refused, ok := errors.AsType[*PeerError](err)
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (!ok || refused.Reason != want || !strings.Contains(err.Error(), text)):
		t.Errorf("error %v, want %q with %q", err, want, text)
	}
}

// The peers that are believed, as servers and as clients, twice: the second
// time from memory.
func TestVerifyBelieves(t *testing.T) {
	root := trustIssue(t, nil, caNamed("root"))
	middle := trustIssue(t, root, caNamed("middle"))
	oldRoot := trustIssue(t, nil, caNamed("old root"))
	crossed := trustIssueFor(t, oldRoot, root.key, caNamed("root")) // the new root, signed by the old one
	leaf, below := trustIssue(t, root, peerWith()), trustIssue(t, middle, peerWith())
	noUsageBits := trustIssue(t, root, peerWith(func(c *x509.Certificate) { c.KeyUsage = 0 }))
	wild := trustIssue(t, root, peerWith(func(c *x509.Certificate) { c.DNSNames = []string{"*.web.test"} }))
	for name, test := range map[string]struct {
		roots []*trustCA
		chain []*x509.Certificate
		name  string
	}{
		"below the root":                      {[]*trustCA{root}, chainOf(leaf), "web.test"},
		"with the root shown":                 {[]*trustCA{root}, chainOf(leaf, root), "WEB.test."},
		"below an intermediate":               {[]*trustCA{root}, chainOf(below, middle), "10.0.0.1"},
		"with things that don't belong":       {[]*trustCA{root}, chainOf(below, oldRoot, leaf, middle), "[fe80::1]"},
		"an address with a zone":              {[]*trustCA{root}, chainOf(leaf), "fe80::1%eth0"},
		"wildcard":                            {[]*trustCA{root}, chainOf(wild), "a.web.test"},
		"without key usage":                   {[]*trustCA{root}, chainOf(noUsageBits), "web.test"},
		"two roots, below the new":            {[]*trustCA{oldRoot, root}, chainOf(leaf), "web.test"},
		"old root only, new one cross-signed": {[]*trustCA{oldRoot}, chainOf(below, middle, crossed), "web.test"},
		"both, and cross-signed":              {[]*trustCA{oldRoot, root}, chainOf(below, middle, crossed), "web.test"},
		"an intermediate as the root":         {[]*trustCA{middle}, chainOf(below), "web.test"},
	} {
		t.Run(name, func(t *testing.T) {
			trust := trusting(t, test.roots...)
			for range 2 {
				wantRefusal(t, trust.verify(UsageServer, test.chain, test.name, nil, time.Now()), "", "")
				wantRefusal(t, trust.verify(UsageClient, test.chain, "", nil, time.Now()), "", "")
			}
			if len(trust.checked[servers].seen) != 1 {
				t.Error("the chain isn't remembered")
			}
		})
	}
}

// The peers that aren't, each twice, and what the log says of them.
func TestVerifyRefuses(t *testing.T) {
	now := time.Now()
	root, other := trustIssue(t, nil, caNamed("root")), trustIssue(t, nil, caNamed("other"))
	twin := trustIssue(t, nil, caNamed("root"))
	middle := trustIssue(t, root, caNamed("middle"))
	leaf := func(mod func(*x509.Certificate)) []*x509.Certificate {
		return chainOf(trustIssue(t, root, peerWith(mod)))
	}
	below := func(ca *trustCA) []*x509.Certificate { return chainOf(trustIssue(t, ca, peerWith()), ca) }
	named := func(mod func(*x509.Certificate)) []*x509.Certificate {
		return below(trustIssue(t, root, caNamed("middle", mod)))
	}
	self := trustIssue(t, nil, peerWith(func(c *x509.Certificate) { c.Subject.CommonName = "web" }))
	noCA := trustIssue(t, root, peerWith(func(c *x509.Certificate) { c.Subject.CommonName = "leaf" }))
	deep := []*trustCA{trustIssue(t, root, caNamed("1", func(c *x509.Certificate) { c.MaxPathLenZero = true }))}
	deep = append(deep, trustIssue(t, deep[0], caNamed("2")))
	long := []*trustCA{root}
	for i := range maxChain {
		long = append([]*trustCA{trustIssue(t, long[0], caNamed(fmt.Sprint("level ", i)))}, long...)
	}
	_, subnet, _ := net.ParseCIDR("192.168.0.0/16")
	clientOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	serverOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	tests := map[string]struct {
		peer  Usage // default: server
		chain []*x509.Certificate
		name  string // default: web.test
		want  Refusal
		text  string
	}{
		"nothing shown":               {chain: nil, want: RefusedNoCertificate, text: "the server showed no certificate"},
		"a client shows nothing":      {peer: UsageClient, want: RefusedNoCertificate, text: "the client showed no certificate"},
		"wrong CA":                    {chain: below(trustIssue(t, other, caNamed("its middle"))), want: RefusedUnknownCA, text: `"CN=other"`},
		"wrong CA, shown with it":     {chain: chainOf(trustIssue(t, other, peerWith()), other), want: RefusedUnknownCA, text: `"CN=other"`},
		"a CA of the same name":       {chain: chainOf(trustIssue(t, twin, peerWith()), twin), want: RefusedUnknownCA, text: `"CN=root"`},
		"intermediate missing":        {chain: chainOf(trustIssue(t, middle, peerWith())), want: RefusedUnknownCA, text: `"CN=middle"`},
		"self-signed":                 {chain: chainOf(self), want: RefusedUnknownCA, text: "its own issuer"},
		"expired":                     {chain: leaf(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), want: RefusedExpired, text: "expired at 20"},
		"not yet valid":               {chain: leaf(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), want: RefusedNotYetValid, text: "isn't valid before 20"},
		"intermediate expired":        {chain: named(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), want: RefusedExpired, text: `CA "CN=middle", whose certificate expired at 20`},
		"intermediate not yet valid":  {chain: named(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), want: RefusedNotYetValid, text: `CA "CN=middle", whose certificate isn't valid before`},
		"a CA certificate as leaf":    {chain: chainOf(trustIssue(t, root, peerWith(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }))), want: RefusedCAAsLeaf, text: "CA certificate"},
		"the root itself":             {chain: chainOf(root), want: RefusedCAAsLeaf, text: "CA certificate"},
		"a leaf as CA":                {chain: chainOf(trustIssue(t, noCA, peerWith()), noCA), want: RefusedUnknownCA, text: "cannot sign"},
		"for clients, as server":      {chain: leaf(clientOnly), want: RefusedUsage, text: "isn't for a server"},
		"for servers, as client":      {peer: UsageClient, chain: leaf(serverOnly), want: RefusedUsage, text: "isn't for a client"},
		"for any usage":               {chain: leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), want: RefusedUsage, text: "doesn't name"},
		"for no usage":                {peer: UsageClient, chain: leaf(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), want: RefusedUsage, text: "doesn't name"},
		"below a CA for servers only": {peer: UsageClient, chain: named(serverOnly), want: RefusedUsage, text: "a CA above it"},
		"not for signing":             {chain: leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), want: RefusedUsage, text: "digital signature"},
		"another name":                {chain: leaf(func(*x509.Certificate) {}), name: "mail.test", want: RefusedName, text: `isn't for "mail.test" but for ["web.test"`},
		"a name below":                {chain: leaf(func(*x509.Certificate) {}), name: "a.web.test", want: RefusedName},
		"another address":             {chain: leaf(func(*x509.Certificate) {}), name: "10.0.0.2", want: RefusedName, text: `"10.0.0.1"`},
		"no name asked":               {chain: leaf(func(*x509.Certificate) {}), name: "-", want: RefusedName, text: "ServerName"},
		"wildcard, two labels":        {chain: leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.test"} }), name: "a.web.test", want: RefusedName},
		"wildcard, no label":          {chain: leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.web.test"} }), want: RefusedName},
		"wildcard within a label":     {chain: leaf(func(c *x509.Certificate) { c.DNSNames = []string{"w*.test"} }), want: RefusedName},
		"the common name only": {chain: chainOf(trustIssue(t, root, peerWith(func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses, c.Subject.CommonName = nil, nil, "web.test"
		}))), want: RefusedName, text: "no subject alternative names"},
		"an address as dns name": {chain: leaf(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"10.0.0.1"}, nil }), name: "10.0.0.1", want: RefusedName},
		"name constraints": {chain: named(func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"mail.test"}, true
		}),
			want: RefusedInvalid, text: "not authorized to sign for this name"},
		"a name that isn't asked for is constrained": {chain: named(func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedIPRanges = []string{"web.test"}, []*net.IPNet{subnet}
		}), want: RefusedInvalid, text: "not authorized"},
		"excluded name":  {chain: named(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"test"} }), want: RefusedInvalid, text: "not authorized"},
		"path length":    {chain: chainOf(trustIssue(t, deep[1], peerWith()), deep[1], deep[0]), want: RefusedInvalid, text: "too many intermediates"},
		"chain too long": {chain: append(chainOf(trustIssue(t, long[0], peerWith())), chainOf(long...)...), want: RefusedInvalid, text: "a chain of 10 certificates"},
		"chain too large": {chain: append(leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, maxChainBytes)}}
		}), root.cert), want: RefusedInvalid, text: "at most"},
		"critical extension": {chain: leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), want: RefusedInvalid, text: "unhandled critical extension"},
		"neither server nor client": {peer: UsageBoth + 77, chain: leaf(func(*x509.Certificate) {}), want: RefusedInvalid},
	}
	trust := trusting(t, root)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			peer, asked := test.peer, test.name
			if peer == 0 {
				peer = UsageServer
			}
			switch {
			case asked == "-" || peer == UsageClient:
				asked = ""
			case asked == "":
				asked = "web.test"
			}
			for range 2 {
				err := trust.verify(peer, test.chain, asked, nil, now)
				wantRefusal(t, err, test.want, test.text)
				if err != nil && len(err.Error()) > maxText+10 {
					t.Errorf("a text of %d bytes", len(err.Error()))
				}
			}
		})
	}
}

// What is remembered is held against the time, the roots, the usage and the
// whole chain.
func TestVerifyMemory(t *testing.T) {
	root := trustIssue(t, nil, caNamed("root"))
	middle := trustIssue(t, root, caNamed("middle", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-30*time.Minute), time.Now().Add(30*time.Minute)
	}))
	leaf := trustIssue(t, middle, peerWith(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }))
	trust, now := trusting(t, root), time.Now()
	chain := chainOf(leaf, middle)
	verify := func(at time.Duration) error { return trust.verify(UsageServer, chain, "web.test", nil, now.Add(at)) }
	wantRefusal(t, verify(0), "", "")
	wantRefusal(t, verify(29*time.Minute), "", "")
	wantRefusal(t, verify(31*time.Minute), RefusedExpired, "CN=middle")
	wantRefusal(t, verify(-29*time.Minute), "", "")
	wantRefusal(t, verify(-31*time.Minute), RefusedNotYetValid, "CN=middle")
	wantRefusal(t, verify(-2*time.Hour), RefusedNotYetValid, "")
	wantRefusal(t, verify(0), "", "")
	wantRefusal(t, trust.verify(UsageServer, chain, "mail.test", nil, now), RefusedName, "")
	wantRefusal(t, trust.verify(UsageServer, chain, anyName, nil, now), "", "")
	wantRefusal(t, trust.verify(UsageClient, chain, "", nil, now), RefusedUsage, "")
	wantRefusal(t, trust.verify(UsageServer, chain[:1], "web.test", nil, now), RefusedUnknownCA, "")
	wantRefusal(t, trust.verify(UsageServer, chainOf(leaf, trustIssue(t, nil, caNamed("middle"))), "web.test", nil, now), RefusedUnknownCA, "")
	forged := trustIssueFor(t, trustIssue(t, nil, caNamed("middle")), leaf.key, peerWith()) // the same names, another signature
	wantRefusal(t, trust.verify(UsageServer, chainOf(forged, middle), "web.test", nil, now), RefusedUnknownCA, "")
}

func TestVerifyMemoryBounded(t *testing.T) {
	var c chains
	for i := range 3 * maxSeen {
		c.remember(1, chainKey{byte(i), byte(i >> 8)}, verified{})
	}
	if len(c.seen) != maxSeen {
		t.Errorf("%d chains", len(c.seen))
	}
	last := chainKey{0xff, (3*maxSeen - 1) >> 8}
	if _, ok := c.recall(1, last, time.Time{}); !ok {
		t.Error("the last one is forgotten")
	}
	if _, ok := c.recall(2, last, time.Time{}); ok {
		t.Error("other roots' chain is remembered")
	}
	c.remember(2, chainKey{1}, verified{})
	c.remember(1, chainKey{2}, verified{}) // somebody was slow
	if len(c.seen) != 1 || c.generation != 2 {
		t.Errorf("%d chains of generation %d", len(c.seen), c.generation)
	}
}

// Against what crypto/tls does by itself with the same roots, in one run.
func BenchmarkVerify(b *testing.B) {
	root := trustIssue(b, nil, caNamed("root"))
	middle := trustIssue(b, root, caNamed("middle"))
	chain := chainOf(trustIssue(b, middle, peerWith()), middle)
	now := time.Now()
	b.Run("crypto_tls", func(b *testing.B) { // as in handshake_client.go
		pool := x509.NewCertPool()
		pool.AddCert(root.cert)
		b.ReportAllocs()
		for b.Loop() {
			opts := x509.VerifyOptions{Roots: pool, CurrentTime: now, DNSName: "web.test", Intermediates: x509.NewCertPool()}
			for _, c := range chain[1:] {
				opts.Intermediates.AddCert(c)
			}
			if _, err := chain[0].Verify(opts); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		trust := trusting(b, root)
		b.ReportAllocs()
		for b.Loop() {
			trust.checked[servers].seen = nil
			if err := trust.verify(UsageServer, chain, "web.test", nil, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		trust := trusting(b, root)
		b.ReportAllocs()
		for b.Loop() {
			if err := trust.verify(UsageServer, chain, "web.test", nil, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again_client", func(b *testing.B) {
		trust := trusting(b, root)
		b.ReportAllocs()
		for b.Loop() {
			if err := trust.verify(UsageClient, chain, "", nil, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// handshake checks that what a real handshake shows is what verify gets.
func TestVerifyInHandshake(t *testing.T) {
	root := trustIssue(t, nil, caNamed("root"))
	middle := trustIssue(t, root, caNamed("middle"))
	leaf := trustIssue(t, middle, peerWith())
	trust := trusting(t, root)
	cert := tls.Certificate{Certificate: [][]byte{leaf.cert.Raw, middle.cert.Raw}, PrivateKey: leaf.key, OCSPStaple: []byte("staple")}
	var staples []string
	check := func(peer Usage, name string) func(tls.ConnectionState) error {
		return func(s tls.ConnectionState) error {
			staples = append(staples, string(s.OCSPResponse))
			return trust.verify(peer, s.PeerCertificates, name, s.OCSPResponse, time.Now())
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13, VerifyConnection: check(UsageClient, "")})
	client := tls.Client(b, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, VerifyConnection: check(UsageServer, "web.test")})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(staples, ","); got != "staple,staple" {
		t.Errorf("staples %q", got)
	}
}
