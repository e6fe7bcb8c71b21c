package responder

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/store"
)

const (
	// wantsEvery is how often wants are looked for; notices come sooner, but
	// for claims that have ended and keys that have come back.
	wantsEvery = 2 * time.Second
	// maxWindow is how many answers may be on their way at once, from the
	// claim to the database, for a key that signs in no time: so that commits
	// are shared.
	maxWindow = 32
	// commitTime is about what claiming and storing take: as many answers
	// are on their way as a key signs in it, so that it isn't idle meanwhile.
	commitTime = 20 * time.Millisecond
	// leastLease and mostLease bound for how long a claim lasts. Its holder
	// doesn't sign after its end, so a short one would waste a turn in the
	// queue; after a crash others wait for it to end.
	leastLease = 30 * time.Second
	mostLease  = 15 * time.Minute
	// sweepEvery and sweepBatch: old answers go in small transactions.
	sweepEvery = time.Minute
	sweepLease = 3 * time.Minute
	sweepBatch = 500
)

// worker signs the answers of one authority that are wanted.
type worker struct {
	queue   *signer.Queue
	woken   chan struct{} // has a value when there may be something to do
	backlog atomic.Bool   // more is wanted than is on its way
}

func newWorker(q *signer.Queue) *worker { return &worker{queue: q, woken: make(chan struct{}, 1)} }

var ocspRequest = signer.Request{Class: schedule.OCSP}

// wake has the worker look for work; nil is another replica's.
func (w *worker) wake() {
	if w == nil {
		return
	}
	select {
	case w.woken <- struct{}{}:
	default: // it will look anyway
	}
}

// busy reports whether an answer wanted now would take long. Of another
// replica's key nothing is known here.
func (w *worker) busy() bool {
	return w != nil && (w.backlog.Load() || !w.queue.Usable() || w.queue.Wait(ocspRequest) > busyWait)
}

// window is how many answers may be on their way: few, so that those who wait
// do so in the database and the most urgent are claimed first, and one more
// than the key signs at once, so that it is never idle for us.
func (w *worker) window() int {
	parallel := max(w.queue.Stats().Parallel, 1)
	return min(parallel+1+int(w.queue.Rate()*commitTime.Seconds()), max(maxWindow, parallel+1))
}

// lease is for how long to claim so many.
func (w *worker) lease(n int) time.Duration {
	return min(leastLease+4*w.queue.Wait(ocspRequest)*time.Duration(n), mostLease)
}

// work claims and signs what is wanted of the authority until ctx ends.
func (r *Responder) work(ctx context.Context, a *authority) {
	w := a.worker
	running, finished := 0, make(chan struct{})
	defer func() {
		for ; running > 0; running-- {
			<-finished
		}
	}()
	for look := true; ; {
		// Several at a time, since each claim costs a commit.
		if free := w.window() - running; look && free > 0 && (running == 0 || free >= w.window()/2) && w.queue.Usable() {
			claimed, until := r.claim(ctx, a, free)
			for _, o := range claimed {
				running++
				go func() {
					r.serve(ctx, a, o, until)
					finished <- struct{}{}
				}()
			}
			look = len(claimed) == free && r.wanted(ctx, a)
			w.backlog.Store(look)
		}
		select {
		case <-finished:
			running--
		case <-w.woken:
			look = true
		case <-ctx.Done():
			return
		}
	}
}

// claim takes wanted answers that nobody works on.
func (r *Responder) claim(ctx context.Context, a *authority, limit int) (claimed []store.OCSPResponse, until time.Time) {
	if !r.wanted(ctx, a) {
		return nil, until
	}
	lease := a.worker.lease(limit)
	r.attempt(ctx, "claim wanted OCSP answers", func(ctx context.Context) error {
		err := r.db.Update(ctx, func(tx *store.Tx) (err error) {
			until = tx.Now().Add(lease)
			claimed, err = tx.ClaimOCSP([]string{a.keyID}, tx.Now(), lease, limit)
			return err
		})
		if err != nil {
			claimed = nil
		}
		return err
	})
	return claimed, until
}

// wanted reports whether there is anything to claim.
func (r *Responder) wanted(ctx context.Context, a *authority) (wanted bool) {
	r.attempt(ctx, "look for wanted OCSP answers", func(ctx context.Context) (err error) {
		wanted, err = r.db.OCSPWanted(ctx, []string{a.keyID}, r.clock())
		return err
	})
	return wanted
}

// serve signs one wanted answer and stores it.
func (r *Responder) serve(ctx context.Context, a *authority, o store.OCSPResponse, until time.Time) {
	s := subject{o.Serial, o.Hash}
	// Nobody but us signs while the claim lasts, and we not after it.
	signing, cancel := context.WithTimeout(ctx, until.Sub(r.clock()))
	defer cancel()
	err := r.signWanted(signing, a, s)
	if errors.Is(err, signer.ErrAway) || err != nil && ctx.Err() != nil {
		// Nobody needs to wait for the claim's end. After other errors it
		// keeps us from trying the same thing again and again.
		r.giveBack(ctx, o, until)
	}
	if errors.Is(err, signer.ErrAway) {
		r.log.Info("OCSP answer not signed: the key is away; it will be tried again", "key_id", a.keyID, "serial", s.serial, "error", err)
	} else if err != nil && signing.Err() == nil {
		r.log.Warn("OCSP answer not signed; it will be tried again", "key_id", a.keyID, "serial", s.serial, "error", err)
	}
	r.requests.done(s) // whoever waits looks, whether it is there or not
}

