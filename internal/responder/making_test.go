package responder

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/store"
)

// lists only.
func (a *issuing) lists(shards int) Authority {
	return Authority{Certificate: a.cert, Queue: a.queue, CRL: &CRL{Shards: shards, PointURL: a.point}}
}

func (a *issuing) point(shard int) string {
	return fmt.Sprintf("http://crl.example/crl/%s/%d.crl", a.keyID, shard)
}

// fetch gets a list, checks it as a relying party would, and returns it.
func (a *issuing) fetch(t testing.TB, r *Responder, shard int) *x509.RevocationList {
	t.Helper()
	l, known := r.List(a.keyID, shard)
	if l == nil || !known {
		t.Fatalf("shard %d: list %v, known %v", shard, l, known)
	}
	list, err := x509.ParseRevocationList(l.DER)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(a.cert); err != nil {
		t.Fatal(err)
	}
	if list.Number.Int64() != l.Number || !list.ThisUpdate.Equal(l.ThisUpdate) || !list.NextUpdate.Equal(l.NextUpdate) {
		t.Fatalf("%+v is not what the list says", l)
	}
	return list
}

func has(list *x509.RevocationList, l leaf) bool {
	return slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(l.serial.Big()) == 0 && e.ReasonCode == int(cert.Superseded)
	})
}

func TestRevocationIsPublicWithinSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a, other := newIssuing(t, "servers"), newIssuing(t, "clients")
		r := startAt(t, db, a.lists(0), other.lists(0))
		time.Sleep(time.Second)
		first, untouched := a.fetch(t, r, 0), other.fetch(t, r, 0)
		if len(first.RevokedCertificateEntries) != 0 || first.Number.Int64() < time.Now().Add(-time.Minute).UnixMilli() {
			t.Fatalf("%+v", first)
		}
		time.Sleep(time.Hour)
		l := a.issue(t, db)
		l.revoke(t, db)
		time.Sleep(2 * time.Second)
		second := a.fetch(t, r, 0)
		if !has(second, l) || second.Number.Cmp(first.Number) <= 0 {
			t.Fatalf("%+v", second)
		}
		if !bytes.Equal(other.fetch(t, r, 0).Raw, untouched.Raw) {
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
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		r := startAt(t, db, a.lists(1))
		time.Sleep(time.Second)
		for range 4 * 24 { // two days
			for shard := range 2 {
				list, now := a.fetch(t, r, shard), time.Now()
				if left, life := list.NextUpdate.Sub(now), list.NextUpdate.Sub(list.ThisUpdate); left < life/2 {
					t.Fatalf("%v left of %v", left, life)
				}
				if now.Sub(list.ThisUpdate) < 50*time.Second {
					t.Fatalf("thisUpdate is %v ago", now.Sub(list.ThisUpdate))
				}
			}
			time.Sleep(30 * time.Minute)
		}
		if n := a.signatures(); n < 2*6 || n > 2*8 {
			t.Errorf("%d signatures in two days", n)
		}
	})
}

// RFC 5280 section 3.3: an entry stays until it was on a list issued after the
// certificate's end. Then it goes.
func TestExpiredLeaveAfterOneMoreList(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		r := startAt(t, db, a.lists(0))
		end := time.Now().Add(10 * time.Hour)
		l := a.issue(t, db, func(l *leaf) { l.notAfter = end })
		l.revoke(t, db)
		time.Sleep(5 * time.Second)
		beyond := false
		for range 100 {
			list := a.fetch(t, r, 0)
			switch there := has(list, l); {
			case there && list.ThisUpdate.After(end):
				beyond = true
			case !there && !beyond:
				t.Fatalf("gone at %v, before any list made after %v had it", list.ThisUpdate, end)
			case !there:
				return
			}
			time.Sleep(time.Hour)
		}
		t.Error("it never went")
	})
}

