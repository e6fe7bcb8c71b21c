package revocation_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newCA(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Example"}, CommonName: "Issuing CA"},
		NotBefore: begin.AddDate(-1, 0, 0), NotAfter: begin.AddDate(100, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte{1, 2, 3, 4, 5, 6, 7, 8},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signWith(key crypto.Signer) func([]byte, crypto.SignerOpts) ([]byte, error) {
	return func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return key.Sign(rand.Reader, digest, opts)
	}
}

// of streams a slice.
func of(entries []revocation.Entry) func(func(revocation.Entry) error) error {
	return func(yield func(revocation.Entry) error) error {
		for _, e := range entries {
			if err := yield(e); err != nil {
				return err
			}
		}
		return nil
	}
}

func list(ca *x509.Certificate, entries ...revocation.Entry) revocation.List {
	return revocation.List{Issuer: ca, Number: 7, ThisUpdate: begin, NextUpdate: begin.Add(24 * time.Hour), Entries: of(entries)}
}

func crl(t testing.TB, l revocation.List, key crypto.Signer) []byte {
	t.Helper()
	u, err := revocation.Build(l)
	if err != nil {
		t.Fatal(err)
	}
	der, err := u.Sign(signWith(key))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestEveryKeyType(t *testing.T) {
	for want, key := range everyKey(t) {
		t.Run(want.String(), func(t *testing.T) {
			ca := newCA(t, key, nil)
			if err := revocation.Check(ca); err != nil {
				t.Fatal(err)
			}
			serial := cert.NewSerial()
			got, err := x509.ParseRevocationList(crl(t, list(ca, revocation.Entry{Serial: serial, At: begin, Reason: cert.KeyCompromise}), key))
			if err != nil {
				t.Fatal(err)
			}
			if err := got.CheckSignatureFrom(ca); err != nil || got.SignatureAlgorithm != want {
				t.Errorf("%v: %v", got.SignatureAlgorithm, err)
			}
			if got.Number.Int64() != 7 || !bytes.Equal(got.AuthorityKeyId, ca.SubjectKeyId) || !bytes.Equal(got.RawIssuer, ca.RawSubject) ||
				!got.ThisUpdate.Equal(begin) || !got.NextUpdate.Equal(begin.Add(24*time.Hour)) {
				t.Errorf("%+v", got)
			}
			if e := got.RevokedCertificateEntries; len(e) != 1 || cert.SerialOf(e[0].SerialNumber) != serial || e[0].ReasonCode != 1 || !e[0].RevocationTime.Equal(begin) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// RFC 5280 section 5.1: what we encode is byte for byte what crypto/x509
// makes of the same list, whatever the lengths of its lengths.
func TestSameBytesAsX509(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	reasons := []cert.Reason{cert.Unspecified, cert.KeyCompromise, cert.AffiliationChanged, cert.Superseded, cert.CessationOfOperation, cert.PrivilegeWithdrawn}
	for _, n := range []int{0, 1, 2, 3, 4, 5, 6, 1300, 1500} {
		var entries []revocation.Entry
		for i := range n {
			e := revocation.Entry{Serial: cert.NewSerial(), At: begin.Add(-time.Duration(i) * 997 * time.Millisecond), Reason: reasons[i%len(reasons)]}
			switch i % 50 { // other CAs' serials, and short ones
			case 3:
				e.Serial = "ff" + e.Serial + "ffffff" // the longest, 20 octets
			case 4:
				e.Serial = "00" + e.Serial[:8]
			}
			entries = append(entries, e)
		}
		slices.SortFunc(entries, func(a, b revocation.Entry) int { return strings.Compare(string(a.Serial), string(b.Serial)) })
		template := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: begin, NextUpdate: begin.Add(24 * time.Hour)}
		for _, e := range entries {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: e.Serial.Big(), RevocationTime: e.At, ReasonCode: int(e.Reason)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, ca, key)
		if err != nil {
			t.Fatal(err)
		}
		want, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		for _, expect := range []int{0, n, 2 * n} {
			l := list(ca, entries...)
			l.Expect = expect
			u, err := revocation.Build(l)
			if err != nil {
				t.Fatal(err)
			}
			if u.Entries != n || !bytes.Equal(u.TBS(), want.RawTBSRevocationList) {
				t.Fatalf("%d entries, %d expected:\n got %x\nwant %x", n, expect, u.TBS(), want.RawTBSRevocationList)
			}
			if der, err = u.Sign(signWith(key)); err != nil {
				t.Fatal(err)
			}
			if got, err := x509.ParseRevocationList(der); err != nil || got.CheckSignatureFrom(ca) != nil {
				t.Fatalf("%d entries, %d expected: %v", n, expect, err)
			}
		}
	}
}

// RFC 5280 section 5.1.2.6: an empty list is left out, not written empty.
func TestNothingRevoked(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	l := list(ca)
	without := crl(t, l, key)
	l.Entries = nil
	u, err := revocation.Build(l)
	if err != nil {
		t.Fatal(err)
	}
	got, err := x509.ParseRevocationList(without)
	if err != nil || len(got.RevokedCertificateEntries) != 0 || !bytes.Equal(got.RawTBSRevocationList, u.TBS()) {
		t.Fatalf("%v %+v", err, got)
	}
	if nextUpdate := []byte("260302120000Z\xa0"); !bytes.Contains(without, nextUpdate) {
		t.Errorf("the extensions don't follow nextUpdate: %x", without)
	}
}

// RFC 5280 section 5.1.2.4: UTCTime through 2049, GeneralizedTime after.
func TestTimesAfter2049(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	l := list(ca,
		revocation.Entry{Serial: "01", At: time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)},
		revocation.Entry{Serial: "02", At: time.Date(2050, 1, 1, 1, 0, 0, 0, time.FixedZone("east", 3600))})
	l.ThisUpdate, l.NextUpdate = time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
	der := crl(t, l, key)
	for _, want := range []string{"\x17\x0d491231000000Z\x18\x0f20500101000000Z", "\x17\x0d491231235959Z", "\x18\x0f20500101000000Z"} {
		if !bytes.Contains(der, []byte(want)) {
			t.Errorf("no %q in %q", want, der)
		}
	}
}

func TestRefused(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	old := newCA(t, key, nil)
	old.PublicKey = p224.Public()
	broken := errors.New("the database went away")
	entry := func(serial cert.Serial) revocation.Entry { return revocation.Entry{Serial: serial, At: begin} }
	for name, c := range map[string]struct {
		change func(*revocation.List)
		want   string
	}{
		"no cRLSign": {func(l *revocation.List) {
			l.Issuer = newCA(t, key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
		}, "cRLSign"},
		"no key identifier": {func(l *revocation.List) { l.Issuer.SubjectKeyId = nil }, "subject key identifier"},
		"unknown key":       {func(l *revocation.List) { l.Issuer = old }, "*ecdsa.PublicKey"},
		"number 0":          {func(l *revocation.List) { l.Number = 0 }, "number"},
		"negative number":   {func(l *revocation.List) { l.Number = -1 }, "number"},
		"ends at once":      {func(l *revocation.List) { l.NextUpdate = l.ThisUpdate }, "valid from"},
		"no dates":          {func(l *revocation.List) { l.ThisUpdate, l.NextUpdate = time.Time{}, time.Time{} }, "valid from"},
		"source fails":      {func(l *revocation.List) { l.Entries = func(func(revocation.Entry) error) error { return broken } }, "database"},
		"out of order":      {func(l *revocation.List) { l.Entries = of([]revocation.Entry{entry("02"), entry("01")}) }, "01 comes after 02"},
		"doubled":           {func(l *revocation.List) { l.Entries = of([]revocation.Entry{entry("01"), entry("01")}) }, "01 comes after 01"},
		"no serial":         {func(l *revocation.List) { l.Entries = of([]revocation.Entry{entry("")}) }, "serial"},
		"serial 0":          {func(l *revocation.List) { l.Entries = of([]revocation.Entry{entry("0000")}) }, "positive"},
		"21 octets": {func(l *revocation.List) {
			l.Entries = of([]revocation.Entry{entry(cert.Serial(strings.Repeat("7f", 21)))})
		}, "serial"},
		"not a number":  {func(l *revocation.List) { l.Entries = of([]revocation.Entry{entry("zz")}) }, "serial"},
		"never revoked": {func(l *revocation.List) { l.Entries = of([]revocation.Entry{{Serial: "01"}}) }, "date"},
		"reason 7": {func(l *revocation.List) { // unused in RFC 5280 section 5.3.1
			l.Entries = of([]revocation.Entry{{Serial: "01", At: begin, Reason: 7}})
		}, "reason"},
		"removeFromCRL": {func(l *revocation.List) { // for delta CRLs only
			l.Entries = of([]revocation.Entry{{Serial: "01", At: begin, Reason: 8}})
		}, "reason"},
	} {
		t.Run(name, func(t *testing.T) {
			mine := *ca
			l := list(&mine)
			c.change(&l)
			if _, err := revocation.Build(l); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// A key that is away or signs wrongly lets nothing out, and the same list can
// be signed once it is well again.
func TestSigningFails(t *testing.T) {
	key := newKey(t)
	u, err := revocation.Build(list(newCA(t, key, nil), revocation.Entry{Serial: "0a", At: begin}))
	if err != nil {
		t.Fatal(err)
	}
	tbs := bytes.Clone(u.TBS())
	away := errors.New("pulled out")
	if _, err := u.Sign(func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, away }); !errors.Is(err, away) {
		t.Errorf("a key that is away: %v", err)
	}
	if der, err := u.Sign(signWith(newKey(t))); err == nil || der != nil {
		t.Errorf("another key's signature was taken: %v", err)
	}
	if der, err := u.Sign(func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }); err == nil || der != nil {
		t.Errorf("no signature was taken: %v", err)
	}
	if !bytes.Equal(tbs, u.TBS()) {
		t.Error("a failed signature changed the list")
	}
	der, err := u.Sign(signWith(key))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := x509.ParseRevocationList(der); err != nil || !bytes.Equal(got.RawTBSRevocationList, tbs) {
		t.Errorf("%v", err)
	}
}

// Issue: a CRL of a million entries in bounded memory. What is promised: one
// buffer of 50 bytes per entry, with room for one in 64 more, and nothing else
// that grows with the list.
func TestMemoryPerEntry(t *testing.T) {
	const n = 50_000
	key := newKey(t)
	ca := newCA(t, key, nil)
	serials := make([]cert.Serial, n)
	for i := range serials {
		serials[i] = cert.Serial(fmt.Sprintf("80%030x", i+1))
	}
	l := list(ca)
	l.Expect = n - n/100 // some were revoked since they were counted
	l.Entries = func(yield func(revocation.Entry) error) error {
		for _, s := range serials {
			if err := yield(revocation.Entry{Serial: s, At: begin, Reason: cert.KeyCompromise}); err != nil {
				return err
			}
		}
		return nil
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	der := crl(t, l, key)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 50*n*65/64+32<<10 {
		t.Errorf("%d bytes allocated for %d entries, the CRL has %d", took, n, len(der))
	}
	if got, err := x509.ParseRevocationList(der); err != nil || len(got.RevokedCertificateEntries) != n {
		t.Error(err)
	}
}

func TestShard(t *testing.T) {
	counts := make([]int, 17)
	for range 16000 {
		s := cert.NewSerial()
		if revocation.Shard(s, 0) != 0 || revocation.Shard(s, 1) != 1 {
			t.Fatalf("%s: %d, %d", s, revocation.Shard(s, 0), revocation.Shard(s, 1))
		}
		counts[revocation.Shard(s, 16)]++
	}
	if counts[0] != 0 {
		t.Error("the full list drawn")
	}
	for shard, n := range counts[1:] {
		if n < 800 || n > 1200 { // 1000 on the average, the deviation 31
			t.Errorf("shard %d: %d of 16000", shard+1, n)
		}
	}
}