// giveBack ends a claim, also when we stop.
func (r *Responder) giveBack(ctx context.Context, o store.OCSPResponse, until time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	r.attempt(ctx, "give the claim of an OCSP answer back", func(ctx context.Context) error {
		return r.db.Update(ctx, func(tx *store.Tx) error {
			_, err := tx.ReturnOCSP(o, until)
			return err
		})
	})
}

// signWanted signs until the store takes the answer: one that was signed while
// the certificate was being revoked it doesn't take.
func (r *Responder) signWanted(ctx context.Context, a *authority, s subject) error {
	for range 3 { // a revocation is final, so that two would do
		f, err := r.find(ctx, a, s)
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrUnauthorized) {
			return nil // it ended meanwhile; the sweep takes the want
		}
		if err != nil {
			return err
		}
		o := f.response
		if !f.fresh(r.clock()) { // another may have signed it before we claimed
			if o, err = r.signStored(ctx, a, s, &f); err != nil {
				return err
			}
		}
		if stored, err := r.put(ctx, a, o); err != nil || stored {
			return err
		}
	}
	return fmt.Errorf("the database doesn't take the answer about %s", s.serial)
}

// signStored signs the answer for all who ask.
func (r *Responder) signStored(ctx context.Context, a *authority, s subject, f *found) (store.OCSPResponse, error) {
	answer, err := r.sign(ctx, a, a.response(s, f.Revoked, r.clock()))
	return store.OCSPResponse{
		Serial: s.serial, Hash: s.hash, IssuerKeyID: a.keyID, DER: answer.DER,
		ThisUpdate: answer.ThisUpdate, NextUpdate: answer.NextUpdate, Revoked: f.revoked(),
	}, err
}

// put stores a signed answer and tells those who wait for it on other
// replicas.
func (r *Responder) put(ctx context.Context, a *authority, o store.OCSPResponse) (stored bool, err error) {
	// It is signed: that shall not be in vain because we stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	err = r.db.Update(ctx, func(tx *store.Tx) error {
		if stored, err = tx.PutOCSP(o); err != nil || !stored {
			return err
		}
		return tx.Notify(topicSigned, a.keyID+" "+string(o.Serial)+" "+o.Hash)
	})
	return stored, err
}

// response is what an answer about the certificate says now. Its end is never
// after that of the delegated responder's certificate, if there is one.
func (a *authority) response(s subject, revoked cert.Revoked, now time.Time) revocation.OCSPResponse {
	now = now.UTC().Truncate(time.Second)
	o := revocation.OCSPResponse{
		Issuer: a.Certificate, Hash: hashOf(s.hash), Serial: s.serial,
		ProducedAt: now, ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(a.OCSP.Validity),
	}
	if d := a.OCSP.Delegate; d != nil {
		o.Responder = d.Certificate
		if end := d.Certificate.NotAfter; end.Before(o.NextUpdate) {
			o.NextUpdate = end
		}
	}
	if !revoked.At.IsZero() {
		o.Status, o.RevokedAt, o.Reason = revocation.Revoked, revoked.At, revoked.Reason
	}
	return o
}

// sign asks the key for an answer's signature.
func (r *Responder) sign(ctx context.Context, a *authority, o revocation.OCSPResponse) (Answer, error) {
	unsigned, err := revocation.BuildOCSP(o)
	if err != nil {
		return Answer{}, err
	}
	begun := time.Now()
	der, err := unsigned.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return a.worker.queue.Sign(ctx, ocspRequest, digest, opts)
	})
	if r.observe.Signed != nil {
		r.observe.Signed(a.keyID, time.Since(begun), err)
	}
	return Answer{DER: der, IssuerKeyID: a.keyID, Serial: o.Serial, ThisUpdate: o.ThisUpdate, NextUpdate: o.NextUpdate}, err
}

// wakeWanted wakes the workers if anything is wanted of them: a notice may have
// been lost, a claim have ended, a key have come back.
func (r *Responder) wakeWanted(ctx context.Context) error {
	for _, a := range r.authorities {
		if a.worker == nil {
			continue
		}
		wanted, err := r.db.OCSPWanted(ctx, []string{a.keyID}, r.clock())
		if err != nil {
			return err
		}
		if wanted {
			a.worker.wake()
		}
	}
	return nil
}

// sweep deletes answers that nobody may be given any more, and wants of
// certificates that are gone, unless another replica is at it.
func (r *Responder) sweep(ctx context.Context) error {
	for n := sweepBatch; n == sweepBatch; {
		err := r.db.Update(ctx, func(tx *store.Tx) error {
			mine, err := tx.Lease("ocsp-sweep", r.replica, tx.Now().Add(sweepLease))
			if n = 0; err != nil || !mine {
				return err
			}
			n, err = tx.SweepOCSP(tx.Now(), sweepBatch)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