// "CRL publication survives restarts and key loss": the stored list is served,
// and none made while it is good.
func TestListsSurvive(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		authority := a.lists(1)
		r, stop := start(t, Options{DB: db, Authorities: []Authority{authority}})
		l := a.issue(t, db, func(l *leaf) { l.shard = 1 })
		l.revoke(t, db)
		time.Sleep(5 * time.Second)
		lists := [][]byte{a.fetch(t, r, 0).Raw, a.fetch(t, r, 1).Raw}
		stop()
		before := a.signatures()

		r, stop = start(t, Options{DB: db, Authorities: []Authority{authority}})
		time.Sleep(time.Hour)
		for shard, raw := range lists {
			if !bytes.Equal(a.fetch(t, r, shard).Raw, raw) {
				t.Error("after a restart there is another list")
			}
		}
		if n := a.signatures(); n != before {
			t.Errorf("a restart cost %d signatures", n-before)
		}
		stop()

		a.set(func(c *card) { c.away = errors.New("broken") }) // for good
		late := a.issue(t, db)
		late.revoke(t, db)
		r, stop = start(t, Options{DB: db, Authorities: []Authority{authority}})
		time.Sleep(30 * time.Hour)
		if !bytes.Equal(a.fetch(t, r, 0).Raw, lists[0]) {
			t.Error("not the old list")
		}
		stop()

		authority.Queue = nil
		r = startAt(t, db, authority)
		time.Sleep(time.Second)
		if !bytes.Equal(a.fetch(t, r, 1).Raw, lists[1]) {
			t.Error("without the key the list is not served")
		}
	})
}

func TestOldListStaysWhileTheKeyIsAway(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a, other := newIssuing(t, "servers"), newIssuing(t, "clients")
		var log bytes.Buffer
		var mu sync.Mutex
		var failed, made int
		r, _ := start(t, Options{
			DB: db, Authorities: []Authority{a.lists(1), other.lists(0)}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Observe: Observe{Made: func(m Making) {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case m.IssuerKeyID != a.keyID:
				case m.Err != nil:
					failed++
				default:
					made++
					if m.Number == 0 || m.Bytes == 0 || m.Entries > 1 || !m.NextUpdate.After(time.Now()) {
						t.Errorf("%+v", m)
					}
				}
			}},
		})
		time.Sleep(time.Second)
		first, others := a.fetch(t, r, 0), other.fetch(t, r, 0)
		a.set(func(c *card) { c.away = errors.New("pulled out") })
		l := a.issue(t, db)
		l.revoke(t, db)
		time.Sleep(10 * time.Hour)
		if !bytes.Equal(a.fetch(t, r, 0).Raw, first.Raw) {
			t.Error("not the old list")
		}
		if !other.fetch(t, r, 0).ThisUpdate.After(others.ThisUpdate) {
			t.Error("one key's trouble held another's list up")
		}
		mu.Lock()
		if failed < 300 || failed > 620 {
			t.Errorf("%d tries in ten hours", failed)
		}
		mu.Unlock()
		a.set(func(c *card) { c.away = nil })
		ctx, cancel := signal(t)
		defer cancel()
		go a.queue.Watch(ctx)
		time.Sleep(2 * maxRetry)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if list := a.fetch(t, r, 0); !has(list, l) || list.Number.Cmp(first.Number) <= 0 || made != 4 {
			t.Errorf("not well again: number %v, %d made", list.Number, made)
		}
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "pulled out") {
			t.Errorf("the log says %.300s", log.String())
		}
	})
}

// A certificate's shard never changes: lists of all shards ever used are made,
// whatever the configuration says now, each names its part (RFC 5280 section
// 5.2.5), and the full list has all.
func TestShards(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		var leaves []leaf
		for shard := range 4 {
			for range 3 {
				leaves = append(leaves, a.issue(t, db, func(l *leaf) { l.shard = shard }))
			}
		}
		check := func(r *Responder, revoked int) {
			t.Helper()
			for shard := range 4 {
				list := a.fetch(t, r, shard)
				for i, l := range leaves {
					if want := i < revoked && (shard == 0 || l.shard == shard); has(list, l) != want {
						t.Errorf("shard %d: a certificate of shard %d is on it: %v", shard, l.shard, !want)
					}
				}
				// issuingDistributionPoint, with the very URL of the certificates.
				if named := bytes.Contains(list.Raw, []byte(a.point(shard))); named != (shard > 0) {
					t.Errorf("shard %d names its part: %v", shard, named)
				}
			}
			if l, known := r.List(a.keyID, 4); l != nil || known {
				t.Error("shard 4 was never used")
			}
		}
		slices.SortFunc(leaves, func(x, y leaf) int { return strings.Compare(string(x.serial), string(y.serial)) })
		r, stop := start(t, Options{DB: db, Authorities: []Authority{a.lists(3)}})
		for i, l := range leaves[:8] {
			if i == 4 {
				time.Sleep(time.Minute)
				check(r, 4)
			}
			l.revoke(t, db)
		}
		time.Sleep(time.Minute)
		check(r, 8)
		stop()
		for i, fewer := range []int{1, 0} { // a configuration with fewer shards
			r, stop = start(t, Options{DB: db, Authorities: []Authority{a.lists(fewer)}})
			leaves[8+i].revoke(t, db)
			time.Sleep(time.Minute)
			check(r, 9+i)
			stop()
		}
	})
}

