package publish

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

// authority is an issuing key with what the database and the key do for it.
type authority struct {
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	keyID string

	mu       sync.Mutex // guards what follows
	revoked  []withdrawn
	revision int64
	number   int64
	signed   int
	away     error // the key's answer; nil: it signs
	down     error // the database's
}

type withdrawn struct {
	serial   cert.Serial
	at       time.Time
	reason   cert.Reason
	notAfter time.Time
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256([]byte(name))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id[:20],
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key: key, cert: c, keyID: hex.EncodeToString(id[:20])}
}

func (a *authority) crlPath() string { return "/crl/" + a.keyID + ".crl" }
func (a *authority) cerPath() string { return "/ca/" + a.keyID + ".cer" }

func (a *authority) revoke(serial cert.Serial, notAfter time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = append(a.revoked, withdrawn{serial, time.Now(), cert.Superseded, notAfter})
	slices.SortFunc(a.revoked, func(x, y withdrawn) int { return cmp.Compare(x.serial, y.serial) })
	a.revision++
}

func (a *authority) trouble(key, database error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away, a.down = key, database
}

func (a *authority) sign(_ context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away != nil {
		return nil, a.away
	}
	a.signed++
	return a.key.Sign(rand.Reader, digest, opts)
}

func (a *authority) signatures() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.signed
}

func (a *authority) issuer() Issuer { return Issuer{Certificate: a.cert, Sign: a.sign} }

// options are those of a replica on the database that the authorities share.
func options(t *testing.T, all ...*authority) Options {
	find := func(keyID string) *authority {
		i := slices.IndexFunc(all, func(a *authority) bool { return a.keyID == keyID })
		if i < 0 {
			t.Fatalf("asked for %q", keyID)
		}
		return all[i]
	}
	o := Options{
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Revision: func(_ context.Context, keyID string) (int64, error) {
			a := find(keyID)
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.revision, a.down
		},
		NextNumber: func(_ context.Context, keyID string) (int64, error) {
			a := find(keyID)
			a.mu.Lock()
			defer a.mu.Unlock()
			a.number = max(a.number+1, time.Now().Unix())
			return a.number, a.down
		},
		Entries: func(_ context.Context, keyID string, after time.Time, yield func(cert.Serial, time.Time, cert.Reason, time.Time) error) error {
			a := find(keyID)
			a.mu.Lock()
			list, err := slices.Clone(a.revoked), a.down
			a.mu.Unlock()
			for _, w := range list {
				if w.notAfter.After(after) && err == nil {
					err = yield(w.serial, w.at, w.reason, w.notAfter)
				}
			}
			return err
		},
	}
	for _, a := range all {
		o.Issuers = append(o.Issuers, a.issuer())
	}
	return o
}

func newPublisher(t *testing.T, o Options) *Publisher {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run starts a Publisher in a bubble and waits until its first lists are made
// or failed.
func run(t *testing.T, o Options) *Publisher {
	t.Helper()
	p := newPublisher(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	synctest.Wait()
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

// fetch gets the list as a relying party would, checks it and returns it.
func fetch(t *testing.T, p http.Handler, a *authority) *x509.RevocationList {
	t.Helper()
	w := request(p, "GET", a.crlPath())
	if w.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", a.crlPath(), w.Status)
	}
	var body bytes.Buffer
	body.ReadFrom(w.Body)
	list, err := x509.ParseRevocationList(body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(a.cert); err != nil {
		t.Fatal(err)
	}
	return list
}

func has(list *x509.RevocationList, serial cert.Serial) bool {
	return slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return cert.SerialOf(e.SerialNumber) == serial })
}

func TestRevocationIsPublicWithinSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, other := newAuthority(t, "servers"), newAuthority(t, "clients")
		p := run(t, options(t, a, other))
		first, untouched := fetch(t, p, a), fetch(t, p, other)
		if len(first.RevokedCertificateEntries) != 0 || first.Number.Int64() < time.Now().Unix() {
			t.Fatalf("%+v", first)
		}
		time.Sleep(time.Hour)
		serial := cert.NewSerial()
		a.revoke(serial, time.Now().Add(time.Hour))
		time.Sleep(pollInterval)
		synctest.Wait()
		second := fetch(t, p, a)
		if !has(second, serial) || second.Number.Cmp(first.Number) <= 0 {
			t.Fatalf("%+v", second)
		}
		if e := second.RevokedCertificateEntries[0]; e.ReasonCode != int(cert.Superseded) {
			t.Errorf("%+v", e)
		}
		if !bytes.Equal(fetch(t, p, other).Raw, untouched.Raw) {
			t.Error("another issuer's list was made anew")
		}
		time.Sleep(time.Hour)
		if a.signatures() != 2 || other.signatures() != 1 {
			t.Errorf("%d and %d signatures; a revocation costs one", a.signatures(), other.signatures())
		}
	})
}

