package responder

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/store"
)

// DESIGN section 7: signed on demand, kept in the database for the whole
// validity, so signed once for all who ask, on all replicas, after restarts
// and without the key.
func TestSignedOnceForAll(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		l := a.issue(t, db)
		r, stop := start(t, Options{DB: db, Authorities: []Authority{a.full()}})
		first := l.ask(t, r)
		if first.Status != ocsp.Good || first.NextUpdate.Sub(first.ProducedAt) != DefaultOCSPValidity || first.ProducedAt.Sub(first.ThisUpdate) != backdate {
			t.Errorf("%+v", first)
		}
		stop()
		a.set(func(c *card) { c.away = errors.New("pulled out") })
		keyless := a.full()
		keyless.Queue = nil
		for _, r := range []*Responder{startAt(t, db, a.full()), startAt(t, db, keyless)} {
			for range 2 {
				time.Sleep(time.Hour)
				if o := l.ask(t, r); !o.ProducedAt.Equal(first.ProducedAt) {
					t.Fatalf("signed anew at %v", o.ProducedAt)
				}
			}
		}
	})
}

// A request may name the issuer by SHA-1 or SHA-256 (RFC 5019 section 2.1.1, RFC
// 6960 section 4.1.1); each answer has the names of its request.
func TestHashes(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		l := a.issue(t, db)
		r := startAt(t, db, a.full())
		for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA1} {
			answer, err := r.Answer(t.Context(), l.request(t, h, nil))
			if err != nil {
				t.Fatal(err)
			}
			if o := l.check(t, answer); o.IssuerHash != h {
				t.Errorf("asked with %v, answered with %v", h, o.IssuerHash)
			}
		}
	})
}

// Issue: a stranger can't spend the issuing key. Nothing here costs a
// signature or leaves a row to sign.
func TestNeverSigned(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a, other, silent := newIssuing(t, "servers"), newIssuing(t, "clients"), newIssuing(t, "without OCSP")
		r := startAt(t, db, a.full(), other.full(), Authority{Certificate: silent.cert, Queue: silent.queue, CRL: &CRL{}})
		time.Sleep(time.Second) // the lists
		before := a.signatures() + other.signatures() + silent.signatures()
		good := a.issue(t, db)
		for name, c := range map[string]struct {
			leaf
			change func(*revocation.OCSPRequest)
		}{
			"unknown serial":      {good, func(q *revocation.OCSPRequest) { q.Serial = cert.NewSerial().Big().Bytes() }},
			"serial one":          {good, func(q *revocation.OCSPRequest) { q.Serial = []byte{1} }},
			"unknown, with nonce": {good, func(q *revocation.OCSPRequest) { q.Serial, q.Nonce, q.HasNonce = []byte{1}, []byte("n"), true }},
			"planned":             {a.issue(t, db, func(l *leaf) { l.state = cert.Planned }), nil},
			"no pointer":          {a.issue(t, db, func(l *leaf) { l.pointer = "" }), nil},
			"ended":               {a.issue(t, db, func(l *leaf) { l.notAfter = time.Now().Add(-time.Second) }), nil},
			"another issuer's":    {leaf{issuing: other, serial: good.serial}, nil},
			"issuer without OCSP": {silent.issue(t, db), nil},
			"stranger's issuer":   {newIssuing(t, "stranger").issue(t, db), nil},
			"name of one, other key": {good, func(q *revocation.OCSPRequest) {
				q.IssuerKeyHash = good.request(t, crypto.SHA256, nil).IssuerKeyHash[:20]
			}},
		} {
			q := c.request(t, crypto.SHA1, nil)
			if c.change != nil {
				c.change(q)
			}
			for range 2 {
				if answer, err := r.Answer(t.Context(), q); err != error(ErrUnauthorized) {
					t.Errorf("%s: %v, %v", name, answer, err)
				}
			}
		}
		time.Sleep(10 * time.Second)
		if n := a.signatures() + other.signatures() + silent.signatures(); n != before {
			t.Errorf("%d signatures", n-before)
		}
		if wanted, err := db.OCSPWanted(t.Context(), []string{a.keyID, other.keyID, silent.keyID}, time.Now()); wanted || err != nil {
			t.Errorf("wanted: %v, %v", wanted, err)
		}
	})
}

