package revocation_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// The type of RFC 5280 section 5.2.5, for encoding/asn1.
type issuingDistributionPoint struct {
	DistributionPoint struct {
		FullName []asn1.RawValue `asn1:"optional,tag:0"`
	} `asn1:"optional,tag:0"`
	OnlyContainsUserCerts bool `asn1:"optional,tag:1"`
}

const point = "http://pki.example/crl/0102030405060708/3.crl"

// RFC 5280 section 5.2.5: a part names itself in a critical extension, and is
// otherwise byte for byte what crypto/x509 makes of the same list.
func TestPart(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	var idp issuingDistributionPoint
	idp.DistributionPoint.FullName = []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(point)}}
	idp.OnlyContainsUserCerts = true
	value, err := asn1.Marshal(idp)
	if err != nil {
		t.Fatal(err)
	}
	want := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: value}
	for _, entries := range [][]revocation.Entry{nil, {{Serial: "0a", At: begin, Reason: cert.Superseded}}} {
		template := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: begin, NextUpdate: begin.Add(24 * time.Hour), ExtraExtensions: []pkix.Extension{want}}
		for _, e := range entries {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: e.Serial.Big(), RevocationTime: e.At, ReasonCode: int(e.Reason)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, ca, key)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		l := list(ca, entries...)
		l.Point = point
		mine, err := x509.ParseRevocationList(crl(t, l, key))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mine.RawTBSRevocationList, theirs.RawTBSRevocationList) || mine.CheckSignatureFrom(ca) != nil {
			t.Errorf("%d entries:\n got %x\nwant %x", len(entries), mine.RawTBSRevocationList, theirs.RawTBSRevocationList)
		}
	}
	full, err := x509.ParseRevocationList(crl(t, list(ca), key))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range full.Extensions {
		if e.Id.Equal(want.Id) {
			t.Error("a full list says that it is a part")
		}
	}
}

func TestPointRefused(t *testing.T) {
	ca := newCA(t, newKey(t), nil)
	for _, bad := range []string{
		"pki.example/1.crl", "/crl/1.crl", "//pki.example/1.crl", "http:///1.crl", "http:1.crl", "https://pki.example/1.crl", "ftp://pki.example/1.crl", "file:///1.crl",
		"http://pki.example/1 .crl", "http://pki.example/1.crl\n", "http://pki.example/\x00", "http://pki.exämple/1.crl", "http://pki.example/%zz",
		"http://pki.example/" + strings.Repeat("a", 1024),
	} {
		l := list(ca)
		l.Point = bad
		if _, err := revocation.Build(l); err == nil || !strings.Contains(err.Error(), "distribution point") || len(err.Error()) > 500 {
			t.Errorf("%.100q: %v", bad, err)
		}
	}
	l := list(ca)
	l.Point = "http://[2001:db8::1]:8080/" + strings.Repeat("a", 998) // 1024 octets
	if _, err := revocation.Build(l); err != nil {
		t.Error(err)
	}
}

// Whatever is revoked in whatever part: x509 reads just that in the list.
func FuzzBuild(f *testing.F) {
	key := newKey(f)
	ca := newCA(f, key, nil)
	f.Add("0a", begin.Unix(), 1, int64(1), begin.Unix(), int64(3600), "")
	f.Add("80ff", int64(1), 0, int64(1<<40), int64(1<<32), int64(1<<32), point)
	f.Add(strings.Repeat("ff", 20), int64(1<<40), 9, int64(1<<62), int64(1), int64(1), "http://a/"+strings.Repeat("b", 200))
	f.Fuzz(func(t *testing.T, serial string, at int64, reason int, number, from, span int64, point string) {
		u, err := revocation.Build(revocation.List{
			Issuer: ca, Number: number, ThisUpdate: time.Unix(from, 0), NextUpdate: time.Unix(from+span, 0), Point: point,
			Entries: of([]revocation.Entry{{Serial: cert.Serial(serial), At: time.Unix(at, 0), Reason: cert.Reason(reason)}}),
		})
		if err != nil {
			return
		}
		der, err := u.Sign(signWith(key))
		if err != nil {
			t.Fatal(err)
		}
		gotNumber, gotFrom, gotTo, err := revocation.CRLNumber(der, ca)
		if err != nil || gotNumber != number || gotFrom.Unix() != from || gotTo.Unix() != from+span {
			t.Fatalf("number %d from %v to %v: %v", gotNumber, gotFrom, gotTo, err)
		}
		got, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatalf("%v: %x", err, der)
		}
		if e := got.RevokedCertificateEntries; len(e) != 1 || e[0].SerialNumber.Cmp(cert.Serial(serial).Big()) != 0 || e[0].RevocationTime.Unix() != at || e[0].ReasonCode != reason {
			t.Fatalf("%+v", e)
		}
		if want := 2 + min(len(point), 1); len(got.Extensions) != want {
			t.Fatalf("%d extensions, want %d", len(got.Extensions), want)
		}
	})
}

// BenchmarkMillion is a list of a million entries, read as a stream. Its
// metrics say how many bytes an entry takes in the list, and in the memory that
// was taken for all of it, of which nothing is given back before the end: the
// most that is ever held.
func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	key := newKey(b)
	ca := newCA(b, key, nil)
	serials := make([]cert.Serial, n)
	for i := range serials {
		serials[i] = cert.Serial(fmt.Sprintf("80%030x", i+1))
	}
	for _, c := range []struct {
		name, point string
		expect      int
	}{{"full", "", n}, {"part", point, n}, {"expected 1 in 1000 too few", "", n - n/1000}} {
		b.Run(c.name, func(b *testing.B) {
			l := revocation.List{Issuer: ca, Number: 1, ThisUpdate: begin, NextUpdate: begin.Add(time.Hour), Expect: c.expect, Point: c.point}
			l.Entries = func(yield func(revocation.Entry) error) error {
				for _, s := range serials {
					if err := yield(revocation.Entry{Serial: s, At: begin, Reason: cert.Superseded}); err != nil {
						return err
					}
				}
				return nil
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var size, lists int
			for b.Loop() {
				size = len(crl(b, l, key))
				lists++
			}
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(size)/n, "B-in-list/entry")
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(lists)/n, "B-of-memory/entry")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(lists), "allocs/list")
		})
	}
}
