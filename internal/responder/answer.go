package responder

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/store"
)

const (
	// answerTime is how long an asker waits at most: relying parties give up
	// after a few seconds, and a connection is held meanwhile.
	answerTime = 2 * time.Second
	// busyWait is the expected wait from which a key counts as busy, so that
	// nobody waits for it: the answer would come too late for most.
	busyWait = time.Second
	// lookTime is how often an asker looks for itself.
	lookTime = 250 * time.Millisecond
	// slowTime is for how long nobody waits after somebody did in vain.
	slowTime = 3 * time.Second
	// unknownValidity is for a signed "unknown": the certificate may be
	// issued in a moment.
	unknownValidity = 5 * time.Minute
)

// Answer is a signed OCSP response.
type Answer struct {
	DER         []byte // the whole OCSPResponse; not to be changed
	IssuerKeyID string
	Serial      cert.Serial
	ThisUpdate  time.Time
	NextUpdate  time.Time // believed until then
	// Cacheable says that it answers all who ask for the certificate with the
	// same hash, until NextUpdate or a revocation. Else it is for one asker.
	Cacheable bool
}

// RefreshAt is when the last quarter of the answer's life begins. Whoever
// caches it asks [Responder.Answer] again now and then from that time on: so a
// new one is made of what is asked for, and only of that.
func (a *Answer) RefreshAt() time.Time {
	return refreshAt(a.ThisUpdate, a.NextUpdate)
}

func refreshAt(thisUpdate, nextUpdate time.Time) time.Time {
	return nextUpdate.Add(-nextUpdate.Sub(thisUpdate) / 4)
}

// Refusal is an answer without a signature (RFC 6960 section 2.3). It is one of
// the two below.
type Refusal struct {
	status int
	text   string
}

// Error implements error.
func (e *Refusal) Error() string { return e.text }

// DER is what to send.
func (e *Refusal) DER() []byte { return revocation.OCSPError(e.status) }

// The refusals.
var (
	// ErrUnauthorized: we have nothing to say about that certificate (RFC
	// 5019 section 2.2.3), and asking again won't help.
	ErrUnauthorized = &Refusal{revocation.OCSPUnauthorized, "no OCSP for that certificate here"}
	// ErrTryLater: the key is busy or away. What is missing was recorded and
	// will be signed when its turn comes.
	ErrTryLater = &Refusal{revocation.OCSPTryLater, "the OCSP answer isn't signed yet"}
)

// hashNames are those of the hashes in the database.
var hashNames = map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256"}

func hashOf(name string) crypto.Hash {
	for h, n := range hashNames {
		if n == name {
			return h
		}
	}
	return 0
}

// found is what the database knows.
type found struct {
	store.OCSPSubject
	response store.OCSPResponse
}

func (f *found) revoked() bool { return !f.Revoked.At.IsZero() }

// valid reports whether the stored answer may be served.
func (f *found) valid(now time.Time) bool {
	return f.response.DER != nil && now.Before(f.response.NextUpdate) && f.response.Revoked == f.revoked()
}

// fresh reports whether it needn't be signed anew either.
func (f *found) fresh(now time.Time) bool {
	return f.valid(now) && now.Before(refreshAt(f.response.ThisUpdate, f.response.NextUpdate))
}

func (f *found) answer() Answer {
	o := &f.response
	return Answer{DER: o.DER, IssuerKeyID: f.IssuerKeyID, Serial: o.Serial, ThisUpdate: o.ThisUpdate, NextUpdate: o.NextUpdate, Cacheable: true}
}

// Answer answers a request that [revocation.ParseOCSPRequest] took. It blocks
// on the database and, for at most two seconds in all, on an idle key. The
// errors are [ErrUnauthorized], [ErrTryLater] and the database's.
func (r *Responder) Answer(ctx context.Context, q *revocation.OCSPRequest) (Answer, error) {
	a := r.match(q)
	if a == nil {
		return Answer{}, ErrUnauthorized
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	answer, err := r.answer(ctx, a, q)
	if errors.Is(err, context.DeadlineExceeded) {
		err = ErrTryLater
	}
	return answer, err
}

func (r *Responder) answer(ctx context.Context, a *authority, q *revocation.OCSPRequest) (Answer, error) {
	s := subject{q.CertSerial(), hashNames[q.Hash]}
	f, err := r.find(ctx, a, s)
	if errors.Is(err, store.ErrNotFound) {
		return r.unknown(ctx, a, q)
	}
	if err != nil {
		return Answer{}, err
	}
	now := r.clock()
	if q.HasNonce && a.personal() {
		if err := r.answerable(ctx, s, &f); err != nil {
			return Answer{}, err
		}
		if answer, ok := r.answerOne(ctx, a, q, f); ok {
			return answer, nil
		}
		// Else without the nonce, as RFC 9654 section 2.1 allows; but by what
		// is known now.
		if f, err = r.find(ctx, a, s); err != nil {
			return Answer{}, unless(err, store.ErrNotFound, ErrUnauthorized)
		}
		now = r.clock()
	}
	if !f.valid(now) {
		return r.await(ctx, a, s)
	}
	if !f.fresh(now) && f.response.WantedAt.IsZero() {
		r.requests.want(a, s)
	}
	return f.answer(), nil
}

// find reads what is known of a certificate; store.ErrNotFound when the
// authority issued none such, ErrUnauthorized when it has ended.
func (r *Responder) find(ctx context.Context, a *authority, s subject) (found, error) {
	f, err := r.lookUp(ctx, s)
	switch {
	case err != nil:
		return f, err
	case f.IssuerKeyID != a.keyID: // another issuer's: RFC 6960 section 2.1 asks about this one
		return f, store.ErrNotFound
	case !r.clock().Before(f.NotAfter):
		return f, ErrUnauthorized
	}
	return f, nil
}

// lookUp reads the database. Anybody can ask for anything, so that only few
// reads run at once, and issuance has the rest. What is still on its way to
// the disk is waited for outside of that bound.
func (r *Responder) lookUp(ctx context.Context, s subject) (f found, err error) {
	reads, reading := store.WithReading(ctx)
	select {
	case r.requests.lookups <- struct{}{}:
	case <-ctx.Done():
		return f, ctx.Err()
	}
	f.OCSPSubject, f.response, err = r.db.OCSP(reads, s.serial, s.hash)
	<-r.requests.lookups
	if err == nil || errors.Is(err, store.ErrNotFound) {
		if waited := reading.Wait(ctx); waited != nil {
			return f, waited
		}
	}
	return f, err
}

// answerable finds out, before anything is signed, whether the certificate
// points to an OCSP responder; else nobody has to ask. Once something was
// wanted or signed that is known.
func (r *Responder) answerable(ctx context.Context, s subject, f *found) error {
	if f.response.DER != nil || !f.response.WantedAt.IsZero() {
		return nil
	}
	c, err := r.db.Certificate(ctx, s.serial)
	if err != nil {
		return unless(err, store.ErrNotFound, ErrUnauthorized)
	}
	leaf, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return err
	}
	if len(leaf.OCSPServer) == 0 {
		return ErrUnauthorized
	}
	return nil
}