// RFC 9654 section 2.1: a responder may ignore a nonce. Without a delegate all
// nonces get the one answer.
func TestNonceIsIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		l := a.issue(t, db)
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		for _, nonce := range []string{"one", "two", "three"} {
			answer, err := r.Answer(t.Context(), l.request(t, crypto.SHA1, []byte(nonce)))
			if err != nil || !answer.Cacheable || bytes.Contains(answer.DER, []byte(nonce)) {
				t.Fatalf("%+v, %v", answer, err)
			}
		}
		if n := a.signatures(); n != 1 {
			t.Errorf("%d signatures", n)
		}
	})
}

// With a delegate nonces are answered, each for one asker only, and unknown
// serials get a signed "unknown" (RFC 6960 section 2.2), all by its key.
func TestDelegate(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		end := time.Now().Add(3 * time.Hour).UTC().Truncate(time.Second)
		d, key := a.delegate(t, end)
		r := startAt(t, db, Authority{Certificate: a.cert, Queue: a.queue, OCSP: &OCSP{Delegate: d}})
		l, withdrawn, pointless := a.issue(t, db), a.issue(t, db), a.issue(t, db, func(l *leaf) { l.pointer = "" })
		withdrawn.revoke(t, db)
		stranger := leaf{issuing: a, serial: cert.NewSerial()}
		for name, c := range map[string]struct {
			leaf
			nonce     string
			status    int
			cacheable bool
		}{
			"good":                {l, "", ocsp.Good, true},
			"good, nonce":         {l, "xyz", ocsp.Good, false},
			"good, other nonce":   {l, "zyx", ocsp.Good, false},
			"revoked":             {withdrawn, "", ocsp.Revoked, true},
			"revoked, nonce":      {withdrawn, "abc", ocsp.Revoked, false},
			"unknown":             {stranger, "", ocsp.Unknown, false},
			"unknown, with nonce": {stranger, "cba", ocsp.Unknown, false},
		} {
			var nonce []byte
			if c.nonce != "" {
				nonce = []byte(c.nonce)
			}
			answer, err := r.Answer(t.Context(), c.request(t, crypto.SHA1, nonce))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			o := c.check(t, answer)
			if o.Status != c.status || o.Certificate == nil || !bytes.Equal(o.Certificate.Raw, d.Certificate.Raw) || answer.Cacheable != c.cacheable {
				t.Errorf("%s: status %d, cacheable %v, signed by %v", name, o.Status, answer.Cacheable, o.Certificate)
			}
			// x/crypto/ocsp hides responseExtensions; the nonce is an OCTET STRING in one.
			inner, _ := asn1.Marshal(nonce)
			if has := bytes.Contains(answer.DER, inner); nonce != nil && !has {
				t.Errorf("%s: the nonce isn't in the answer", name)
			}
			if o.NextUpdate.After(end) {
				t.Errorf("%s: valid until %v, the delegate's certificate until %v", name, o.NextUpdate, end)
			}
			if c.status == ocsp.Unknown && o.NextUpdate.Sub(o.ProducedAt) > unknownValidity {
				t.Errorf("%s: unknown for %v; it may be issued in a moment", name, o.NextUpdate.Sub(o.ProducedAt))
			}
		}
		if answer, err := r.Answer(t.Context(), pointless.request(t, crypto.SHA1, []byte("n"))); err != error(ErrUnauthorized) {
			t.Errorf("a certificate that points nowhere: %+v, %v", answer, err)
		}
		if a.signatures() != 0 || key.signatures() != 7 {
			t.Errorf("%d signatures of the issuing key, %d of the delegate's", a.signatures(), key.signatures())
		}
	})
}

