package responder

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/store"
)

const (
	// Lists that take long to make are made less often, so that a storm of
	// revocations costs one part in six of a database's or an idle key's time
	// (of a busy one it gets CRLs' share), and waits at most maxRest.
	restFactor = 5
	maxRest    = time.Minute
	// maxRetry bounds the doubling pause after failures.
	maxRetry = time.Minute
	// makeTime bounds the making of one list: reading a million entries takes
	// seconds, and CRLs' share of a card that makes two signatures a second
	// lets one through every fifty.
	makeTime = 5 * time.Minute
	// A maker holds its authority's lease for listLease and renews it often
	// enough; after a crash another replica goes on when it has ended.
	listLease = time.Minute
	// sweepParts is how many parts of old lists, 1 MiB each, go in one
	// transaction.
	sweepParts = 8
)

var crlRequest = signer.Request{Class: schedule.CRL}

// makeLists makes an authority's lists and keeps them fresh until ctx ends.
func (r *Responder) makeLists(ctx context.Context, a *authority) {
	failures := 0
	for {
		begun := time.Now()
		made, err := r.makeRound(ctx, a)
		rest := time.Duration(0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			rest = min(listsEvery<<min(failures, 5), maxRetry)
			failures++
		default:
			failures = 0
			if made {
				rest = min(restFactor*time.Since(begun), maxRest)
			}
		}
		// Nothing wakes it from a rest, for which there is a reason.
		if !pause(ctx, nil, rest) || !pause(ctx, a.lists.woken, r.untilDue(a)) {
			return
		}
	}
}

// untilDue is how long makeLists may sleep if nothing wakes it.
func (r *Responder) untilDue(a *authority) time.Duration {
	wait := r.listening()
	for _, l := range a.lists.lists() {
		wait = min(wait, a.due(l.current.Load()).Sub(r.clock()))
	}
	return max(wait, listsEvery) // one may be due that another replica is making
}

// due is when a list is made anew though nothing changed: after a third of its
// life, since the key may be away for the other two.
func (a *authority) due(l *List) time.Time {
	if l == nil {
		return time.Time{}
	}
	return l.ThisUpdate.Add(backdate + a.CRL.Validity/3)
}

// makeRound makes those lists that need it. One's trouble doesn't keep the
// others from being made, and no revocation waits until all are.
func (r *Responder) makeRound(ctx context.Context, a *authority) (made bool, err error) {
	if err := r.countShards(ctx, a); err != nil {
		return false, err
	}
	var faults []error
	for again := true; again; {
		changed, due, err := r.needing(ctx, a)
		if err != nil {
			return made, errors.Join(append(faults, err)...)
		}
		again = false
		for i, l := range append(changed, due...) {
			m, err := r.makeList(ctx, a, l)
			if m == nil && err == nil { // another replica's work
				continue
			}
			if err != nil && ctx.Err() != nil {
				return made, ctx.Err() // we stop; that is no trouble
			}
			made = true
			faults = append(faults, err)
			r.report(a, l, m, err)
			if errors.Is(err, signer.ErrAway) { // the others need the same key
				break
			}
			if again = err == nil && i >= len(changed) && a.lists.wasWoken(); again {
				break
			}
		}
	}
	return made, errors.Join(faults...)
}

// needing returns the lists that lack a revocation, and those that are due for
// other reasons.
func (r *Responder) needing(ctx context.Context, a *authority) (changed, due []*list, err error) {
	for _, l := range a.lists.lists() {
		revision, err := r.db.Number(ctx, store.RevisionName(a.keyID, l.shard))
		if err != nil {
			return nil, nil, err
		}
		switch current := l.current.Load(); {
		case current != nil && current.revision != revision:
			changed = append(changed, l)
		case r.needed(a, l, revision):
			due = append(due, l)
		}
	}
	return changed, due, nil
}

// needed reports whether a list must be made anew: there is none, it lacks a
// revocation, or it is a third over. One that seems to be of the future, as
// after a clock went back, tells nothing.
func (r *Responder) needed(a *authority, l *list, revision int64) bool {
	current, now := l.current.Load(), r.clock()
	return current == nil || current.revision != revision || !now.Before(a.due(current)) || current.ThisUpdate.After(now)
}