// await has an answer signed, and waits for it if that won't take long.
func (r *Responder) await(ctx context.Context, a *authority, s subject) (Answer, error) {
	signed, leave, room := r.requests.join(s)
	defer func() { leave() }()
	// Again, now that no news can be missed.
	f, err := r.find(ctx, a, s)
	if err != nil {
		return Answer{}, unless(err, store.ErrNotFound, ErrUnauthorized)
	}
	if f.valid(r.clock()) {
		return f.answer(), nil
	}
	if f.response.WantedAt.IsZero() {
		if err := r.answerable(ctx, s, &f); err != nil {
			return Answer{}, err
		}
		room = r.requests.want(a, s) && room
	}
	if !room || r.busy(a) {
		return Answer{}, ErrTryLater
	}
	for news := 0; news < 2; { // the first may be late, of an answer that was withdrawn since
		told, err := r.untilSigned(ctx, a, signed)
		if err != nil {
			return Answer{}, err
		}
		if told {
			leave()
			if signed, leave, room = r.requests.join(s); !room {
				return Answer{}, ErrTryLater
			}
			news++
		}
		if f, err = r.find(ctx, a, s); err != nil {
			return Answer{}, unless(err, store.ErrNotFound, ErrUnauthorized)
		}
		if f.valid(r.clock()) {
			return f.answer(), nil
		}
	}
	return Answer{}, ErrTryLater
}

// untilSigned waits until it is told that the answer may be there, or it is
// time to look, since a notice may have been lost.
func (r *Responder) untilSigned(ctx context.Context, a *authority, signed <-chan struct{}) (told bool, err error) {
	timer := time.NewTimer(lookTime)
	defer timer.Stop()
	select {
	case <-signed:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			a.slowUntil.Store(r.clock().Add(slowTime).UnixNano())
		}
		return false, ctx.Err()
	}
}

// unless is err, or instead if err is that one.
func unless(err, that, instead error) error {
	if errors.Is(err, that) {
		return instead
	}
	return err
}

// busy reports whether waiting would be in vain.
func (r *Responder) busy(a *authority) bool {
	return r.clock().UnixNano() < a.slowUntil.Load() || a.worker.busy()
}

// answerOne signs an answer for one asker, with the nonce. False: the
// delegate's key is busy or away.
func (r *Responder) answerOne(ctx context.Context, a *authority, q *revocation.OCSPRequest, f found) (Answer, bool) {
	for range 3 {
		answer, err := r.signOne(ctx, a, q, f)
		if err != nil {
			return Answer{}, false
		}
		now, err := r.find(ctx, a, subject{answer.Serial, hashNames[q.Hash]})
		if err != nil {
			return Answer{}, false
		}
		if now.revoked() == f.revoked() { // and not withdrawn meanwhile
			return answer, true
		}
		f = now
	}
	return Answer{}, false
}

func (r *Responder) signOne(ctx context.Context, a *authority, q *revocation.OCSPRequest, f found) (Answer, error) {
	free, err := r.requests.delegate(ctx, a)
	if err != nil {
		return Answer{}, err
	}
	defer free()
	o := a.response(subject{q.CertSerial(), hashNames[q.Hash]}, f.Revoked, r.clock())
	o.Nonce = q.Nonce
	return r.sign(ctx, a, o)
}

// unknown answers about a certificate that the authority didn't issue: signed
// only by a delegate, since any number of them can be asked for.
func (r *Responder) unknown(ctx context.Context, a *authority, q *revocation.OCSPRequest) (Answer, error) {
	free, err := r.requests.delegate(ctx, a)
	if err != nil {
		return Answer{}, ErrUnauthorized
	}
	defer free()
	now := r.clock()
	o := a.response(subject{q.CertSerial(), hashNames[q.Hash]}, cert.Revoked{}, now)
	o.Status, o.Nonce = revocation.Unknown, q.Nonce
	if end := now.Add(unknownValidity); end.Before(o.NextUpdate) {
		o.NextUpdate = end
	}
	answer, err := r.sign(ctx, a, o)
	if err != nil {
		return Answer{}, ErrUnauthorized
	}
	return answer, nil
}