// A delegate that is slow or away is no reason to leave anyone without an
// answer: those with nonces get the common one, unknown serials a refusal.
func TestDelegateIsSpent(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		d, key := a.delegate(t, a.cert.NotAfter)
		r := startAt(t, db, Authority{Certificate: a.cert, Queue: a.queue, OCSP: &OCSP{Delegate: d}})
		l := a.issue(t, db)
		l.ask(t, r)
		stranger := leaf{issuing: a, serial: cert.NewSerial()}
		key.set(func(c *card) { c.delay = time.Second })
		var all sync.WaitGroup
		var mu sync.Mutex
		personal, common, unknown, refused := 0, 0, 0, 0
		for i := range 40 {
			all.Go(func() {
				who := []leaf{l, stranger}[i%2]
				answer, err := r.Answer(t.Context(), who.request(t, crypto.SHA1, []byte{byte(i)}))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == error(ErrUnauthorized) && who == stranger:
					refused++
				case err != nil:
					t.Error(err)
				case who == stranger:
					unknown++
				case answer.Cacheable:
					common++
				default:
					personal++
				}
			})
		}
		all.Wait()
		if personal+common != 20 || unknown+refused != 20 || personal+unknown == 0 || personal+unknown > 5 {
			t.Errorf("%d personal and %d common answers, %d unknown, %d refused", personal, common, unknown, refused)
		}
	})
}

// Concurrent asks for one certificate make one signature, on one replica and on
// two that both hold the key.
func TestOneSignatureForManyAskers(t *testing.T) {
	each(t, func(t *testing.T, one, two *store.DB) {
		a := newIssuing(t, "servers")
		a.set(func(c *card) { c.delay = 50 * time.Millisecond })
		l := a.issue(t, one)
		authority := a.full()
		authority.CRL = nil
		twin := authority
		twin.Queue = newQueue(t, a.card) // the same key on another replica
		replicas := []*Responder{startAt(t, one, authority), startAt(t, two, twin)}
		eventually(t, "notices are heard", func() bool { return replicas[0].Intact() && replicas[1].Intact() })
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() { l.ask(t, replicas[i%2]) })
		}
		all.Wait()
		if n := a.signatures(); n != 1 {
			t.Errorf("%d signatures", n)
		}
	})
}

// A slow key makes nobody wait in vain twice, and signs once what many asked
// for again and again.
func TestSlowKey(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		a.set(func(c *card) { c.delay = 5 * time.Second })
		l := a.issue(t, db)
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		synctest.Wait()
		begun := time.Now()
		l.refusal(t, r, ErrTryLater)
		if took := time.Since(begun); took > answerTime {
			t.Errorf("the first asker waited %v", took)
		}
		for begun = time.Now(); ; time.Sleep(100 * time.Millisecond) {
			asked := time.Now()
			answer, err := r.Answer(t.Context(), l.request(t, crypto.SHA1, nil))
			if err == nil {
				l.check(t, answer)
				break
			}
			if err != error(ErrTryLater) || time.Since(asked) > time.Millisecond || time.Since(begun) > 6*time.Second {
				t.Fatalf("%v after %v", err, time.Since(asked))
			}
		}
		time.Sleep(time.Minute)
		if n := a.signatures(); n != 1 {
			t.Errorf("%d signatures", n)
		}
	})
}

