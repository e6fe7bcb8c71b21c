package revocation_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// The types of RFC 6960 appendix B.1, for encoding/asn1.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0"`
	}
	basicResponse struct {
		Data      responseData
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	responseData struct {
		Raw        asn1.RawContent
		Version    int       `asn1:"explicit,tag:0,default:0,optional"`
		ByKey      []byte    `asn1:"explicit,tag:2"`
		ProducedAt time.Time `asn1:"generalized"`
		Responses  []singleResponse
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	singleResponse struct {
		Raw    asn1.RawContent
		CertID struct {
			Algorithm pkix.AlgorithmIdentifier
			Name, Key []byte
			Serial    *big.Int
		}
		Status     asn1.RawValue
		ThisUpdate time.Time `asn1:"generalized"`
		NextUpdate time.Time `asn1:"generalized,explicit,tag:0"`
	}
)

// decode reads a response as the RFC's module has it, to the last octet.
func decode(t testing.TB, der []byte) (basicResponse, singleResponse) {
	t.Helper()
	var outer ocspResponse
	var basic basicResponse
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		t.Fatalf("OCSPResponse: %v, %d octets after it: %x", err, len(rest), der)
	}
	if outer.Status != 0 || outer.Bytes.Type.String() != "1.3.6.1.5.5.7.48.1.1" {
		t.Fatalf("status %d, type %v", outer.Status, outer.Bytes.Type)
	}
	if rest, err := asn1.Unmarshal(outer.Bytes.Response, &basic); err != nil || len(rest) > 0 {
		t.Fatalf("BasicOCSPResponse: %v, %d octets after it: %x", err, len(rest), outer.Bytes.Response)
	}
	if len(basic.Data.Responses) != 1 {
		t.Fatalf("%d responses", len(basic.Data.Responses))
	}
	return basic, basic.Data.Responses[0]
}

// response is about a good certificate, signed by its issuer.
func response(ca *x509.Certificate, serial cert.Serial) revocation.OCSPResponse {
	return revocation.OCSPResponse{
		Issuer: ca, Hash: crypto.SHA1, Serial: serial, Status: revocation.Good,
		ProducedAt: begin.Add(time.Minute), ThisUpdate: begin, NextUpdate: begin.Add(8 * time.Hour),
	}
}

func signed(t testing.TB, r revocation.OCSPResponse, key crypto.Signer) []byte {
	t.Helper()
	u, err := revocation.BuildOCSP(r)
	if err != nil {
		t.Fatal(err)
	}
	der, err := u.Sign(signWith(key))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// newResponder makes a delegated responder's certificate.
func newResponder(t testing.TB, ca *x509.Certificate, caKey crypto.Signer, pub crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "OCSP responder"},
		NotBefore: begin.AddDate(-1, 0, 0), NotAfter: begin.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: asn1Null}},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, pub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// everyKey is one of each kind that may sign.
func everyKey(t testing.TB) map[x509.SignatureAlgorithm]crypto.Signer {
	t.Helper()
	p384, err384 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, err521 := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsaKey, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, errEd := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err384, err521, errRSA, errEd); err != nil {
		t.Fatal(err)
	}
	return map[x509.SignatureAlgorithm]crypto.Signer{
		x509.ECDSAWithSHA256: newKey(t), x509.ECDSAWithSHA384: p384, x509.ECDSAWithSHA512: p521,
		x509.SHA256WithRSA: rsaKey, x509.PureEd25519: ed,
	}
}

