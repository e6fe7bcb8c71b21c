package publish

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// authority is an issuing certificate.
type authority struct {
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	keyID  string
	hashes revocation.IssuerHashes
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256([]byte(name))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id[:20],
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key: key, cert: c, keyID: hex.EncodeToString(id[:20]), hashes: revocation.HashIssuer(c)}
}

func (a *authority) crlPath() string { return "/crl/" + a.keyID + ".crl" }
func (a *authority) cerPath() string { return "/ca/" + a.keyID + ".cer" }

// list makes a CRL.
func (a *authority) list(t testing.TB, number int64, serials ...cert.Serial) *x509.RevocationList {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.Add(24 * time.Hour)}
	for _, s := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s.Big(), RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (a *authority) ask(t testing.TB, serial cert.Serial, hash crypto.Hash) []byte {
	t.Helper()
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial.Big()}, a.cert, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// source says about certificates what a test wants, and signs it.
type source struct {
	authorities []*authority
	revoked     func(string, cert.Serial)
	intact      func(bool)

	mu       sync.Mutex // guards what follows
	nonces   bool
	statuses map[cert.Serial]int // ocsp.Good, ocsp.Revoked; not there: none of ours
	validity time.Duration
	trouble  error
	before   func() // each answer, when its status has been read
	answers  int
	lists    map[string]map[int]*responder.List // by key ID and shard
}

func newSource(all ...*authority) *source {
	return &source{authorities: all, statuses: make(map[cert.Serial]int), validity: 8 * time.Hour, lists: make(map[string]map[int]*responder.List)}
}

func (s *source) set(f func(*source)) { s.mu.Lock(); defer s.mu.Unlock(); f(s) }

func (s *source) asked() int { s.mu.Lock(); defer s.mu.Unlock(); return s.answers }

func (s *source) put(a *authority, shard int, l *x509.RevocationList) {
	s.set(func(s *source) {
		if s.lists[a.keyID] == nil {
			s.lists[a.keyID] = make(map[int]*responder.List)
		}
		if l == nil {
			s.lists[a.keyID][shard] = nil
			return
		}
		s.lists[a.keyID][shard] = &responder.List{DER: l.Raw, Number: l.Number.Int64(), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate}
	})
}

// revoke withdraws a certificate of the first authority, and tells the caches
// before it returns.
func (s *source) revoke(serial cert.Serial) {
	s.set(func(s *source) { s.statuses[serial] = ocsp.Revoked })
	s.revoked(s.authorities[0].keyID, serial)
}

func (s *source) Issuer(q *revocation.OCSPRequest) (string, bool, bool) {
	for _, a := range s.authorities {
		if a.hashes.Match(q) {
			return a.keyID, s.nonces, true
		}
	}
	return "", false, false
}

func (s *source) Answer(_ context.Context, q *revocation.OCSPRequest) (responder.Answer, error) {
	serial := q.CertSerial()
	s.mu.Lock()
	status, ok := s.statuses[serial]
	trouble, before, validity, personal := s.trouble, s.before, s.validity, s.nonces && q.HasNonce
	s.answers++
	s.mu.Unlock()
	if before != nil {
		before()
	}
	if trouble != nil {
		return responder.Answer{}, trouble
	}
	if !ok {
		return responder.Answer{}, responder.ErrUnauthorized
	}
	a := s.authorities[0]
	now := time.Now().UTC().Truncate(time.Second)
	o := ocsp.Response{SerialNumber: serial.Big(), Status: status, ThisUpdate: now, NextUpdate: now.Add(validity), RevokedAt: now, IssuerHash: q.Hash}
	der, err := ocsp.CreateResponse(a.cert, a.cert, o, a.key)
	if err != nil {
		panic(err)
	}
	return responder.Answer{DER: der, IssuerKeyID: a.keyID, Serial: serial, ThisUpdate: now, NextUpdate: o.NextUpdate, Cacheable: !personal}, nil
}

func (s *source) List(keyID string, shard int) (*responder.List, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, known := s.lists[keyID][shard]
	return l, known
}

func (s *source) Watch(revoked func(string, cert.Serial), intact func(bool)) {
	s.revoked, s.intact = revoked, intact
	intact(false)
}

// newPublisher is one whose source hears of revocations.
func newPublisher(t testing.TB, s *source, change ...func(*Options)) *Publisher {
	t.Helper()
	o := Options{Source: s}
	for _, a := range s.authorities {
		o.Certificates = append(o.Certificates, a.cert)
	}
	for _, f := range change {
		f(&o)
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.intact(true)
	return p
}

func request(p http.Handler, method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result()
}