// A key that is away: at once tryLater for what was never signed, the answer
// that there is for the rest; and when it is back, what was wanted is signed.
func TestKeyAway(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		known, missed, fresh := a.issue(t, db), a.issue(t, db), a.issue(t, db)
		known.ask(t, r)
		a.set(func(c *card) { c.away = errors.New("pulled out") })
		missed.refusal(t, r, ErrTryLater) // and so the queue knows
		for _, l := range []leaf{missed, fresh} {
			begun := time.Now()
			l.refusal(t, r, ErrTryLater)
			if took := time.Since(begun); took > 0 {
				t.Errorf("asked in vain for %v", took)
			}
		}
		time.Sleep(7 * time.Hour)
		if o := known.ask(t, r); time.Until(o.NextUpdate) > 2*time.Hour {
			t.Error("who signed this?")
		}
		a.set(func(c *card) { c.away = nil })
		ctx, cancel := signal(t)
		defer cancel()
		go a.queue.Watch(ctx)
		time.Sleep(40 * time.Second)
		if n := a.signatures(); n != 4 {
			t.Errorf("%d signatures; want one each, and one anew", n)
		}
		for _, l := range []leaf{known, missed, fresh} {
			if o := l.ask(t, r); time.Until(o.NextUpdate) < 7*time.Hour {
				t.Error("not signed anew")
			}
		}
	})
}

// A card that was away for a moment: what was claimed for it then is signed
// when it is back, not when the claim has ended.
func TestKeyAwayForAMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		l := a.issue(t, db)
		a.set(func(c *card) { c.away = errors.New("pulled out") })
		l.refusal(t, r, ErrTryLater)
		a.set(func(c *card) { c.away = nil })
		ctx, cancel := signal(t)
		defer cancel()
		go a.queue.Watch(ctx)
		time.Sleep(5 * time.Second)
		if n := a.signatures(); n != 1 {
			t.Fatalf("%d signatures after 5 s; want the one", n)
		}
		l.ask(t, r)
	})
}

// A replica without the key answers, by the one that holds it, within the
// request while that is idle.
func TestKeyOnAnotherReplica(t *testing.T) {
	each(t, func(t *testing.T, one, two *store.DB) {
		a := newIssuing(t, "servers")
		held, remote := a.full(), a.full()
		remote.Queue, held.CRL, remote.CRL = nil, nil, nil
		r := startAt(t, two, remote)
		eventually(t, "notices are heard", r.Intact)
		l, withdrawn, late := a.issue(t, one), a.issue(t, one), a.issue(t, one)
		begun := time.Now()
		late.refusal(t, r, ErrTryLater)
		if took := time.Since(begun); took > answerTime+time.Second {
			t.Errorf("an asker waited %v for nobody", took)
		}
		l.refusal(t, r, ErrTryLater) // at once: it was slow a moment ago
		startAt(t, one, held)
		eventually(t, "what was wanted is signed", func() bool { return a.signatures() == 2 })
		eventually(t, "askers wait again", func() bool { return !r.busy(r.byKeyID[a.keyID]) })
		begun = time.Now()
		if withdrawn.ask(t, r).Status != ocsp.Good || time.Since(begun) > answerTime {
			t.Errorf("answered after %v", time.Since(begun))
		}
		withdrawn.revoke(t, one)
		eventually(t, "the revocation shows", func() bool {
			answer, err := r.Answer(t.Context(), withdrawn.request(t, crypto.SHA1, nil))
			if err == error(ErrTryLater) {
				return false
			}
			if err != nil {
				t.Fatal(err)
			}
			if o := withdrawn.check(t, answer); o.Status != ocsp.Revoked || o.RevocationReason != int(cert.Superseded) {
				t.Fatalf("status %d after the revocation", o.Status)
			}
			return true
		})
		for _, l := range []leaf{l, late} {
			l.ask(t, r)
		}
	})
}

