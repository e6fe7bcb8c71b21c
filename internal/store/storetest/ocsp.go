package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/store"
)

// issued inserts an issued certificate of that key.
func (f *fixture) issued(key string) cert.Certificate {
	f.t.Helper()
	c := f.certificate("a.example")
	c.State, c.IssuerKeyID = cert.Issued, key
	return f.insertCertificate(c)
}

// response is one about the certificate, valid for a day from now.
func (f *fixture) response(c cert.Certificate, hash string, revoked bool) store.OCSPResponse {
	now := f.Now()
	return store.OCSPResponse{
		Serial: c.Serial, Hash: hash, IssuerKeyID: c.IssuerKeyID, DER: []byte{0x30, 0, 255}, ThisUpdate: now, NextUpdate: now.Add(24 * time.Hour), Revoked: revoked,
	}
}

func want(c cert.Certificate, hash string, at time.Time) func(*store.Tx) (bool, error) {
	return func(tx *store.Tx) (bool, error) { return tx.WantOCSP(c.Serial, hash, c.IssuerKeyID, at) }
}

func put(r store.OCSPResponse) func(*store.Tx) (bool, error) {
	return func(tx *store.Tx) (bool, error) { return tx.PutOCSP(r) }
}

func revoke(c cert.Certificate, at time.Time) func(*store.Tx) (bool, error) {
	return func(tx *store.Tx) (bool, error) {
		return tx.RevokeCertificate(c.Serial, cert.Revoked{At: at, Reason: cert.KeyCompromise})
	}
}

// stored checks what OCSP returns about a certificate.
func (f *fixture) stored(c cert.Certificate, hash string, revoked cert.Revoked, response store.OCSPResponse) {
	f.t.Helper()
	s, r, err := f.db.OCSP(f.ctx(), c.Serial, hash)
	wantError(f.t, err, nil)
	equal(f.t, s, store.OCSPSubject{IssuerKeyID: c.IssuerKeyID, NotAfter: c.NotAfter, Revoked: revoked})
	equal(f.t, r, response)
}

// testOCSP: an answer lasts until a newer one or a revocation takes its place.
func testOCSP(t *testing.T, f *fixture) {
	ctx := t.Context()
	planned := f.insertCertificate(f.certificate("b.example"))
	for _, none := range []cert.Certificate{planned, f.certificate("c.example")} {
		_, _, err := f.db.OCSP(ctx, none.Serial, "sha1")
		wantError(t, err, store.ErrNotFound)
		f.changed(false, want(none, "sha1", f.Now()))
		f.changed(false, put(f.response(none, "sha1", false)))
	}
	c := f.issued(issuerKey)
	good := cert.Revoked{}
	f.stored(c, "sha1", good, store.OCSPResponse{})

	at := f.Now()
	wanted := store.OCSPResponse{Serial: c.Serial, Hash: "sha1", IssuerKeyID: issuerKey, WantedAt: at}
	f.changed(true, want(c, "sha1", at))
	f.changed(false, want(c, "sha1", f.Now()))
	f.stored(c, "sha1", good, wanted)
	f.stored(c, "sha256", good, store.OCSPResponse{}) // another answer

	first := f.response(c, "sha1", false)
	f.changed(false, put(f.response(c, "sha1", true))) // it isn't revoked
	f.stored(c, "sha1", good, wanted)
	f.changed(true, put(first))
	f.stored(c, "sha1", good, first) // and no longer wanted
	f.Add(time.Hour)
	second := f.response(c, "sha1", false)
	f.changed(true, put(second))
	f.changed(false, put(first)) // the slower of two
	f.stored(c, "sha1", good, second)
	second.WantedAt = f.Now() // refreshed early: it is served meanwhile
	f.changed(true, want(c, "sha1", second.WantedAt))
	f.stored(c, "sha1", good, second)

	late, other := f.response(c, "sha1", false), f.response(c, "sha256", false)
	f.changed(true, put(other))
	at = f.Now()
	f.changed(true, revoke(c, at))
	revoked := cert.Revoked{At: at, Reason: cert.KeyCompromise}
	for _, hash := range []string{"sha1", "sha256"} {
		s, r, err := f.db.OCSP(ctx, c.Serial, hash)
		if err != nil || s.Revoked != revoked || r.DER != nil || !r.Revoked || r.WantedAt.IsZero() || !r.ThisUpdate.IsZero() || !r.NextUpdate.IsZero() {
			t.Fatalf("%s after the revocation: %+v, %+v, %v", hash, s, r, err)
		}
	}
	f.changed(false, put(late)) // signed before, and put after it
	bad := f.response(c, "sha1", true)
	f.changed(true, put(bad))
	f.changed(false, revoke(c, f.Now()))
	f.stored(c, "sha1", revoked, bad)

	// What nobody asked for isn't wanted by a revocation either.
	quiet := f.issued(issuerKey)
	f.changed(true, revoke(quiet, at))
	f.stored(quiet, "sha1", revoked, store.OCSPResponse{})
	f.changed(true, want(quiet, "sha1", at))
	f.stored(quiet, "sha1", revoked, store.OCSPResponse{Serial: quiet.Serial, Hash: "sha1", IssuerKeyID: issuerKey, Revoked: true, WantedAt: at})
}