func (r *Responder) report(a *authority, l *list, m *Making, err error) {
	if m == nil {
		m = &Making{}
	}
	m.IssuerKeyID, m.Shard, m.Err = a.keyID, l.shard, err
	if err != nil {
		var goodUntil time.Time
		if current := l.current.Load(); current != nil {
			goodUntil = current.NextUpdate
		}
		r.log.Error("no new CRL could be made; the old one, if any, is still served", "issuer", a.Certificate.Subject.String(),
			"key_id", a.keyID, "shard", l.shard, "error", err, "good_until", goodUntil)
	} else {
		r.log.Info("CRL published", "issuer", a.Certificate.Subject.String(), "key_id", a.keyID, "shard", l.shard,
			"number", m.Number, "entries", m.Entries, "bytes", m.Bytes, "next_update", m.NextUpdate)
	}
	if r.observe.Made != nil {
		r.observe.Made(*m)
	}
}

// makeList makes a list under the lease of its authority, unless another
// replica is at it or has done it: then it returns nil.
func (r *Responder) makeList(ctx context.Context, a *authority, l *list) (*Making, error) {
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	if !a.Queue.Usable() { // another holder's may be
		return &Making{}, fmt.Errorf("%w: %s", signer.ErrAway, a.Queue.Stats().Away)
	}
	mine, err := r.leaseLists(ctx, a, listLease)
	if err != nil || !mine {
		return nil, err
	}
	var holding sync.WaitGroup
	held, release := context.WithCancel(ctx)
	holding.Go(func() {
		every(held, listLease/3, func() {
			r.attempt(held, "hold the lease of a CRL", func(ctx context.Context) error {
				_, err := r.leaseLists(ctx, a, listLease)
				return err
			})
		})
	})
	defer func() {
		release()
		holding.Wait()
		// Also when we stop: the next maker needn't wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		r.attempt(ctx, "give the lease of a CRL back", func(ctx context.Context) error {
			_, err := r.leaseLists(ctx, a, 0)
			return err
		})
	}()
	head, err := r.db.CRL(ctx, a.keyID, l.shard)
	if err == nil {
		err = r.load(ctx, l, head)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	// Read before the entries: what is revoked meanwhile shows next time.
	revision, err := r.db.Number(ctx, store.RevisionName(a.keyID, l.shard))
	if err != nil || !r.needed(a, l, revision) {
		return nil, err
	}
	// After the revision: another replica may have begun a shard, and revoked
	// in it.
	if err := r.countShards(ctx, a); err != nil {
		return nil, err
	}
	return r.renew(ctx, a, l, revision)
}

func (r *Responder) leaseLists(ctx context.Context, a *authority, long time.Duration) (mine bool, err error) {
	err = r.db.Update(ctx, func(tx *store.Tx) error {
		mine, err = tx.Lease("crl/"+a.keyID, r.replica, tx.Now().Add(long))
		return err
	})
	return mine, err
}

// renew makes a list, stores it and puts it into the place of the old one.
func (r *Responder) renew(ctx context.Context, a *authority, l *list, revision int64) (*Making, error) {
	begun := time.Now()
	m := &Making{}
	defer func() { m.Took = max(time.Since(begun), 0) }()
	now := r.clock().UTC().Truncate(time.Second)
	unsigned, number, err := r.build(ctx, a, l, now)
	if err != nil {
		return m, err
	}
	der, err := unsigned.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return a.Queue.Sign(ctx, crlRequest, digest, opts)
	})
	if err != nil {
		return m, err
	}
	newer := &List{
		DER: der, Number: number, ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(a.CRL.Validity),
		revision: revision, entries: unsigned.Entries,
	}
	m.Number, m.Entries, m.Bytes, m.NextUpdate = number, newer.entries, len(der), newer.NextUpdate
	return m, r.store(ctx, l, newer)
}