// The good answer dies with the revocation, and those who cache it are told
// before the revocation is confirmed, on all replicas.
func TestRevocation(t *testing.T) {
	each(t, func(t *testing.T, one, two *store.DB) {
		a := newIssuing(t, "servers")
		l := a.issue(t, one)
		authority := a.full()
		authority.CRL = nil
		elsewhere := authority
		elsewhere.Queue = nil
		here, there := startAt(t, one, authority), startAt(t, two, elsewhere)
		var told [2]sync.Map
		for i, r := range []*Responder{here, there} {
			r.Watch(func(keyID string, serial cert.Serial) { told[i].Store(keyID+" "+string(serial), true) }, func(bool) {})
		}
		eventually(t, "notices are heard", func() bool { return here.Intact() && there.Intact() })
		for _, r := range []*Responder{here, there} {
			if o := l.ask(t, r); o.Status != ocsp.Good {
				t.Fatal(o.Status)
			}
		}
		l.revoke(t, one)
		key := a.keyID + " " + string(l.serial)
		if _, ok := told[0].Load(key); !ok {
			t.Error("the revocation was confirmed before this replica's cache knew")
		}
		eventually(t, "the other replica's cache knows", func() bool { _, ok := told[1].Load(key); return ok })
		for _, r := range []*Responder{here, there} {
			if o := l.ask(t, r); o.Status != ocsp.Revoked {
				t.Error("still good")
			}
		}
		if n := a.signatures(); n != 2 {
			t.Errorf("%d signatures", n)
		}
	})
}

// Revoked while its good answer is being signed: that is thrown away and made
// anew.
func TestRevokedWhileSigning(t *testing.T) {
	for _, nonce := range [][]byte{nil, []byte("n")} {
		inBubble(t, func(t *testing.T, db *store.DB) {
			a := newIssuing(t, "servers")
			d, key := a.delegate(t, a.cert.NotAfter)
			l := a.issue(t, db)
			r := startAt(t, db, Authority{Certificate: a.cert, Queue: a.queue, OCSP: &OCSP{Delegate: d}})
			var once sync.Once
			key.set(func(c *card) { c.before = func() { once.Do(func() { l.revoke(t, db) }) } })
			answer, err := r.Answer(t.Context(), l.request(t, crypto.SHA1, nonce))
			if err != nil {
				t.Fatal(err)
			}
			if o := l.check(t, answer); o.Status != ocsp.Revoked {
				t.Errorf("nonce %q: status %d", nonce, o.Status)
			}
			if o := l.ask(t, r); o.Status != ocsp.Revoked {
				t.Errorf("nonce %q: status %d was stored", nonce, o.Status)
			}
		})
	}
}

// News of an answer that was withdrawn may come after the next one was asked
// for: it doesn't end the wait for that.
func TestLateNews(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		l := a.issue(t, db)
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		s := subject{l.serial, hashNames[crypto.SHA1]}
		a.set(func(c *card) { c.before = func() { r.requests.done(s); time.Sleep(100 * time.Millisecond) } })
		if o := l.ask(t, r); o.Status != ocsp.Good {
			t.Errorf("status %d", o.Status)
		}
	})
}

// Refreshed early only for what is asked for, and once.
func TestRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		asked, forgotten := a.issue(t, db), a.issue(t, db)
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		first := asked.ask(t, r)
		forgotten.ask(t, r)
		answer := Answer{ThisUpdate: first.ThisUpdate, NextUpdate: first.NextUpdate}
		time.Sleep(time.Until(answer.RefreshAt()) - time.Second)
		asked.ask(t, r)
		time.Sleep(time.Minute)
		if n := a.signatures(); n != 2 {
			t.Fatalf("%d signatures before the last quarter", n)
		}
		a.set(func(c *card) { c.delay = 5 * time.Second })
		for range 5 {
			begun := time.Now()
			if o := asked.ask(t, r); !o.ProducedAt.Equal(first.ProducedAt) || time.Since(begun) > time.Second {
				t.Error("an asker waited for the new one while there was a valid one")
			}
		}
		time.Sleep(10 * time.Second)
		a.set(func(c *card) { c.delay = 0 })
		if o := asked.ask(t, r); o.ProducedAt.Equal(first.ProducedAt) {
			t.Error("not made anew")
		}
		time.Sleep(3 * time.Hour)
		if n := a.signatures(); n != 3 {
			t.Errorf("%d signatures", n)
		}
		forgotten.ask(t, r) // it has ended: signed on demand again
		if n := a.signatures(); n != 4 {
			t.Errorf("%d signatures", n)
		}
	})
}

