package storetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/store"
)

// list stores the parts of a list, and returns its head.
func (f *fixture) list(key string, shard int, number int64, parts ...string) store.CRL {
	f.t.Helper()
	now := f.Now()
	c := store.CRL{
		IssuerKeyID: key, Shard: shard, Number: number, Revision: 1 << 40, ThisUpdate: now, NextUpdate: now.Add(time.Hour), Entries: 7, Parts: len(parts),
	}
	for n, part := range parts {
		c.Size += int64(len(part))
		f.update(func(tx *store.Tx) error { return tx.PutCRLPart(key, shard, number, n, []byte(part)) })
	}
	return c
}

func publish(c store.CRL) func(*store.Tx) (bool, error) {
	return func(tx *store.Tx) (bool, error) { return tx.PublishCRL(c) }
}

func (f *fixture) body(c store.CRL) string {
	f.t.Helper()
	return string(must(f.db.CRLBody(f.ctx(), c)).or(f.t))
}

// testCRLs: a list is there whole or not at all, and numbers never go back
// (RFC 5280 section 5.2.3).
func testCRLs(t *testing.T, f *fixture) {
	ctx := t.Context()
	_, err := f.db.CRL(ctx, issuerKey, 0)
	wantError(t, err, store.ErrNotFound)
	big := string(bytes.Repeat([]byte{0, 255, 'x'}, store.CRLPartSize)[:store.CRLPartSize])
	first := f.list(issuerKey, 0, 5, big, "rest")
	for name, torn := range map[string]func(*store.CRL){
		"a part is missing":  func(c *store.CRL) { c.Parts++ },
		"a byte is missing":  func(c *store.CRL) { c.Size++ },
		"another's number":   func(c *store.CRL) { c.Number++ },
		"another shard":      func(c *store.CRL) { c.Shard++ },
		"another key":        func(c *store.CRL) { c.IssuerKeyID = otherKey },
		"no parts":           func(c *store.CRL) { c.Parts, c.Size = 0, 0 },
		"a part not counted": func(c *store.CRL) { c.Parts-- },
	} {
		c := first
		torn(&c)
		if err := f.db.Update(ctx, func(tx *store.Tx) error { _, err := tx.PublishCRL(c); return err }); err == nil {
			t.Errorf("%s, and it was published", name)
		}
	}
	_, err = f.db.CRL(ctx, issuerKey, 0)
	wantError(t, err, store.ErrNotFound)
	f.changed(true, publish(first))
	f.changed(false, publish(first)) // the slower of two
	equal(t, must(f.db.CRL(ctx, issuerKey, 0)).or(t), first)
	equal(t, f.body(first) == big+"rest", true)

	older, second, shard, other := f.list(issuerKey, 0, 4, "older"), f.list(issuerKey, 0, 6, "second"), f.list(issuerKey, 2, 1, "shard"), f.list(otherKey, 0, 1, "other")
	making := f.list(issuerKey, 0, 7, "not yet")
	f.changed(false, publish(older))
	for _, c := range []store.CRL{second, other, shard} {
		f.changed(true, publish(c))
	}
	equal(t, must(f.db.CRLs(ctx)).or(t), []store.CRL{other, second, shard})
	equal(t, f.body(second), "second")
	equal(t, f.body(first) == big+"rest", true) // for those who are reading it

	sweep := func(limit, want int) {
		t.Helper()
		f.update(func(tx *store.Tx) error {
			n, err := tx.SweepCRLParts(issuerKey, 0, second.Number, limit)
			equal(t, n, want)
			return err
		})
	}
	sweep(2, 2)
	sweep(2, 1)
	sweep(2, 0)
	_, err = f.db.CRLPart(ctx, first, 0)
	wantError(t, err, store.ErrNotFound)
	_, err = f.db.CRLPart(ctx, second, 1)
	wantError(t, err, store.ErrNotFound)
	equal(t, f.body(second)+f.body(shard)+f.body(other)+f.body(making), "secondshardothernot yet")

	again := f.list(issuerKey, 0, 8, "one", "two")
	f.update(func(tx *store.Tx) error { return tx.PutCRLPart(issuerKey, 0, 8, 1, []byte("2")) }) // its maker tries again
	again.Size = 4
	f.changed(true, publish(again))
	equal(t, f.body(again), "one2")
	for _, bad := range []string{"", big + "x"} {
		if err := f.db.Update(ctx, func(tx *store.Tx) error { return tx.PutCRLPart(issuerKey, 0, 9, 0, []byte(bad)) }); err == nil {
			t.Errorf("a part of %d bytes was stored", len(bad))
		}
	}
	// Of those who made the same list, one publishes it.
	race9 := f.list(issuerKey, 9, 1, "same")
	equal(t, race(func(int) (won bool) {
		if err := f.db.Update(ctx, func(tx *store.Tx) (err error) { won, err = tx.PublishCRL(race9); return err }); err != nil {
			t.Error(err)
		}
		return won
	}), 1)
}

// testRevokedShards: each shard has its own, the full list all.
func testRevokedShards(t *testing.T, f *fixture) {
	at := f.Now()
	all := map[cert.Serial]int{}
	f.update(func(tx *store.Tx) error {
		for n := range 2300 { // more than the page it reads by, in all and in one
			c := f.certificate("a.example")
			c.State, c.CRLShard, c.Revoked.At = cert.Issued, min(n%7, 3), at
			all[c.Serial] = c.CRLShard
			if err := tx.InsertCertificate(c, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	f.issued(issuerKey)
	for shard := store.AllShards; shard < 5; shard++ {
		last, seen := cert.Serial(""), map[cert.Serial]bool{}
		err := f.db.RevokedCertificates(t.Context(), issuerKey, shard, at, func(s cert.Serial, _ time.Time, _ cert.Reason, _ time.Time) error {
			in, ok := all[s]
			if !ok || seen[s] || shard >= 0 && (in != shard || s <= last) {
				t.Errorf("list of shard %d: %s of shard %d, after %s", shard, s, in, last)
			}
			last, seen[s] = s, true
			return nil
		})
		wantError(t, err, nil)
		if n := must(f.db.CountRevoked(t.Context(), issuerKey, shard)).or(t); n != len(seen) {
			t.Errorf("list of shard %d: %d counted, %d listed", shard, n, len(seen))
		}
		for s, in := range all {
			if (shard == store.AllShards || shard == in) && !seen[s] {
				t.Fatalf("list of shard %d: %s of shard %d is missing", shard, s, in)
			}
		}
	}
}