// A revocation is rolled back with its transaction, and the good answer stays.
func testOCSPRollback(t *testing.T, f *fixture) {
	c := f.issued(issuerKey)
	r := f.response(c, "sha1", false)
	f.changed(true, put(r))
	no := errors.New("no")
	wantError(t, f.db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := revoke(c, tx.Now())(tx)
		return errors.Join(no, err)
	}), no)
	f.stored(c, "sha1", cert.Revoked{}, r)
}

var otherKey = strings.Repeat("0b", 20)

// testClaimOCSP: the holder of a key works off its wants, revoked ones first.
func testClaimOCSP(t *testing.T, f *fixture) {
	var all []cert.Certificate
	names := map[cert.Serial]string{}
	for n := range 6 {
		key := issuerKey
		if n == 5 {
			key = otherKey
		}
		c := f.issued(key)
		all, names[c.Serial] = append(all, c), string(rune('0'+n))
	}
	start := f.Now()
	for n, at := range []int{3, 1, 2, 5, 4, 0} {
		f.changed(true, want(all[n], "sha1", start.Add(time.Duration(at)*time.Second)))
	}
	f.changed(true, revoke(all[4], start)) // wanted before, said good or nothing yet
	var until time.Time                    // of the last claims
	claim := func(limit int, keys []string, want string) {
		t.Helper()
		var got strings.Builder
		equal(t, must(f.db.OCSPWanted(t.Context(), keys, f.Now())).or(t), want != "")
		f.update(func(tx *store.Tx) error {
			got.Reset()
			until = tx.Now().Add(time.Minute)
			list, err := tx.ClaimOCSP(keys, tx.Now(), time.Minute, limit)
			for _, r := range list {
				got.WriteString(names[r.Serial])
				if r.DER != nil || r.Hash != "sha1" || r.WantedAt.IsZero() || !slices.Contains(keys, r.IssuerKeyID) || r.Revoked != (r.Serial == all[4].Serial) {
					t.Errorf("claimed %+v", r)
				}
			}
			return err
		})
		if got.String() != want {
			t.Fatalf("claimed %q, want %q", got.String(), want)
		}
	}
	claim(10, nil, "")
	claim(10, []string{"00"}, "")
	claim(2, []string{issuerKey}, "41")
	claim(2, []string{issuerKey, otherKey}, "205")
	claim(2, []string{issuerKey}, "3")
	claim(2, []string{issuerKey, otherKey}, "")
	f.changed(false, put(f.response(all[4], "sha1", false)))
	f.changed(true, put(f.response(all[4], "sha1", true)))
	f.changed(true, put(f.response(all[1], "sha1", false)))
	f.Add(time.Minute) // whoever claimed the others didn't make it
	claim(10, []string{otherKey, issuerKey}, "5203")
	back := func(r store.OCSPResponse, until time.Time) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.ReturnOCSP(r, until) }
	}
	two := f.response(all[2], "sha1", false)
	f.changed(false, back(two, until.Add(time.Second))) // another's claim
	f.changed(false, back(f.response(all[2], "sha256", false), until))
	f.changed(false, back(f.response(all[1], "sha1", false), until)) // no longer wanted
	f.changed(true, back(two, until))
	f.changed(false, back(two, until))
	claim(10, []string{otherKey, issuerKey}, "2")
	f.Add(48 * time.Hour) // the certificates have ended
	claim(10, []string{otherKey, issuerKey}, "")
}