// Issue: saturated, issuance keeps at least 95 % of the rate it has without an
// OCSP storm, all answers are fresh in the time that the rest of the budget
// allows, and none is signed twice. Here with a key of 5 signatures a second.
func TestStorm(t *testing.T) {
	const certificates, minutes = 150, 10
	issued := [2]int{}
	for storm := range 2 {
		inBubble(t, func(t *testing.T, db *store.DB) {
			a := newIssuing(t, "servers")
			a.set(func(c *card) { c.delay = 200 * time.Millisecond })
			authority := a.full()
			authority.CRL = nil
			r := startAt(t, db, authority)
			var leaves []leaf
			for range certificates * storm {
				leaves = append(leaves, a.issue(t, db))
			}
			ctx, cancel := signal(t)
			var all sync.WaitGroup
			digest := make([]byte, 32)
			for range 4 { // issuance: always somebody waits
				all.Go(func() {
					for ctx.Err() == nil {
						if _, err := a.queue.Sign(ctx, signer.Request{Class: schedule.Issuance}, digest, crypto.SHA256); err == nil {
							issuedLock.Lock()
							issued[storm]++
							issuedLock.Unlock()
						}
					}
				})
			}
			for _, l := range leaves { // all ask at once, and again until they know
				all.Go(func() {
					for ctx.Err() == nil {
						if _, err := r.Answer(ctx, l.request(t, crypto.SHA1, nil)); err == nil {
							return
						}
						time.Sleep(10 * time.Second)
					}
				})
			}
			time.Sleep(minutes * time.Minute)
			cancel()
			all.Wait()
			synctest.Wait()
			stats := a.queue.Stats()
			fresh := 0
			for _, l := range leaves {
				if _, o, err := db.OCSP(t.Context(), l.serial, "sha1"); err == nil && o.DER != nil {
					fresh++
				}
			}
			signed := int(stats.Signed[schedule.OCSP])
			if signed != fresh {
				t.Errorf("%d signatures for %d answers", signed, fresh)
			}
			// 4 % of 5 a second.
			if want := minutes * 60 * 5 * 4 / 100; storm == 1 && fresh < want*9/10 {
				t.Errorf("%d answers in %d minutes; the budget allows %d", fresh, minutes, want)
			}
		})
	}
	if issued[1] < issued[0]*95/100 {
		t.Errorf("%d issued during the storm, %d without", issued[1], issued[0])
	}
	t.Logf("%d issued during the storm, %d without", issued[1], issued[0])
}

var issuedLock sync.Mutex