// build encodes a list from what is in the database, with the next number.
func (r *Responder) build(ctx context.Context, a *authority, l *list, now time.Time) (*revocation.Unsigned, int64, error) {
	point := ""
	if l.shard > 0 {
		if a.CRL.PointURL == nil {
			return nil, 0, fmt.Errorf("shard %d was used once, and there is no URL for it any more", l.shard)
		}
		point = a.CRL.PointURL(l.shard)
	}
	number, err := r.nextNumber(ctx, a)
	if err != nil {
		return nil, 0, err
	}
	// A certificate stays on the list until one regular list was issued after
	// its end (RFC 5280 section 3.3). Lists are made each third of Validity,
	// so one whole Validity is time enough, and nobody need remember which
	// list was made when.
	entries := r.entries(ctx, a, l.shard, now.Add(-a.CRL.Validity))
	expect, err := r.expected(ctx, l)
	if err != nil {
		return nil, 0, err
	}
	unsigned, err := revocation.Build(revocation.List{
		Issuer: a.Certificate, Number: number, ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(a.CRL.Validity),
		Point: point, Expect: expect, Entries: entries,
	})
	return unsigned, number, err
}

// expected is about how many entries there will be, so that memory is taken
// once: as many as last time and some more, else they are counted.
func (r *Responder) expected(ctx context.Context, l *list) (int, error) {
	if last := l.current.Load(); last != nil {
		return last.entries + last.entries/16 + 16, nil
	}
	shard := l.shard
	if shard == 0 {
		shard = store.AllShards // the full list
	}
	return r.db.CountRevoked(ctx, l.keyID, shard)
}

// nextNumber takes a list's number. Numbers rise, also after a backup was
// restored: they are never below the time in milliseconds.
func (r *Responder) nextNumber(ctx context.Context, a *authority) (number int64, err error) {
	err = r.db.Update(ctx, func(tx *store.Tx) error {
		if number, err = tx.NextNumber("crl/"+a.keyID, tx.Now().UnixMilli()); err != nil {
			return err
		}
		return tx.Audit(audit.Entry{
			Action: "crl.number", Actor: "server:" + r.replica, Object: a.keyID, Detail: map[string]any{"number": number},
		})
	})
	return number, err
}

// store writes a list to the database, part by part so that no writer waits
// behind it, serves it and tells the other replicas.
func (r *Responder) store(ctx context.Context, l *list, newer *List) error {
	// It is signed: that shall not be in vain because we stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTime)
	defer cancel()
	head := store.CRL{
		IssuerKeyID: l.keyID, Shard: l.shard, Number: newer.Number, Revision: newer.revision,
		ThisUpdate: newer.ThisUpdate, NextUpdate: newer.NextUpdate, Entries: int64(newer.entries), Size: int64(len(newer.DER)),
	}
	for rest := newer.DER; len(rest) > 0; head.Parts++ {
		body := rest[:min(len(rest), store.CRLPartSize)]
		rest = rest[len(body):]
		err := r.db.Update(ctx, func(tx *store.Tx) error { return tx.PutCRLPart(l.keyID, l.shard, head.Number, head.Parts, body) })
		if err != nil {
			return err
		}
	}
	published := false
	err := r.db.Update(ctx, func(tx *store.Tx) (err error) {
		if published, err = tx.PublishCRL(head); err != nil || !published {
			return err
		}
		return tx.Notify(topicList, l.keyID)
	})
	if err != nil {
		return err
	}
	if !published { // we were taken for dead
		return fmt.Errorf("another replica made a newer list than number %d meanwhile", head.Number)
	}
	l.loading.Lock()
	l.offer(newer)
	l.loading.Unlock()
	r.attempt(ctx, "sweep old CRLs", func(ctx context.Context) error { return r.sweepLists(ctx, l, head.Number) })
	return nil
}

// sweepLists deletes the bytes of older lists.
func (r *Responder) sweepLists(ctx context.Context, l *list, keep int64) error {
	for n := sweepParts; n == sweepParts; {
		err := r.db.Update(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.SweepCRLParts(l.keyID, l.shard, keep, sweepParts)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