func testSweepOCSP(t *testing.T, f *fixture) {
	answered, refreshed, unanswered := f.issued(issuerKey), f.issued(issuerKey), f.issued(issuerKey)
	sweep := func(limit, want int) {
		t.Helper()
		f.update(func(tx *store.Tx) error {
			n, err := tx.SweepOCSP(tx.Now(), limit)
			equal(t, n, want)
			return err
		})
	}
	for _, c := range []cert.Certificate{answered, refreshed} {
		for _, hash := range []string{"sha1", "sha256"} {
			r := f.response(c, hash, false)
			r.NextUpdate = f.Now().Add(time.Hour)
			f.changed(true, put(r))
		}
	}
	f.changed(true, want(unanswered, "sha1", f.Now()))
	f.changed(true, want(refreshed, "sha1", f.Now()))
	sweep(10, 0)
	f.Add(2 * time.Hour) // the answers have ended
	sweep(2, 2)
	sweep(2, 1)
	sweep(2, 0)
	_, r, err := f.db.OCSP(t.Context(), refreshed.Serial, "sha1")
	if err != nil || r.DER == nil || r.WantedAt.IsZero() {
		t.Fatalf("what is wanted anew was swept: %+v, %v", r, err)
	}
	f.Add(24 * time.Hour) // the certificates too
	sweep(10, 2)
	f.stored(unanswered, "sha1", cert.Revoked{}, store.OCSPResponse{})
}

// testOCSPRaces: many at once want, claim, sign and revoke. No answer is
// claimed twice, and nothing good outlives a revocation.
func testOCSPRaces(t *testing.T, f *fixture) {
	const jobs = 100
	var all []cert.Certificate
	f.update(func(tx *store.Tx) error {
		all = nil
		for range jobs {
			c := f.certificate("a.example")
			c.State = cert.Issued
			all = append(all, c)
			if err := tx.InsertCertificate(c, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	update := func(fn func(tx *store.Tx) (bool, error)) (did bool) {
		if err := f.db.Update(t.Context(), func(tx *store.Tx) (err error) { did, err = fn(tx); return err }); err != nil {
			t.Error(err)
		}
		return did
	}
	now := f.Now()
	equal(t, race(func(int) bool { return update(want(all[0], "sha1", now)) }), 1)
	for _, c := range all[1:] {
		f.changed(true, want(c, "sha1", now))
	}
	now = f.Now()
	var mu sync.Mutex
	claimed := map[cert.Serial]int{}
	race(func(int) bool {
		for range 10 * jobs { // ends long before, when nothing is left
			var got []store.OCSPResponse
			update(func(tx *store.Tx) (_ bool, err error) {
				got, err = tx.ClaimOCSP([]string{issuerKey}, now, time.Hour, 7)
				return true, err
			})
			mu.Lock()
			for _, r := range got {
				claimed[r.Serial]++
			}
			done := len(claimed) == jobs
			mu.Unlock()
			if done {
				return true
			}
		}
		return false
	})
	for _, c := range all {
		if claimed[c.Serial] != 1 {
			t.Fatalf("%s was claimed %d times", c.Serial, claimed[c.Serial])
		}
	}
	// Each is signed as good while another revokes it.
	race(func(n int) bool {
		for i, c := range all {
			if i%(racers/2) != n/2 {
				continue
			}
			if n%2 == 0 {
				update(put(f.response(c, "sha1", false)))
			} else {
				update(revoke(c, now))
			}
		}
		return true
	})
	for _, c := range all {
		s, r, err := f.db.OCSP(t.Context(), c.Serial, "sha1")
		if err != nil || s.Revoked.At.IsZero() || r.DER != nil || !r.Revoked || r.WantedAt.IsZero() {
			t.Fatalf("revoked while it was signed: %+v, %+v, %v", s, r, err)
		}
	}
}
