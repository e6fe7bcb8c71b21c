package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

// BenchmarkIssue against what no issuance can do without: one signature and one
// verification. The two alternate, so that a busy machine slows both.
func BenchmarkIssue(b *testing.B) {
	p := newPKI(b, cert.P256, CA{})
	l := p.local(b)
	r := request(b)
	key := p.caKey.(*ecdsa.PrivateKey)
	digest := make([]byte, 32)
	var floor, prepare, issue time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		sig, err := key.Sign(nil, digest, crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest, sig) {
			b.Fatal(err)
		}
		floor += time.Since(start)
		start = time.Now()
		token, err := l.Prepare(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		prepare += time.Since(start)
		start = time.Now()
		if _, err := l.Issue(b.Context(), token); err != nil {
			b.Fatal(err)
		}
		issue += time.Since(start)
	}
	b.ReportMetric(float64(floor.Microseconds())/float64(b.N), "floor-µs/op")
	b.ReportMetric(float64(prepare.Microseconds())/float64(b.N), "prepare-µs/op")
	b.ReportMetric(float64(issue.Microseconds())/float64(b.N), "issue-µs/op")
	b.ReportMetric(float64(prepare+issue)/float64(floor), "×floor")
}

// BenchmarkThrowAway is the way not taken: crypto/x509 encodes the certificate
// with a throw-away signature, which it also verifies. Compare BenchmarkPrepare.
func BenchmarkThrowAway(b *testing.B) {
	p := newPKI(b, cert.P256, CA{})
	r := request(b)
	template := issue(b, p.local(b), r)
	key := newKey(b, cert.P256)
	parent := *p.ca
	parent.PublicKey = key.Public()
	b.ReportAllocs()
	for b.Loop() {
		der, err := x509.CreateCertificate(rand.Reader, template, &parent, r.PublicKey, key)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := x509.ParseCertificate(der); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	p := newPKI(b, cert.P256, CA{})
	l := p.local(b)
	r := request(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Prepare(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseCSR(b *testing.B) {
	for _, v := range readVectors(b) {
		if v.file == "ok-san.txt" {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseCSR(v.der); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}
