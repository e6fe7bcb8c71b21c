package responder

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// postgres is the server of all tests here, if PostgreSQL is wanted.
var postgres *storetest.Postgres

func TestMain(m *testing.M) {
	storetest.Main(m, func(p *storetest.Postgres) { postgres = p })
}

// inBubble runs a test with SQLite and a clock that jumps.
func inBubble(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.db")
	synctest.Test(t, func(t *testing.T) { test(t, open(t, path)) })
}

// each runs a test on each engine, with the databases of two replicas: in real
// time on PostgreSQL; on SQLite, where one process has all, both are the same.
func each(t *testing.T, test func(t *testing.T, one, two *store.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		inBubble(t, func(t *testing.T, db *store.DB) { test(t, db, db) })
	})
	if storetest.WantPostgres() {
		t.Run("postgres", func(t *testing.T) {
			t.Parallel()
			dsn := postgres.Database(t)
			test(t, open(t, dsn), open(t, dsn))
		})
	}
}

func open(t testing.TB, dsn string) *store.DB {
	t.Helper()
	db, err := storetest.Open(t.Context(), store.Options{DSN: dsn, UnsafeSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// card is a key on a token: it may be slow, and it may be pulled out.
type card struct {
	*ecdsa.PrivateKey
	mu     sync.Mutex
	delay  time.Duration
	away   error
	before func() // each signature
	signed int
}

func newCard(t testing.TB) *card {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &card{PrivateKey: key}
}

func (c *card) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.mu.Lock()
	delay, away, before := c.delay, c.away, c.before
	c.mu.Unlock()
	if before != nil {
		before()
	}
	time.Sleep(delay)
	if away != nil {
		return nil, away
	}
	c.mu.Lock()
	c.signed++
	c.mu.Unlock()
	return c.PrivateKey.Sign(rand.Reader, digest, opts)
}

func (c *card) Reopen(context.Context) error { c.mu.Lock(); defer c.mu.Unlock(); return c.away }
func (c *card) Close() error                 { return nil }

func (c *card) set(f func(*card)) { c.mu.Lock(); defer c.mu.Unlock(); f(c) }

func (c *card) signatures() int { c.mu.Lock(); defer c.mu.Unlock(); return c.signed }

// issuing is an issuing certificate and its key.
type issuing struct {
	*card
	cert  *x509.Certificate
	keyID string
	queue *signer.Queue
}

func newIssuing(t testing.TB, name string) *issuing {
	t.Helper()
	c := newCard(t)
	id := sha256.Sum256([]byte(name))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id[:20],
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	a := &issuing{card: c, cert: certify(t, template, template, c.Public(), c.PrivateKey), keyID: hex.EncodeToString(id[:20])}
	a.queue = newQueue(t, c)
	return a
}

func newQueue(t testing.TB, c *card) *signer.Queue {
	t.Helper()
	q, err := signer.NewQueue(signer.QueueOptions{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, &signer.Signer{Signer: c, URI: "pkcs11:object=test", Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func certify(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// delegate makes a delegated responder's certificate.
func (a *issuing) delegate(t testing.TB, notAfter time.Time) (*Delegate, *card) {
	t.Helper()
	c := newCard(t)
	made := certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "responder"}, NotBefore: a.cert.NotBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: asn1.NullBytes}},
	}, a.cert, c.Public(), a.PrivateKey)
	return &Delegate{Certificate: made, Queue: newQueue(t, c)}, c
}

// full answers OCSP and makes lists.
func (a *issuing) full() Authority {
	return Authority{Certificate: a.cert, Queue: a.queue, OCSP: &OCSP{}, CRL: &CRL{}}
}

// leaf is a certificate that was issued.
type leaf struct {
	*issuing
	serial   cert.Serial
	notAfter time.Time
	shard    int
	pointer  string // the OCSP responder's URL; "": none
	state    cert.State
}

// issue puts a certificate into the database: one that lives a day and points
// to OCSP, unless changed.
func (a *issuing) issue(t testing.TB, db *store.DB, change ...func(*leaf)) leaf {
	t.Helper()
	l := leaf{issuing: a, serial: cert.NewSerial(), notAfter: time.Now().Add(24 * time.Hour), pointer: "http://ocsp.example/ocsp", state: cert.Issued}
	for _, f := range change {
		f(&l)
	}
	template := &x509.Certificate{
		SerialNumber: l.serial.Big(), Subject: pkix.Name{CommonName: "web.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: l.notAfter,
	}
	if l.pointer != "" {
		template.OCSPServer = []string{l.pointer}
	}
	made := certify(t, template, a.cert, a.Public(), a.PrivateKey)
	hash := sha256.Sum256(made.RawSubjectPublicKeyInfo)
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		err := tx.InsertCertificate(cert.Certificate{
			Serial: l.serial, State: cert.Planned, Directory: "main", Profile: "server", Issuer: "local", IssuerKeyID: a.keyID,
			Names: []protocol.Identifier{{Type: protocol.DNS, Value: "web.example"}}, DER: made.RawTBSCertificate, KeyHash: hex.EncodeToString(hash[:]),
			NotBefore: made.NotBefore, NotAfter: made.NotAfter, PlannedAt: time.Now(), CRLShard: l.shard,
		}, time.Now().Add(time.Hour))
		if err != nil || l.state == cert.Planned {
			return err
		}
		_, err = tx.IssueCertificate(l.serial, made.Raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// revoke withdraws it as the authority does.
func (l leaf) revoke(t testing.TB, db *store.DB) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		if ok, err := tx.RevokeCertificate(l.serial, cert.Revoked{At: tx.Now(), Reason: cert.Superseded}); err != nil || !ok {
			return errors.Join(err, errors.New("not revoked"))
		}
		_, err := tx.NextNumber(store.RevisionName(l.keyID, 0), 1)
		if err == nil && l.shard > 0 {
			_, err = tx.NextNumber(store.RevisionName(l.keyID, l.shard), 1)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// request asks for the certificate.
func (l leaf) request(t testing.TB, hash crypto.Hash, nonce []byte) *revocation.OCSPRequest {
	t.Helper()
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(l.cert.RawSubjectPublicKeyInfo, &spki); err != nil {
		t.Fatal(err)
	}
	q := &revocation.OCSPRequest{Hash: hash, Serial: l.serial.Big().Bytes(), Nonce: nonce, HasNonce: nonce != nil}
	if hash == crypto.SHA1 {
		name, key := sha1.Sum(l.cert.RawSubject), sha1.Sum(spki.Key.Bytes)
		q.IssuerNameHash, q.IssuerKeyHash = name[:], key[:]
	} else {
		name, key := sha256.Sum256(l.cert.RawSubject), sha256.Sum256(spki.Key.Bytes)
		q.IssuerNameHash, q.IssuerKeyHash = name[:], key[:]
	}
	return q
}

// ask asks for an answer, which must be there and right for this moment.
func (l leaf) ask(t testing.TB, r *Responder) *ocsp.Response {
	t.Helper()
	a, err := r.Answer(t.Context(), l.request(t, crypto.SHA1, nil))
	if err != nil {
		t.Fatalf("%s: %v", l.serial, err)
	}
	return l.check(t, a)
}

// check verifies an answer as a relying party would.
func (l leaf) check(t testing.TB, a Answer) *ocsp.Response {
	t.Helper()
	o, err := ocsp.ParseResponse(a.DER, l.cert)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if o.SerialNumber.Cmp(l.serial.Big()) != 0 || now.Before(o.ThisUpdate) || !now.Before(o.NextUpdate) || o.ProducedAt.Before(o.ThisUpdate) {
		t.Fatalf("an answer about %x from %v to %v at %v", o.SerialNumber, o.ThisUpdate, o.NextUpdate, now)
	}
	if a.Serial != l.serial || a.IssuerKeyID != l.keyID || !a.ThisUpdate.Equal(o.ThisUpdate) || !a.NextUpdate.Equal(o.NextUpdate) {
		t.Fatalf("%+v is not what the answer says", a)
	}
	return o
}

// refusal asks and wants that refusal.
func (l leaf) refusal(t testing.TB, r *Responder, want *Refusal) {
	t.Helper()
	if a, err := r.Answer(t.Context(), l.request(t, crypto.SHA1, nil)); err != error(want) {
		t.Errorf("%s: %v, %v; want %v", l.serial, a, err, want)
	}
}

func newResponder(t testing.TB, o Options) *Responder {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if o.Replica == "" {
		o.Replica = rand.Text()
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs a Responder; stop ends it before the test does.
func start(t testing.TB, o Options) (r *Responder, stop func()) {
	t.Helper()
	r = newResponder(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return r, stop
}

// startAt runs a Responder of these authorities.
func startAt(t testing.TB, db *store.DB, all ...Authority) *Responder {
	t.Helper()
	r, _ := start(t, Options{DB: db, Authorities: all})
	return r
}

// eventually waits for what takes real time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > 8*time.Second {
			t.Fatal("not in 8 seconds: ", what)
		}
	}
}

// signal is a context of the test's that can be ended.
func signal(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