// Only what a revocation changes is made anew.
func TestRevocationCostsTwoLists(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		startAt(t, db, a.lists(10))
		time.Sleep(time.Minute)
		before := a.signatures()
		a.issue(t, db, func(l *leaf) { l.shard = 7 }).revoke(t, db)
		time.Sleep(time.Hour)
		if before != 11 || a.signatures() != before+2 {
			t.Errorf("%d lists, and %d for a revocation", before, a.signatures()-before)
		}
	})
}

// A revocation doesn't wait until all of many lists are made that are merely
// due.
func TestRevocationGoesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		authority := a.lists(60)
		_, stop := start(t, Options{DB: db, Authorities: []Authority{authority}})
		time.Sleep(time.Minute)
		stop()
		a.set(func(c *card) { c.delay = time.Second })
		time.Sleep(10 * time.Hour) // all are due
		r := startAt(t, db, authority)
		time.Sleep(10 * time.Second)
		l := a.issue(t, db, func(l *leaf) { l.shard = 50 })
		l.revoke(t, db)
		time.Sleep(5 * time.Second)
		if !has(a.fetch(t, r, 50), l) || !has(a.fetch(t, r, 0), l) {
			t.Error("a revocation waits for lists that could wait")
		}
		time.Sleep(2 * time.Minute)
		for shard := range 61 {
			if age := time.Since(a.fetch(t, r, shard).ThisUpdate); age > 5*time.Minute {
				t.Errorf("shard %d is %v old", shard, age)
			}
		}
	})
}

// Two replicas with the key: one makes, both serve the same bytes; numbers
// rise. And one without it serves them too.
func TestReplicas(t *testing.T) {
	each(t, func(t *testing.T, one, two *store.DB) {
		a := newIssuing(t, "servers")
		twin := a.lists(1)
		twin.Queue = newQueue(t, a.card)
		keyless := a.lists(1)
		keyless.Queue = nil
		signed := a.signatures() // they begin to sign when they start
		replicas := []*Responder{startAt(t, one, a.lists(1)), startAt(t, two, twin), startAt(t, two, keyless)}
		number := func(shard int) func() bool {
			return func() bool {
				first, _ := replicas[0].List(a.keyID, shard)
				for _, r := range replicas {
					if l, _ := r.List(a.keyID, shard); l == nil || l.Number != first.Number {
						return false
					}
				}
				return true
			}
		}
		for round := range 3 {
			last := int64(0)
			if round > 0 {
				signed = a.signatures()
				last = a.fetch(t, replicas[0], 1).Number.Int64()
				l := a.issue(t, one, func(l *leaf) { l.shard = 1 })
				l.revoke(t, []*store.DB{one, two}[round%2])
				eventually(t, "all show the revocation", func() bool {
					for _, r := range replicas {
						if !has(a.fetch(t, r, 1), l) || !has(a.fetch(t, r, 0), l) {
							return false
						}
					}
					return true
				})
			}
			eventually(t, "all have the list", number(0))
			eventually(t, "all have the shard", number(1))
			for _, r := range replicas {
				if !bytes.Equal(a.fetch(t, r, 1).Raw, a.fetch(t, replicas[0], 1).Raw) || a.fetch(t, r, 1).Number.Int64() <= last {
					t.Error("the replicas serve different lists, or an older one")
				}
			}
			if n := a.signatures() - signed; n != 2 {
				t.Errorf("round %d: %d signatures for two lists", round, n)
			}
		}
	})
}

