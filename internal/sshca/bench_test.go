package sshca_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
)

// BenchmarkBuildKRL builds KRLs of 100,000 serials, in the order in which a
// database gives them, and has ssh-keygen -k build the same in the same run:
// "theirs/ours" is how many times our time it takes (its best of three, less what
// it takes to start), "size" our bytes for each of its own.
func BenchmarkBuildKRL(b *testing.B) {
	ca := newEd25519()
	for _, d := range distributions {
		b.Run(d.name, func(b *testing.B) {
			serials := d.make(rand.New(rand.NewPCG(3, 4)), 100_000)
			dir := b.TempDir()
			writeFile(b, dir, "ca.pub", ssh.MarshalAuthorizedKey(public(ca)))
			writeFile(b, dir, "serials", serialLines(serials))
			writeFile(b, dir, "one", serialLines(serials[:1]))
			theirs := fastest(b, dir, "serials") - fastest(b, dir, "one")
			r := sshca.Revocations{Version: 3, Generated: now, Certificates: []sshca.RevokedCertificates{{CA: public(ca), Serials: serials}}}
			var krl []byte
			b.ReportAllocs()
			for b.Loop() {
				krl = must(sshca.BuildKRL(r))
			}
			fastest(b, dir, "serials")
			ours := b.Elapsed() / time.Duration(b.N)
			b.ReportMetric(float64(theirs)/float64(ours), "theirs/ours")
			b.ReportMetric(float64(len(krl))/float64(len(readFile(b, dir, "krl"))), "size")
		})
	}
}

// fastest is the best time of three for ssh-keygen -k.
func fastest(b *testing.B, dir, input string) time.Duration {
	best := time.Hour
	for range 3 {
		start := time.Now()
		mustKeygen(b, dir, "", "-q", "-k", "-f", "krl", "-s", "ca.pub", "-z", "3", input)
		best = min(best, time.Since(start))
	}
	return best
}

// BenchmarkIssue prepares and signs a certificate; BenchmarkBareSignature is the
// cryptography in it: a signature, and its verification twice.
func BenchmarkIssue(b *testing.B) {
	ca := newEd25519()
	a := authority(ca)
	r := request(public(newEd25519()))
	b.ReportAllocs()
	for b.Loop() {
		must(must(a.Prepare(r)).Sign(signWith(ca)))
	}
}

func BenchmarkBareSignature(b *testing.B) {
	ca := newEd25519()
	tbs := must(authority(ca).Prepare(request(public(newEd25519())))).TBS
	signer := must(ssh.NewSignerFromSigner(ca))
	for b.Loop() {
		s := must(signer.Sign(nil, tbs))
		for range 2 {
			if err := signer.PublicKey().Verify(tbs, s); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkVerifyPossession is what a finalize costs beyond a TLS one.
func BenchmarkVerifyPossession(b *testing.B) {
	signer := must(ssh.NewSignerFromSigner(newEd25519()))
	p := must(sshca.SignPossession(signer, orderURL))
	b.ReportAllocs()
	for b.Loop() {
		if err := sshca.VerifyPossession(signer.PublicKey(), orderURL, p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRevoked asks a KRL of 100,000 serials about one certificate.
func BenchmarkRevoked(b *testing.B) {
	ca := newEd25519()
	for _, d := range distributions {
		b.Run(d.name, func(b *testing.B) {
			serials := d.make(rand.New(rand.NewPCG(3, 4)), 100_000)
			r := sshca.Revocations{Version: 3, Generated: now, Certificates: []sshca.RevokedCertificates{{CA: public(ca), Serials: serials}}}
			krl := must(sshca.ParseKRL(must(sshca.BuildKRL(r))))
			c := &ssh.Certificate{Key: public(ca), SignatureKey: public(ca), Serial: serials[len(serials)/2]}
			for b.Loop() {
				if !krl.Revoked(c) {
					b.Fatal("not revoked")
				}
			}
		})
	}
}