// RFC 6960 section 4.2.1, read by encoding/asn1 and by x/crypto, for every kind
// of key, by the issuer and by a delegated responder.
func TestOCSPEveryKeyType(t *testing.T) {
	serial := cert.Serial("ff" + strings.Repeat("0a", 19)) // the longest, with a sign octet
	for algorithm, key := range everyKey(t) {
		for _, delegated := range []bool{false, true} {
			t.Run(algorithm.String(), func(t *testing.T) {
				signer := key
				ca := newCA(t, key, nil)
				r := response(ca, serial)
				by := ca
				if delegated {
					caKey := newKey(t)
					ca = newCA(t, caKey, nil)
					by = newResponder(t, ca, caKey, key.Public(), nil)
					r.Issuer, r.Responder = ca, by
				}
				der := signed(t, r, signer)
				basic, single := decode(t, der)
				if err := by.CheckSignature(algorithm, basic.Data.Raw, basic.Signature.RightAlign()); err != nil {
					t.Error(err)
				}
				if key := sha1.Sum(keyBits(t, by)); !bytes.Equal(basic.Data.ByKey, key[:]) {
					t.Errorf("responder %x, want %x", basic.Data.ByKey, key)
				}
				if basic.Data.Extensions != nil || single.CertID.Serial.Cmp(serial.Big()) != 0 {
					t.Errorf("extensions %v, serial %x", basic.Data.Extensions, single.CertID.Serial)
				}
				// RFC 5019 section 2.2.1: only a delegated responder's certificate goes along.
				if delegated != (len(basic.Certs) == 1) || delegated && !bytes.Equal(basic.Certs[0].FullBytes, by.Raw) {
					t.Errorf("%d certificates", len(basic.Certs))
				}
				if algorithm == x509.PureEd25519 { // which x/crypto can't verify
					return
				}
				got, err := ocsp.ParseResponseForCert(der, &x509.Certificate{SerialNumber: serial.Big()}, ca)
				if err != nil {
					t.Fatal(err)
				}
				if got.Status != ocsp.Good || got.SignatureAlgorithm != algorithm || !got.ProducedAt.Equal(r.ProducedAt) || !got.ThisUpdate.Equal(r.ThisUpdate) ||
					!got.NextUpdate.Equal(r.NextUpdate) || got.IssuerHash != crypto.SHA1 || delegated != (got.Certificate != nil) {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}

func keyBits(t testing.TB, c *x509.Certificate) []byte {
	t.Helper()
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &spki); err != nil {
		t.Fatal(err)
	}
	return spki.Key.RightAlign()
}

// What we say of a certificate is byte for byte what x/crypto says.
func TestSameBytesAsXCrypto(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	for status, want := range map[revocation.OCSPStatus]int{revocation.Good: ocsp.Good, revocation.Revoked: ocsp.Revoked} {
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			for _, reason := range []cert.Reason{cert.Unspecified, cert.KeyCompromise, cert.PrivilegeWithdrawn} {
				for _, serial := range []cert.Serial{"01", "00ff", "80" + cert.Serial(strings.Repeat("00", 15)), cert.NewSerial()} {
					r := response(ca, serial)
					r.Status, r.Hash = status, hash
					template := ocsp.Response{Status: want, SerialNumber: serial.Big(), ThisUpdate: r.ThisUpdate, NextUpdate: r.NextUpdate, IssuerHash: hash}
					if status == revocation.Revoked {
						r.RevokedAt, r.Reason = begin.Add(-time.Hour), reason
						template.RevokedAt, template.RevocationReason = r.RevokedAt, int(reason)
					}
					_, got := decode(t, signed(t, r, key))
					der, err := ocsp.CreateResponse(ca, ca, template, key)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Contains(der, got.Raw) {
						t.Errorf("%v %v %d %s:\n got %x\n in %x", status, hash, reason, serial, got.Raw, der)
					}
				}
			}
		}
	}
}

// The three states, with a nonce or without, as x/crypto reads them.
func TestOCSPStates(t *testing.T) {
	caKey, key := newKey(t), newKey(t)
	ca := newCA(t, caKey, nil)
	responder := newResponder(t, ca, caKey, key.Public(), nil)
	serial := cert.NewSerial()
	for name, c := range map[string]struct {
		change func(*revocation.OCSPResponse)
		want   ocsp.Response
		status string // CertStatus in DER, as far as it is the same every time
	}{
		"good":               {func(*revocation.OCSPResponse) {}, ocsp.Response{Status: ocsp.Good}, "8000"},
		"unknown":            {func(r *revocation.OCSPResponse) { r.Status = revocation.Unknown }, ocsp.Response{Status: ocsp.Unknown}, "8200"},
		"revoked, no reason": {func(r *revocation.OCSPResponse) { r.Status, r.RevokedAt = revocation.Revoked, begin }, ocsp.Response{Status: ocsp.Revoked, RevokedAt: begin}, "a111180f32303236303330313132303030305a"},
		"revoked, superseded": {func(r *revocation.OCSPResponse) {
			r.Status, r.RevokedAt, r.Reason = revocation.Revoked, begin, cert.Superseded
		}, ocsp.Response{Status: ocsp.Revoked, RevokedAt: begin, RevocationReason: ocsp.Superseded}, "a116180f32303236303330313132303030305aa0030a0104"},
		"nonce of 1":   {func(r *revocation.OCSPResponse) { r.Nonce = []byte{0} }, ocsp.Response{Status: ocsp.Good}, "8000"},
		"nonce of 128": {func(r *revocation.OCSPResponse) { r.Nonce = bytes.Repeat([]byte{7}, 128) }, ocsp.Response{Status: ocsp.Good}, "8000"},
	} {
		t.Run(name, func(t *testing.T) {
			r := response(ca, serial)
			r.Responder = responder
			c.change(&r)
			der := signed(t, r, key)
			got, err := ocsp.ParseResponse(der, ca)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != c.want.Status || !got.RevokedAt.Equal(c.want.RevokedAt) || got.RevocationReason != c.want.RevocationReason || cert.SerialOf(got.SerialNumber) != serial {
				t.Errorf("%+v", got)
			}
			basic, single := decode(t, der)
			if !bytes.Equal(single.Status.FullBytes, unhex(c.status)) {
				t.Errorf("status %x, want %s", single.Status.FullBytes, c.status)
			}
			// RFC 9654 section 2.1: an OCTET STRING in extnValue, the request's.
			if r.Nonce == nil {
				if basic.Data.Extensions != nil {
					t.Errorf("%v", basic.Data.Extensions)
				}
				return
			}
			if e := basic.Data.Extensions; len(e) != 1 || e[0].Id.String() != "1.3.6.1.5.5.7.48.1.2" || e[0].Critical || !bytes.Equal(e[0].Value, tlv(0x04, r.Nonce)) {
				t.Errorf("%v", e)
			}
		})
	}
}

// RFC 6960 section 4.2.2.1: GeneralizedTime in UTC, to the second, in any year.
func TestOCSPTimes(t *testing.T) {
	key := newKey(t)
	east := time.FixedZone("east", 3600)
	r := response(newCA(t, key, nil), "01")
	r.ThisUpdate = time.Date(2049, 12, 31, 23, 0, 0, 999_999_999, east)
	r.ProducedAt = time.Date(2049, 12, 31, 23, 0, 0, 0, east) // the same second
	r.NextUpdate = time.Date(2050, 1, 1, 1, 0, 0, 1, east)
	r.Status, r.RevokedAt = revocation.Revoked, time.Date(1999, 1, 1, 0, 0, 0, 5e8, time.UTC)
	der := signed(t, r, key)
	for _, want := range []string{"\x18\x0f20491231220000Z0", "\x18\x0f20491231220000Z\xa0", "\x18\x0f20500101000000Z", "\x18\x0f19990101000000Z"} {
		if !bytes.Contains(der, []byte(want)) {
			t.Errorf("no %q in %q", want, der)
		}
	}
	again := signed(t, r, key)
	first, _ := decode(t, der)
	if second, _ := decode(t, again); !bytes.Equal(first.Data.Raw, second.Data.Raw) {
		t.Error("the same response twice has other bytes")
	}
}

func TestOCSPRefused(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	responder := newResponder(t, ca, key, newKey(t).Public(), nil)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	leaf := newResponder(t, ca, key, newKey(t).Public(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	type r = revocation.OCSPResponse
	for name, c := range map[string]struct {
		change func(*r)
		want   string
	}{
		"no status 3":           {func(r *r) { r.Status = 3 }, "no OCSP status 3"},
		"no status -1":          {func(r *r) { r.Status = -1 }, "no OCSP status -1"},
		"never revoked":         {func(r *r) { r.Status = revocation.Revoked }, "revocation date"},
		"reason 8":              {func(r *r) { r.Status, r.RevokedAt, r.Reason = revocation.Revoked, begin, 8 }, "no such reason: 8"},
		"good though revoked":   {func(r *r) { r.RevokedAt = begin }, "status good of a certificate that was revoked"},
		"good with a reason":    {func(r *r) { r.Reason = cert.KeyCompromise }, "status good of a certificate that was revoked"},
		"unknown but revoked":   {func(r *r) { r.Responder, r.Status, r.RevokedAt = responder, revocation.Unknown, begin }, "status unknown of a certificate that was revoked"},
		"unknown by the issuer": {func(r *r) { r.Status = revocation.Unknown }, "delegated"},
		"nonce by the issuer":   {func(r *r) { r.Nonce = []byte{1} }, "delegated"},
		"empty nonce":           {func(r *r) { r.Responder, r.Nonce = responder, []byte{} }, "nonce of 0 octets"},
		"long nonce":            {func(r *r) { r.Responder, r.Nonce = responder, make([]byte, 129) }, "nonce of 129 octets"},
		"no dates":              {func(r *r) { r.ProducedAt, r.ThisUpdate, r.NextUpdate = time.Time{}, time.Time{}, time.Time{} }, "valid from"},
		"no end":                {func(r *r) { r.NextUpdate = time.Time{} }, "valid from"},
		"ends at once":          {func(r *r) { r.NextUpdate = r.ProducedAt.Add(time.Second - 1) }, "valid from"},
		"from the future":       {func(r *r) { r.ThisUpdate = r.ProducedAt.Add(time.Second) }, "valid from"},
		"year 10000":            {func(r *r) { r.NextUpdate = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "valid from"},
		"outlives its signer":   {func(r *r) { r.Responder, r.NextUpdate = responder, responder.NotAfter.Add(time.Second) }, "only until"},
		"not a responder":       {func(r *r) { r.Responder = leaf }, "may not sign OCSP"},
		"SHA-384":               {func(r *r) { r.Hash = crypto.SHA384 }, "SHA-384"},
		"no hash":               {func(r *r) { r.Hash = 0 }, "can't be named"},
		"no serial":             {func(r *r) { r.Serial = "" }, "serial"},
		"serial 0":              {func(r *r) { r.Serial = "00" }, "positive"},
		"21 octets":             {func(r *r) { r.Serial = cert.Serial(strings.Repeat("7f", 21)) }, "serial"},
		"unknown key":           {func(r *r) { r.Issuer.PublicKey = p224.Public() }, "*ecdsa.PublicKey"},
		"unreadable key":        {func(r *r) { r.Issuer.RawSubjectPublicKeyInfo = nil }, "no readable public key"},
	} {
		t.Run(name, func(t *testing.T) {
			mine := *ca
			r := response(&mine, "0a")
			c.change(&r)
			if _, err := revocation.BuildOCSP(r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
	r2 := response(ca, "0a") // to the end of the responder's life is fine
	r2.Responder, r2.NextUpdate = responder, responder.NotAfter
	if _, err := revocation.BuildOCSP(r2); err != nil {
		t.Error(err)
	}
}

// A key that is away or signs wrongly lets nothing out, and the same response
// can be signed once it is well again.
func TestOCSPSigningFails(t *testing.T) {
	key := newKey(t)
	u, err := revocation.BuildOCSP(response(newCA(t, key, nil), "0a"))
	if err != nil {
		t.Fatal(err)
	}
	tbs := bytes.Clone(u.TBS())
	away := errors.New("pulled out")
	if _, err := u.Sign(func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, away }); !errors.Is(err, away) {
		t.Errorf("a key that is away: %v", err)
	}
	if der, err := u.Sign(signWith(newKey(t))); err == nil || der != nil || !strings.Contains(err.Error(), "Issuing CA") {
		t.Errorf("another key's signature was taken: %v", err)
	}
	if der, err := u.Sign(func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }); err == nil || der != nil {
		t.Errorf("no signature was taken: %v", err)
	}
	calls := 0
	der, err := u.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		calls++
		return key.Sign(rand.Reader, digest, opts)
	})
	if err != nil || calls != 1 {
		t.Fatalf("%d calls: %v", calls, err)
	}
	if basic, _ := decode(t, der); !bytes.Equal(basic.Data.Raw, tbs) || !bytes.Equal(u.TBS(), tbs) {
		t.Error("a failed signature changed the response")
	}
}

// Whatever comes out of the database and of requests: what is built says just
// that, to encoding/asn1 and to x/crypto.
func FuzzBuildOCSP(f *testing.F) {
	caKey, key := newKey(f), newKey(f)
	ca := newCA(f, caKey, nil)
	responder := newResponder(f, ca, caKey, key.Public(), nil)
	f.Add("0a", 0, int64(0), 0, begin.Unix(), int64(3600), []byte(nil), true)
	f.Add("80ff", 1, begin.Unix(), 4, begin.Unix(), int64(1), []byte{1}, false)
	f.Add(strings.Repeat("ff", 20), 2, int64(0), 0, int64(1<<40), int64(1<<40), bytes.Repeat([]byte{9}, 128), true)
	f.Fuzz(func(t *testing.T, serial string, status int, revoked int64, reason int, from, span int64, nonce []byte, byIssuer bool) {
		r := revocation.OCSPResponse{
			Issuer: ca, Hash: crypto.SHA256, Serial: cert.Serial(serial), Status: revocation.OCSPStatus(status), Reason: cert.Reason(reason),
			ThisUpdate: time.Unix(from, 0), ProducedAt: time.Unix(from, 1), NextUpdate: time.Unix(from+span, 0), Nonce: nonce,
		}
		if revoked != 0 {
			r.RevokedAt = time.Unix(revoked, 0)
		}
		signer := caKey
		if !byIssuer {
			r.Responder, signer = responder, key
		}
		u, err := revocation.BuildOCSP(r)
		if err != nil {
			return
		}
		if byIssuer && (r.Nonce != nil || r.Status == revocation.Unknown) {
			t.Fatal("a stranger spends the issuing key")
		}
		der, err := u.Sign(signWith(signer))
		if err != nil {
			t.Fatal(err)
		}
		decode(t, der)
		got, err := ocsp.ParseResponse(der, ca)
		if err != nil {
			t.Fatalf("%v: %x", err, der)
		}
		if got.Status != status || got.SerialNumber.Cmp(r.Serial.Big()) != 0 || got.RevocationReason != reason || !got.ThisUpdate.Equal(r.ThisUpdate) ||
			!got.NextUpdate.Equal(r.NextUpdate) || got.IssuerHash != crypto.SHA256 || status == ocsp.Revoked && !got.RevokedAt.Equal(r.RevokedAt) {
			t.Fatalf("%+v is %+v", r, got)
		}
	})
}

// BenchmarkOCSP is a response from its parts to its bytes; ECDSA P-256 alone
// is the second one.
func BenchmarkOCSP(b *testing.B) {
	key := newKey(b)
	r := response(newCA(b, key, nil), cert.NewSerial())
	b.Run("build and sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			signed(b, r, key)
		}
	})
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := revocation.BuildOCSP(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sign and verify alone", func(b *testing.B) {
		b.ReportAllocs()
		digest := make([]byte, 32)
		for b.Loop() {
			s, err := key.Sign(rand.Reader, digest, crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest, s) {
				b.Fatal(err)
			}
		}
	})
}