// revokeMany puts many withdrawn certificates into the database, evenly into so
// many shards; 0: into none.
func (a *issuing) revokeMany(t testing.TB, db *store.DB, n, shards int) {
	t.Helper()
	now := time.Now()
	for done := 0; done < n; {
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			for range min(n-done, 10_000) {
				serial := cert.NewSerial()
				c := cert.Certificate{
					Serial: serial, State: cert.Issued, Directory: "main", IssuerKeyID: a.keyID, KeyHash: "00",
					Names: []protocol.Identifier{}, DER: []byte{0}, NotBefore: now, NotAfter: now.Add(24 * time.Hour),
					Revoked: cert.Revoked{At: now, Reason: cert.KeyCompromise}, CRLShard: revocation.Shard(serial, shards),
				}
				if err := tx.InsertCertificate(c, time.Time{}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		done += min(n-done, 10_000)
	}
}

// A list of more than a part, on both replicas, and nothing left of the one
// before.
func TestLongList(t *testing.T) {
	inBubble(t, func(t *testing.T, one *store.DB) {
		const entries = 22_000
		two := one // of one process
		a := newIssuing(t, "servers")
		a.revokeMany(t, one, entries, 0)
		keyless := a.lists(0)
		keyless.Queue = nil
		here, there := startAt(t, one, a.lists(0)), startAt(t, two, keyless)
		for range 2 {
			time.Sleep(maxRest + time.Second)
			eventually(t, "both have it", func() bool {
				x, _ := here.List(a.keyID, 0)
				y, _ := there.List(a.keyID, 0)
				return x != nil && y != nil && x.Number == y.Number && bytes.Equal(x.DER, y.DER) && len(x.DER) > store.CRLPartSize
			})
			l := a.issue(t, one)
			l.revoke(t, two)
			time.Sleep(maxRest + time.Second)
			if !has(a.fetch(t, there, 0), l) {
				t.Error("it isn't on the list")
			}
		}
		if n := len(a.fetch(t, there, 0).RevokedCertificateEntries); n != entries+2 {
			t.Errorf("%d entries", n)
		}
		old, err := one.CRL(t.Context(), a.keyID, 0)
		if err != nil {
			t.Fatal(err)
		}
		old.Number--
		eventually(t, "old parts are gone", func() bool {
			n := 0
			err := one.Update(t.Context(), func(tx *store.Tx) (err error) { n, err = tx.SweepCRLParts(a.keyID, 0, old.Number, 1); return err })
			return err == nil && n == 0
		})
	})
}

// A database restored from a backup forgot numbers and lists; new numbers are
// above all that were published.
func TestRestoredDatabase(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		r, stop := start(t, Options{DB: db, Authorities: []Authority{a.lists(0)}})
		for range 20 {
			a.issue(t, db).revoke(t, db)
			time.Sleep(5 * time.Second)
		}
		before := a.fetch(t, r, 0)
		stop()
		restored := startAt(t, open(t, t.TempDir()+"/ca.db"), a.lists(0))
		time.Sleep(time.Second)
		if after := a.fetch(t, restored, 0); after.Number.Cmp(before.Number) <= 0 {
			t.Errorf("number %v after %v", after.Number, before.Number)
		}
	})
}

// Many read while lists are made; nobody goes back.
func TestReadersWhileListsAreMade(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		r := startAt(t, db, a.lists(0))
		time.Sleep(time.Second)
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				last := int64(0)
				for range 100 {
					number := a.fetch(t, r, 0).Number.Int64()
					if number < last {
						t.Errorf("number %d after %d", number, last)
						return
					}
					last = number
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
		for range 10 {
			a.issue(t, db).revoke(t, db)
			time.Sleep(2 * time.Second)
		}
		readers.Wait()
		if n := len(a.fetch(t, r, 0).RevokedCertificateEntries); n != 10 || a.signatures() < 5 {
			t.Errorf("%d entries, %d lists were made", n, a.signatures())
		}
	})
}

// A storm of revocations costs a slow key only a part of its time.
func TestSlowListsRest(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		a.set(func(c *card) { c.delay = time.Second })
		startAt(t, db, a.lists(0))
		ctx, cancel := signal(t)
		var storm sync.WaitGroup
		storm.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(time.Second) {
				a.issue(t, db).revoke(t, db)
			}
		})
		time.Sleep(10 * time.Minute)
		cancel()
		storm.Wait()
		if n := a.signatures(); n < 80 || n > 101 { // one second of work, then five of rest
			t.Errorf("%d lists of one second each in ten minutes", n)
		}
	})
}

// A key that never answers is given up on, not waited for forever, and others
// get their lists.
func TestHangingKey(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a, other := newIssuing(t, "servers"), newIssuing(t, "clients")
		ctx, cancel := signal(t)
		a.set(func(c *card) { c.before = func() { <-ctx.Done() } })
		r := startAt(t, db, a.lists(0), other.lists(0))
		time.Sleep(time.Hour)
		if l, known := r.List(a.keyID, 0); l != nil || !known {
			t.Error("a list without a signature")
		}
		other.fetch(t, r, 0)
		cancel()
	})
}

