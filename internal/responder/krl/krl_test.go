package krl

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// postgres is the server of all tests here, if PostgreSQL is wanted.
var postgres *storetest.Postgres

func TestMain(m *testing.M) {
	storetest.Main(m, func(p *storetest.Postgres) { postgres = p })
}

// each runs a test on each engine, with the databases of two replicas: on SQLite,
// where one process has all, both are the same.
func each(t *testing.T, test func(t *testing.T, one, two *world)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, filepath.Join(t.TempDir(), "ca.db"))
		test(t, w, w)
	})
	if storetest.WantPostgres() {
		t.Run("postgres", func(t *testing.T) {
			t.Parallel()
			dsn := postgres.Database(t)
			test(t, newWorld(t, dsn), newWorld(t, dsn))
		})
	}
}

type world struct {
	*store.DB
	ahead atomic.Int64 // of the real clock
}

func newWorld(t *testing.T, dsn string) *world {
	t.Helper()
	w := &world{}
	db, err := storetest.Open(t.Context(), store.Options{DSN: dsn, UnsafeSync: true, Clock: w.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w.DB = db
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// card is a key that may be pulled out.
type card struct {
	*ecdsa.PrivateKey
	mu     sync.Mutex
	away   error
	signed int
}

func (c *card) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		return nil, c.away
	}
	c.signed++
	return c.PrivateKey.Sign(rand.Reader, digest, opts)
}

func (c *card) pull(away error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newCA makes an SSH CA key, and its halves: with and without the queue.
func newCA(t testing.TB) (c *card, here, there Key) {
	t.Helper()
	c = &card{PrivateKey: newKey(t)}
	queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: c, URI: "test", Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := sshca.NewAuthority(c.Public())
	if err != nil {
		t.Fatal(err)
	}
	return c, Key{Authority: authority, Queue: queue}, Key{Authority: authority}
}

func keeper(t *testing.T, w *world, name string, keys ...Key) *Keeper {
	t.Helper()
	k, err := New(Options{DB: w.DB, Keys: keys, Replica: name, Clock: w.now, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// run runs a keeper until the test ends.
func run(t *testing.T, k *Keeper) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { k.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// issue makes a certificate of the CA and records it.
func (w *world) issue(t *testing.T, ca Key) (wire []byte, serial cert.Serial) {
	t.Helper()
	key, err := ssh.NewPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	now := w.now()
	p, err := ca.Authority.Prepare(sshca.Request{
		Kind: sshca.User, Key: key, Serial: sshca.NewSerial(), KeyID: "anna", Principals: []string{"anna"}, ValidAfter: now.Add(-time.Minute), ValidBefore: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	wire, err = p.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return ca.Queue.Sign(t.Context(), signer.Request{}, digest, opts)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.update(t, func(tx *store.Tx) error {
		return tx.InsertCertificate(cert.Certificate{
			Serial: p.Serial, Format: cert.OpenSSH, State: cert.Issued, Issuer: "ssh", IssuerKeyID: p.AuthorityID, DER: wire, KeyHash: p.KeyHash,
			NotBefore: p.ValidAfter, NotAfter: p.ValidBefore, PlannedAt: now,
		}, time.Time{})
	})
	return wire, p.Serial
}

func (w *world) update(t *testing.T, change func(*store.Tx) error) {
	t.Helper()
	if err := w.Update(t.Context(), change); err != nil {
		t.Fatal(err)
	}
}

// revoke does what ca.Withdraw does.
func (w *world) revoke(t *testing.T, ca Key, serial cert.Serial, r cert.Reason) {
	t.Helper()
	w.update(t, func(tx *store.Tx) error {
		if _, err := tx.RevokeCertificate(serial, cert.Revoked{At: tx.Now(), Reason: r}); err != nil {
			return err
		}
		_, err := tx.NextNumber(store.RevisionName(ca.Authority.ID(), 0), 1)
		return err
	})
}

// opened reads the current list as a host does.
func opened(t *testing.T, k *Keeper, ca ...Key) *sshca.KRL {
	t.Helper()
	var trusted []ssh.PublicKey
	for _, c := range ca {
		trusted = append(trusted, c.Authority.PublicKey())
	}
	l := k.Current()
	krl, err := sshca.OpenKRL(l.KRL, l.Signature, trusted)
	if err != nil {
		t.Fatal(err)
	}
	if krl.Version != uint64(l.Number) {
		t.Errorf("version %d and number %d", krl.Version, l.Number)
	}
	return krl
}

func publicOf(t *testing.T, wire []byte) ssh.PublicKey {
	t.Helper()
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// From the first, empty list to revocations of certificates, of a compromised key
// and of a lost device; both replicas serve the same bytes, the one without keys
// too; numbers rise.
func TestLife(t *testing.T) {
	each(t, func(t *testing.T, one, two *world) {
		_, users, usersThere := newCA(t)
		_, hosts, hostsThere := newCA(t)
		k, other := keeper(t, one, "one", users, hosts), keeper(t, two, "two", usersThere, hostsThere)
		run(t, k)
		run(t, other)
		until(t, "the first list", func() bool { return k.Current() != nil && other.Current() != nil })
		first := opened(t, k, users)
		wire, serial := one.issue(t, users)
		stolen, stolenSerial := one.issue(t, hosts)
		kept, _ := one.issue(t, users)
		if first.Revoked(publicOf(t, wire)) {
			t.Fatal("revoked before it was")
		}
		one.revoke(t, users, serial, cert.Unspecified)
		until(t, "the revocation is listed", func() bool { return opened(t, k, users).Revoked(publicOf(t, wire)) })
		one.revoke(t, hosts, stolenSerial, cert.KeyCompromise)
		plain := publicOf(t, stolen).(*ssh.Certificate).Key
		until(t, "the stolen key is listed", func() bool { return opened(t, k, users).Revoked(plain) })
		device := newKey(t)
		one.lose(t, device.Public())
		lost, err := ssh.NewPublicKey(device.Public())
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the lost device's key is listed", func() bool { return opened(t, k, users).Revoked(lost) })
		last := opened(t, k, users)
		if !last.Revoked(publicOf(t, stolen)) || !last.Revoked(publicOf(t, wire)) || last.Revoked(publicOf(t, kept)) {
			t.Error("the list says something else than what was revoked")
		}
		if plain := publicOf(t, wire).(*ssh.Certificate).Key; last.Revoked(plain) {
			t.Error("a key that nobody said was stolen is revoked")
		}
		if err := last.Replaces(first, time.Now(), time.Hour); err != nil {
			t.Error(err)
		}
		until(t, "the replicas agree", func() bool {
			a, b := k.Current(), other.Current()
			return bytes.Equal(a.KRL, b.KRL) && bytes.Equal(a.Signature, b.Signature)
		})
		openSSH(t, k.Current(), map[string]bool{string(wire): true, string(stolen): true, string(kept): false})
	})
}

// lose enrolls a device and calls it lost.
func (w *world) lose(t *testing.T, key crypto.PublicKey) {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(spki)
	id := protocol.NewID[protocol.DeviceID](w.now())
	w.update(t, func(tx *store.Tx) error {
		err := tx.InsertDevice(protocol.Device{
			ID: id, Owner: "anna", State: protocol.DeviceActive, Key: spki, KeyHash: hex.EncodeToString(hash[:]), Serial: 1, Slot: "9a", EnrolledAt: w.now(),
		})
		if err != nil {
			return err
		}
		_, err = tx.EndDevice(id, protocol.DeviceLost)
		return err
	})
}

// openSSH asks ssh-keygen about certificates, and reads the KRL with it.
func openSSH(t *testing.T, l *List, revoked map[string]bool) {
	t.Helper()
	dir := t.TempDir()
	list := filepath.Join(dir, "krl")
	if err := os.WriteFile(list, l.KRL, 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for wire, want := range revoked {
		line, err := sshca.CertificateLine([]byte(wire))
		if err != nil {
			t.Fatal(err)
		}
		n++
		file := filepath.Join(dir, fmt.Sprintf("id-%d-cert.pub", n))
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("ssh-keygen", "-Q", "-f", list, file).CombinedOutput()
		if said := strings.Contains(string(out), "REVOKED"); said != want || said == (err == nil) {
			t.Errorf("ssh-keygen says %q (%v), want revoked: %v", out, err, want)
		}
	}
}

// A list that grows old is made anew, and so is one of the future; nothing is signed
// between.
func TestDue(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "ca.db"))
	c, ca, _ := newCA(t)
	k := keeper(t, w, "one", ca)
	rounds := func(n int, want int) {
		t.Helper()
		for range n {
			if _, err := k.round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if c.signed != want {
			t.Fatalf("%d signatures, want %d", c.signed, want)
		}
	}
	rounds(3, 1)
	first := k.Current().Number
	w.ahead.Add(int64(DefaultValidity/3 - time.Minute))
	rounds(2, 1)
	w.ahead.Add(int64(2 * time.Minute))
	rounds(2, 2)
	second := k.Current()
	if second.Number <= first {
		t.Errorf("number %d after %d", second.Number, first)
	}
	if k.needed(second.revision) || !k.needed(second.revision+1) {
		t.Error("what changed decides")
	}
	w.ahead.Add(-int64(5 * time.Hour)) // the database's clock guard comes first
	if !k.needed(second.revision) {
		t.Error("a list of the future counts")
	}
}

// Numbers never go back, also where the database is an old one again.
func TestNumbersAfterRestore(t *testing.T) {
	_, ca, _ := newCA(t)
	number := func() int64 {
		w := newWorld(t, filepath.Join(t.TempDir(), "ca.db")) // which knows nothing
		k := keeper(t, w, "one", ca)
		if _, err := k.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		return k.Current().Number
	}
	first := number()
	time.Sleep(2 * time.Millisecond) // numbers are milliseconds at least
	if second := number(); second <= first {
		t.Errorf("number %d after %d", second, first)
	}
}

// While the key is away the old list is served; another key of the CA, a retired
// one too, signs in its place, and hosts trust that.
func TestKeyAway(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "ca.db"))
	c, ca, _ := newCA(t)
	k := keeper(t, w, "one", ca)
	if _, err := k.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := k.Current()
	wire, serial := w.issue(t, ca)
	w.revoke(t, ca, serial, cert.Unspecified)
	c.pull(fmt.Errorf("%w: pulled out", signer.ErrAway))
	if _, err := k.round(t.Context()); !errors.Is(err, signer.ErrAway) {
		t.Fatalf("%v", err)
	}
	if k.Current() != before {
		t.Error("the old list is gone")
	}
	_, spare, _ := newCA(t)
	spare.Retired = true
	with := keeper(t, w, "one", ca, spare)
	if _, err := with.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !opened(t, with, spare).Revoked(publicOf(t, wire)) {
		t.Error("the revocation isn't listed")
	}
}

// Of many replicas that hold the key one makes the list.
func TestOneMakes(t *testing.T) {
	each(t, func(t *testing.T, one, two *world) {
		c, ca, _ := newCA(t)
		var all sync.WaitGroup
		keepers := []*Keeper{keeper(t, one, "a", ca), keeper(t, two, "b", ca), keeper(t, one, "c", ca)}
		for _, k := range keepers {
			all.Go(func() {
				if _, err := k.round(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if c.signed != 1 {
			t.Errorf("%d signatures", c.signed)
		}
	})
}

// A key that is listed twice, and a damaged record, are refused.
func TestRefuses(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "ca.db"))
	_, ca, there := newCA(t)
	if _, err := New(Options{DB: w.DB, Keys: []Key{ca, there}}); err == nil {
		t.Error("a key twice")
	}
	for _, body := range []string{"", "\x00\x00\x00", "\x00\x00\x00\x02a", "\xff\xff\xff\xffabc"} {
		if _, _, err := split([]byte(body)); err == nil {
			t.Errorf("%q is no list", body)
		}
	}
	list, signature, err := split(join([]byte("list"), []byte("signature")))
	if err != nil || string(list) != "list" || string(signature) != "signature" {
		t.Errorf("%q, %q, %v", list, signature, err)
	}
}