// Certificates that end while they wait are not signed for, and leave no row.
func TestWantedTooLate(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		l := a.issue(t, db, func(l *leaf) { l.notAfter = time.Now().Add(10 * time.Minute) })
		a.set(func(c *card) { c.away = errors.New("pulled out") })
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		l.refusal(t, r, ErrTryLater)
		time.Sleep(20 * time.Minute)
		a.set(func(c *card) { c.away = nil })
		ctx, cancel := signal(t)
		defer cancel()
		go a.queue.Watch(ctx)
		time.Sleep(20 * time.Minute)
		l.refusal(t, r, ErrUnauthorized)
		if n := a.signatures(); n != 0 {
			t.Errorf("%d signatures", n)
		}
		if _, o, err := db.OCSP(t.Context(), l.serial, "sha1"); err != nil || o.Serial != "" {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

// Old answers go, so that the database stays as large as what is alive.
func TestSweep(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		authority := a.full()
		authority.CRL, authority.OCSP = nil, &OCSP{Validity: time.Hour}
		r := startAt(t, db, authority)
		l := a.issue(t, db)
		l.ask(t, r)
		time.Sleep(time.Hour + 2*sweepEvery)
		if _, o, err := db.OCSP(t.Context(), l.serial, "sha1"); err != nil || o.Serial != "" {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

// More askers than there is room for are told at once.
func TestTooManyAskers(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		l := a.issue(t, db)
		authority := a.full()
		authority.Queue, authority.CRL = nil, nil
		r := startAt(t, db, authority)
		synctest.Wait()
		var all sync.WaitGroup
		var mu sync.Mutex
		var waits []time.Duration
		for range 2 * maxWaiting {
			all.Go(func() {
				begun := time.Now()
				l.refusal(t, r, ErrTryLater)
				mu.Lock()
				defer mu.Unlock()
				waits = append(waits, time.Since(begun))
			})
		}
		all.Wait()
		slices.Sort(waits)
		if waits[maxWaiting-1] >= answerTime || waits[len(waits)-1] != answerTime {
			t.Errorf("the first half waited up to %v, the rest %v", waits[maxWaiting-1], waits[len(waits)-1])
		}
	})
}

// An asker who leaves stops waiting, and others get their answer.
func TestAskerLeaves(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		a := newIssuing(t, "servers")
		a.set(func(c *card) { c.delay = time.Second })
		l := a.issue(t, db)
		authority := a.full()
		authority.CRL = nil
		r := startAt(t, db, authority)
		ctx, cancel := signal(t)
		time.AfterFunc(100*time.Millisecond, cancel)
		begun := time.Now()
		if _, err := r.Answer(ctx, l.request(t, crypto.SHA1, nil)); err == nil || time.Since(begun) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		l.ask(t, r)
		if n := a.signatures(); n != 1 {
			t.Errorf("%d signatures", n)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	a, other := newIssuing(t, "servers"), newIssuing(t, "clients")
	good, _ := a.delegate(t, a.cert.NotAfter)
	strangers, _ := other.delegate(t, other.cert.NotAfter)
	changed := func(f func(c *x509.Certificate)) Authority {
		mine := *a.cert
		f(&mine)
		return Authority{Certificate: &mine, Queue: a.queue, OCSP: &OCSP{}, CRL: &CRL{}}
	}
	ocspOf := func(o OCSP) Authority { return Authority{Certificate: a.cert, Queue: a.queue, OCSP: &o} }
	crlOf := func(c CRL) Authority { return Authority{Certificate: a.cert, Queue: a.queue, CRL: &c} }
	for name, c := range map[string]struct {
		authorities []Authority
		want        string
	}{
		"no key identifier":      {[]Authority{changed(func(c *x509.Certificate) { c.SubjectKeyId = nil })}, "key identifier"},
		"no cRLSign":             {[]Authority{changed(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })}, "cRLSign"},
		"no digitalSignature":    {[]Authority{changed(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })}, "digitalSignature"},
		"another key":            {[]Authority{{Certificate: a.cert, Queue: other.queue}}, "not that of"},
		"twice":                  {[]Authority{a.full(), a.full()}, "list each once"},
		"stranger's delegate":    {[]Authority{ocspOf(OCSP{Delegate: strangers})}, "responder"},
		"delegate, another key":  {[]Authority{ocspOf(OCSP{Delegate: &Delegate{good.Certificate, a.queue}})}, "not that of"},
		"answers hardly valid":   {[]Authority{ocspOf(OCSP{Validity: time.Second})}, "OCSP"},
		"answers valid too long": {[]Authority{ocspOf(OCSP{Validity: 11 * 24 * time.Hour})}, "OCSP"},
		"lists hardly valid":     {[]Authority{crlOf(CRL{Validity: time.Second})}, "CRL"},
		"lists never valid":      {[]Authority{crlOf(CRL{Validity: -time.Hour})}, "CRL"},
		"too many shards":        {[]Authority{crlOf(CRL{Shards: MaxShards + 1, PointURL: func(int) string { return "" }})}, "shards"},
		"shards nowhere":         {[]Authority{crlOf(CRL{Shards: 2})}, "PointURL"},
	} {
		if _, err := New(Options{Authorities: c.authorities}); err == nil || !bytes.Contains([]byte(err.Error()), []byte(c.want)) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}