// A relying party never sees a list of which half of its life is over, and
// clocks a little late take a new list.
func TestRenewedBeforeHalfOfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		p := run(t, options(t, a))
		numbers := map[int64]bool{}
		for range 48 * 12 { // two days
			list, now := fetch(t, p, a), time.Now()
			if left, life := list.NextUpdate.Sub(now), list.NextUpdate.Sub(list.ThisUpdate); left < life/2 {
				t.Fatalf("%v left of %v", left, life)
			}
			if now.Sub(list.ThisUpdate) < 50*time.Second {
				t.Fatalf("thisUpdate is %v ago", now.Sub(list.ThisUpdate))
			}
			numbers[list.Number.Int64()] = true
			time.Sleep(5 * time.Minute)
		}
		if n := len(numbers); n < 5 || n > 8 {
			t.Errorf("%d lists in two days", n)
		}
	})
}

// RFC 5280 section 3.3: an entry stays until it was on a list issued after
// the certificate's end. Then it goes.
func TestExpiredLeaveAfterOneMoreList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		p := run(t, options(t, a))
		serial, end := cert.NewSerial(), time.Now().Add(10*time.Hour)
		a.revoke(serial, end)
		time.Sleep(2 * pollInterval)
		beyond := false
		for range 500 {
			list := fetch(t, p, a)
			switch there := has(list, serial); {
			case there && list.ThisUpdate.After(end):
				beyond = true
			case !there && !beyond:
				t.Fatalf("gone at %v, before any list made after %v had it", list.ThisUpdate, end)
			case !there:
				return
			}
			time.Sleep(10 * time.Minute)
		}
		t.Error("it never went")
	})
}

func TestOldListStaysWhileTheKeyIsAway(t *testing.T) {
	for name, fault := range map[string]func(a *authority){
		"key":      func(a *authority) { a.trouble(errors.New("pulled out"), nil) },
		"database": func(a *authority) { a.trouble(nil, errors.New("gone")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, other := newAuthority(t, "servers"), newAuthority(t, "clients")
				var log bytes.Buffer // written by one goroutine: the other list is well
				var mu sync.Mutex
				var failed, made int
				o := options(t, a, other)
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
				o.Made = func(g Generation) {
					mu.Lock()
					defer mu.Unlock()
					switch {
					case g.IssuerKeyID != a.keyID:
					case g.Err != nil:
						failed++
					default:
						made++
						if g.Number == 0 || g.Bytes == 0 || g.Entries > 1 || !g.NextUpdate.After(time.Now()) {
							t.Errorf("%+v", g)
						}
					}
				}
				p := run(t, o)
				first := fetch(t, p, a)
				fault(a)
				serial := cert.NewSerial()
				a.revoke(serial, time.Now().Add(48*time.Hour))
				time.Sleep(10 * time.Hour)
				if !bytes.Equal(fetch(t, p, a).Raw, first.Raw) {
					t.Error("not the old list")
				}
				if otherList := fetch(t, p, other); !otherList.ThisUpdate.After(first.ThisUpdate) {
					t.Error("one key's trouble held another's list up")
				}
				mu.Lock()
				if failed < 500 || failed > 620 || !strings.Contains(log.String(), "level=ERROR") {
					t.Errorf("%d tries in ten hours; the log says %.300s", failed, log.String())
				}
				mu.Unlock()
				a.trouble(nil, nil)
				time.Sleep(maxRetry)
				synctest.Wait()
				if list := fetch(t, p, a); !has(list, serial) || list.Number.Cmp(first.Number) <= 0 || made != 2 {
					t.Errorf("not well again: %v", list.Number)
				}
			})
		})
	}
}

// Two replicas on one database: both show a revocation, no number is used for
// two lists, and each replica's numbers rise.
func TestReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		replicas := []*Publisher{run(t, options(t, a)), run(t, options(t, a))}
		seen := map[string][]byte{}
		last := make([]*big.Int, len(replicas))
		for range 50 {
			serial := cert.NewSerial()
			a.revoke(serial, time.Now().Add(time.Hour))
			time.Sleep(pollInterval + time.Second)
			synctest.Wait()
			for i, p := range replicas {
				list := fetch(t, p, a)
				if !has(list, serial) {
					t.Fatalf("replica %d doesn't know of %s", i, serial)
				}
				if last[i] != nil && list.Number.Cmp(last[i]) < 0 {
					t.Fatalf("replica %d went back from %v to %v", i, last[i], list.Number)
				}
				last[i] = list.Number
				if raw := seen[list.Number.String()]; raw != nil && !bytes.Equal(raw, list.Raw) {
					t.Fatalf("two lists have number %v", list.Number)
				}
				seen[list.Number.String()] = list.Raw
			}
		}
	})
}

