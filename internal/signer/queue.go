package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// DefaultDepth is how many callers of one class may wait for a key: a card of
// five signatures a second works it off in a quarter of an hour, and a waiting
// caller costs a few kilobytes.
const DefaultDepth = 4096

// DefaultStuck is how long one signature may take before its token is taken out
// of turn. The slowest in use, RSA-4096 on a card, take a few seconds; a human
// touch isn't for a CA's key.
const DefaultStuck = 30 * time.Second

// Errors that callers tell apart.
var (
	// ErrFull is Sign's answer when Depth callers of the class wait already.
	// Wait says when to try again.
	ErrFull = errors.New("the signing key's queue is full")
	// ErrAway is wrapped, with the reason, when no token that holds the key is
	// there. Another key may be, or this one later.
	ErrAway = errors.New("the signing key is away")
)

// Request says who wants a signature and how urgently.
type Request struct {
	Class schedule.Class
	// Directory and Client say who asks, so that one who asks for thousands
	// doesn't hold up the others: an EAB key, a namespace, a device or an
	// address. Both may be "".
	Directory, Client string
	// Ends is when the certificate ends that a renewal replaces; zero: not
	// soon.
	Ends time.Time
	// Reservation is what Pool.Choose gave; Sign uses it up. It may be nil.
	Reservation *Reservation
}

// QueueOptions say how a queue works. The zero value is good.
type QueueOptions struct {
	Depth  int             // how many of a class may wait; 0: DefaultDepth
	Shares schedule.Shares // zero: schedule.DefaultShares
	Logger *slog.Logger    // nil: discard
	Stuck  time.Duration   // how long one signature may take; 0: DefaultStuck
}

// Queue lets many callers use one key in turn; package schedule has the order.
// The key may be on several tokens, which are used side by side. Close gives
// tokens back; a queue of a key in memory needs no closing.
type Queue struct {
	public crypto.PublicKey
	depth  int
	stuck  time.Duration
	log    *slog.Logger

	mu       sync.Mutex // guards all below; never held during a signature
	tokens   []*token   // the slice doesn't change
	line     *schedule.Line
	again    []*waiter             // those whose token failed them; they go first
	waiting  int                   // in line and again
	reserved [schedule.Classes]int // places at which Sign is still to begin
	counted  counters
}

// counters are what a queue has done since it was made.
type counters struct {
	signed [schedule.Classes]uint64
	waited [schedule.Classes]time.Duration
	busy   time.Duration
	failed uint64
}

// NewQueue makes the queue of a key that one or more signers hold: a key must
// have one queue in a process. It is an error if they hold different keys.
func NewQueue(o QueueOptions, signers ...*Signer) (*Queue, error) {
	if len(signers) == 0 {
		return nil, errors.New("a queue needs a signer")
	}
	if o.Shares == (schedule.Shares{}) {
		o.Shares = schedule.DefaultShares()
	}
	if err := o.Shares.Check(); err != nil {
		return nil, err
	}
	q := &Queue{public: signers[0].Public(), depth: o.Depth, stuck: o.Stuck, log: o.Logger, line: schedule.New(o.Shares)}
	if q.depth <= 0 {
		q.depth = DefaultDepth
	}
	if q.stuck <= 0 {
		q.stuck = DefaultStuck
	}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	for _, s := range signers {
		if !sameKey(s.Public(), q.public) {
			return nil, fmt.Errorf("%s holds another key than %s; the tokens of one signer must hold one key: list others as signers of their own", s.URI, signers[0].URI)
		}
		q.tokens = append(q.tokens, newToken(s))
	}
	return q, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Public returns the key's public half.
func (q *Queue) Public() crypto.PublicKey { return q.public }

// Sign waits for the key and signs. Digest, opts and result are those of
// crypto.Signer. A context that ends leaves the queue at once with its error; a
// signature under way can't be interrupted, and is returned.
//
// ErrFull when too many of the class wait. A token's error takes it out of turn
// and the signature is made by another that holds the key; ErrAway, with the
// reason, when there is none (any more). The error of a key in memory, and one
// that blames digest or opts, is returned as it is.
func (q *Queue) Sign(ctx context.Context, r Request, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := check(ctx, r.Class, digest, opts); err != nil {
		r.Reservation.Cancel()
		return nil, err
	}
	s, err := q.enter(ctx, &r)
	for tries := 1; err == nil; tries++ {
		if s.token.key == nil {
			return q.signHere(s, r.Class, digest, opts)
		}
		sig, failure := q.signThere(s, r.Class, digest, opts)
		switch {
		case failure == nil:
			return sig, nil
		case blamesInput(failure):
			return nil, failure
		case tries == len(q.tokens): // others failed too, or this one again
			return nil, fmt.Errorf("%w: %w", ErrAway, failure)
		}
		s, err = q.reenter(ctx, r.Class, failure)
	}
	return nil, err
}

// check finds what can't be signed. A token would fail at a digest of the wrong
// length, and be taken for broken.
func check(ctx context.Context, c schedule.Class, digest []byte, opts crypto.SignerOpts) error {
	if c < 0 || c >= schedule.Classes {
		return fmt.Errorf("sign: no such class: %v", c)
	}
	if h := opts.HashFunc(); h != 0 && h.Size() != len(digest) {
		return fmt.Errorf("sign: a digest of %d bytes, and %v makes %d", len(digest), h, h.Size())
	}
	return ctx.Err()
}

// As returns the queue as a crypto.Signer that asks in one request's name, for
// code that wants one (x509.CreateRevocationList). Its Sign ignores the
// randomness it is given, and waits no longer than the context lives.
func (q *Queue) As(ctx context.Context, r Request) crypto.Signer { return &asSigner{ctx, q, r} }

type asSigner struct {
	ctx     context.Context // of the one operation that the signer is made for
	queue   *Queue
	request Request
}

func (s *asSigner) Public() crypto.PublicKey { return s.queue.Public() }

func (s *asSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.queue.Sign(s.ctx, s.request, digest, opts)
}