// A replica that died while it made a list is succeeded within its lease.
func TestMakerDies(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Lease("crl/"+a.keyID, "the dead", time.Now().Add(listLease))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		r := startAt(t, db, a.lists(0))
		time.Sleep(listLease / 2)
		if l, _ := r.List(a.keyID, 0); l != nil {
			t.Error("made while another replica is at it")
		}
		time.Sleep(listLease)
		a.fetch(t, r, 0)
	})
}

// A reload makes a new Responder, which serves the old lists at once.
func TestReload(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a, added := newIssuing(t, "servers"), newIssuing(t, "clients")
		old := startAt(t, db, a.lists(1))
		time.Sleep(time.Second)
		r := newResponder(t, Options{DB: db, Authorities: []Authority{a.lists(0), added.lists(0)}, Previous: old})
		for shard := range 2 {
			if !bytes.Equal(a.fetch(t, r, shard).Raw, a.fetch(t, old, shard).Raw) {
				t.Error("not the old list")
			}
		}
		if l, known := r.List(added.keyID, 0); l != nil || !known {
			t.Error("a list that nobody made")
		}
		if _, known := r.List(a.keyID, -1); known {
			t.Error("shard -1")
		}
	})
}

// A clock that went back: lists of the future are made anew.
func TestClockGoesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		ahead, _ := start(t, Options{DB: db, Authorities: []Authority{a.lists(0)}, Clock: func() time.Time { return time.Now().Add(100 * time.Hour) }})
		time.Sleep(time.Second)
		future, _ := ahead.List(a.keyID, 0)
		r := startAt(t, db, a.lists(0))
		time.Sleep(5 * time.Second)
		if list := a.fetch(t, r, 0); list.ThisUpdate.After(time.Now()) || list.Number.Int64() <= future.Number {
			t.Errorf("thisUpdate %v, number %v after %d", list.ThisUpdate, list.Number, future.Number)
		}
	})
}

// While notices aren't heard, everything is found by looking.
func TestWithoutNotices(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		r := newResponder(t, Options{DB: db, Authorities: []Authority{a.full()}})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { r.recordWants(ctx) })
		all.Go(func() { r.work(ctx, r.authorities[0]) })
		all.Go(func() { r.makeLists(ctx, r.authorities[0]) })
		all.Go(func() { r.keepLists(ctx) })
		all.Go(func() { every(ctx, wantsEvery, func() { r.wakeWanted(ctx) }) })
		time.Sleep(time.Second)
		l := a.issue(t, db)
		l.ask(t, r)
		l.revoke(t, db)
		time.Sleep(listsEvery + time.Second)
		if !has(a.fetch(t, r, 0), l) {
			t.Error("the list doesn't have it")
		}
		if o := l.ask(t, r); o.Status != 1 {
			t.Error("still good")
		}
		if r.Intact() {
			t.Error("intact without notices")
		}
		cancel()
		all.Wait()
		synctest.Wait()
	})
}

// BenchmarkList makes a full list of many entries from the database, of one
// shard and of 64, and says what an entry costs.
func BenchmarkList(b *testing.B) {
	for _, parted := range []int{0, 64} {
		b.Run(fmt.Sprintf("shards=%d", parted), func(b *testing.B) {
			const entries = 100_000
			db, a := open(b, b.TempDir()+"/ca.db"), newIssuing(b, "servers")
			a.revokeMany(b, db, entries, parted)
			r := newResponder(b, Options{DB: db, Authorities: []Authority{a.lists(parted)}, Logger: slog.New(slog.DiscardHandler)})
			authority := r.authorities[0]
			full := authority.lists.lists()[0]
			var before, after runtime.MemStats
			debug.FreeOSMemory()
			runtime.ReadMemStats(&before)
			for revision := int64(1); b.Loop(); revision++ {
				if m, err := r.renew(b.Context(), authority, full, revision); err != nil || m.Entries != entries {
					b.Fatalf("%+v, %v", m, err)
				}
			}
			runtime.ReadMemStats(&after)
			peak := after.HeapSys - after.HeapReleased - (before.HeapSys - before.HeapReleased)
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(r)
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*entries), "us/entry")
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/entries, "held-B/entry")
			b.ReportMetric(float64(peak)/entries, "taken-B/entry") // from the system, with what waits to be collected
		})
	}
}