// A database restored from a backup forgot numbers and revocations' revision;
// the new numbers are above all that were published.
func TestRestoredDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		backup := a.number
		p := run(t, options(t, a))
		for range 20 {
			a.revoke(cert.NewSerial(), time.Now().Add(time.Hour))
			time.Sleep(pollInterval)
		}
		synctest.Wait()
		before := fetch(t, p, a)
		a.mu.Lock()
		a.number, a.revision, a.revoked = backup, 0, nil
		a.mu.Unlock()
		time.Sleep(pollInterval) // the restore takes at least that
		if after := fetch(t, run(t, options(t, a)), a); after.Number.Cmp(before.Number) <= 0 {
			t.Errorf("number %v after %v", after.Number, before.Number)
		}
	})
}

// Many read while lists are made; everyone gets a whole list that fits its
// ETag, and nobody goes back.
func TestReadersWhileListsAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		p := run(t, options(t, a))
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				last := new(big.Int)
				for range 100 {
					w := request(p, "GET", a.crlPath())
					var body bytes.Buffer
					body.ReadFrom(w.Body)
					hash := sha256.Sum256(body.Bytes())
					list, err := x509.ParseRevocationList(body.Bytes())
					if err != nil || w.Header.Get("ETag") != fmt.Sprintf(`"%x"`, hash[:16]) || list.Number.Cmp(last) < 0 {
						t.Errorf("%v, ETag %s, number %v after %v", err, w.Header.Get("ETag"), list.Number, last)
						return
					}
					last = list.Number
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
		for range 10 {
			a.revoke(cert.NewSerial(), time.Now().Add(time.Hour))
			time.Sleep(pollInterval)
		}
		readers.Wait()
		time.Sleep(pollInterval)
		synctest.Wait()
		if len(fetch(t, p, a).RevokedCertificateEntries) != 10 || a.signatures() < 5 {
			t.Errorf("%d lists were made", a.signatures())
		}
	})
}

// A storm of revocations costs a slow key or a large list only a part of its
// time.
func TestSlowListsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		o := options(t, a)
		entries := o.Entries
		o.Entries = func(ctx context.Context, keyID string, after time.Time, yield func(cert.Serial, time.Time, cert.Reason, time.Time) error) error {
			time.Sleep(time.Second)
			a.revoke(cert.NewSerial(), time.Now().Add(time.Hour)) // always another one
			return entries(ctx, keyID, after, yield)
		}
		run(t, o)
		time.Sleep(10 * time.Minute)
		if n := a.signatures(); n < 25 || n > 32 { // one second of work, then twenty of rest
			t.Errorf("%d lists of one second each in ten minutes", n)
		}
	})
}

// A key that never answers is given up on, not waited for forever.
func TestHangingKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		o := options(t, a)
		var tries atomic.Int32
		o.Issuers[0].Sign = func(ctx context.Context, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
			tries.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		p := run(t, o)
		time.Sleep(time.Hour)
		if n := tries.Load(); n < 9 || n > 12 {
			t.Errorf("%d tries in an hour", n)
		}
		if w := request(p, "GET", a.crlPath()); w.StatusCode != http.StatusServiceUnavailable {
			t.Error(w.Status)
		}
	})
}

// A reload makes a new Publisher, which serves the old lists meanwhile.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, added := newAuthority(t, "servers"), newAuthority(t, "clients")
		o := options(t, a, added)
		all := o.Issuers
		o.Issuers = all[:1]
		old := run(t, o)
		first := fetch(t, old, a)
		o.Issuers, o.Previous = all, old
		p := newPublisher(t, o)
		if !bytes.Equal(fetch(t, p, a).Raw, first.Raw) {
			t.Error("not the old list")
		}
		if w := request(p, "GET", added.crlPath()); w.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a list that wasn't made yet: %s", w.Status)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	a := newAuthority(t, "servers")
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no cRLSign":        {func(o *Options) { o.Issuers[0].Certificate.KeyUsage = x509.KeyUsageCertSign }, "cRLSign"},
		"no key identifier": {func(o *Options) { o.Issuers[0].Certificate.SubjectKeyId = nil }, "key identifier"},
		"hardly valid":      {func(o *Options) { o.Validity = time.Second }, "minute"},
		"never valid":       {func(o *Options) { o.Validity = -time.Hour }, "minute"},
		"no numbers":        {func(o *Options) { o.NextNumber = nil }, "NextNumber"},
		"no entries":        {func(o *Options) { o.Entries = nil }, "Entries"},
		"no revision":       {func(o *Options) { o.Revision = nil }, "Revision"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, a)
			mine := *a.cert
			o.Issuers[0].Certificate = &mine
			c.change(&o)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}
