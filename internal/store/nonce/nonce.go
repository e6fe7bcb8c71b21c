package nonce

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// A nonce (RFC 8555 section 6.5) is tag ‖ counter ‖ MAC in base64url: eight
// bytes that name the epoch, eight that name the nonce, and sixteen of
// HMAC-SHA256 over both by the epoch's key. So none need be stored until it is
// used, nobody can make one up, and one from before a restart is told from a
// used one without having been remembered.
const (
	tagLength = 8
	signed    = tagLength + 8
	length    = signed + 16
)

// Set hands out nonces and takes each back once. Safe for concurrent use.
type Set struct {
	epochs atomic.Pointer[[]*epoch] // newest first; never empty, never changed in place
	memory *usedNonces              // SQLite
	shared *sharedNonces            // PostgreSQL
}

// epoch is a key and the numbers handed out under it.
type epoch struct {
	number int64
	tag    [tagLength]byte
	macs   sync.Pool     // of hash.Hash
	next   atomic.Uint64 // the counter of the next nonce
}

func newEpoch(number int64, tag [tagLength]byte, key []byte, first uint64) *epoch {
	e := &epoch{number: number, tag: tag}
	e.macs.New = func() any { return hmac.New(sha256.New, key) }
	e.next.Store(first)
	return e
}

// seal writes the MAC of b's first part into its last.
func (e *epoch) seal(b *[length]byte) {
	h := e.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(b[:signed])
	var sum [sha256.Size]byte
	copy(b[signed:], h.Sum(sum[:0]))
	e.macs.Put(h)
}

// encoding is strict, so that a nonce has one spelling.
var encoding = base64.RawURLEncoding.Strict()

// InMemory starts handing out nonces of one process. The used ones are
// remembered in at most 8 MiB, and each call starts a new epoch; a nonce is
// taken for at least an hour, unless more than 64 million are handed out in
// one.
func InMemory(clock func() time.Time) *Set {
	tag, key := randomEpoch()
	n := &Set{memory: &usedNonces{clock: clock}}
	n.epochs.Store(&[]*epoch{newEpoch(0, tag, key, 0)})
	return n
}

// Database is one that replicas share: PostgreSQL.
type Database interface {
	// Hasty runs statements each of which may be lost, though never halved,
	// when the server loses power.
	Hasty() engine.Runner
	// ExecHasty is Hasty's Exec, until ctx's deadline.
	ExecHasty(ctx context.Context, text string, args ...any) (int64, error)
}

// Shared starts handing out nonces for one of several replicas on a
// PostgreSQL: all share an epoch for 70 minutes and take those of the one
// before. Each start of a replica gives a number that none gave before. It
// blocks for two statements or so; an error is the database's.
func Shared(ctx context.Context, db Database, clock func() time.Time, start int64) (*Set, error) {
	// Each replica counts in a range of its own, new at every start.
	n := &Set{shared: &sharedNonces{clock: clock, db: db, first: uint64(start%nonceRanges) << nonceRangeBits}}
	return n, n.refresh(ctx)
}

func randomEpoch() (tag [tagLength]byte, key []byte) {
	key = make([]byte, sha256.Size)
	rand.Read(tag[:]) // never fails (crypto/rand)
	rand.Read(key)
	return tag, key
}

// New returns a fresh nonce of 43 characters. It touches the database only
// on PostgreSQL after minutes without a request.
func (n *Set) New() string {
	if n.shared != nil {
		n.keepFresh()
	}
	e := (*n.epochs.Load())[0]
	counter := e.next.Add(1) - 1
	if n.memory != nil {
		n.memory.handedOut(counter)
	}
	var b [length]byte
	copy(b[:], e.tag[:])
	binary.BigEndian.PutUint64(b[tagLength:], counter)
	e.seal(&b)
	return encoding.EncodeToString(b[:])
}

// Use takes a nonce back. False: it isn't ours, too old, or was used before.
// On PostgreSQL it blocks for one statement; an error is the database's.
func (n *Set) Use(ctx context.Context, nonce string) (bool, error) {
	var b [length]byte
	if len(nonce) != encoding.EncodedLen(length) {
		return false, nil
	}
	if _, err := encoding.Decode(b[:], []byte(nonce)); err != nil {
		return false, nil
	}
	e := n.epoch(b[:tagLength])
	if e == nil && n.shared != nil && n.shared.strange.due(n.shared.clock(), nonceRetry) {
		if err := n.refresh(ctx); err != nil {
			return false, err
		}
		e = n.epoch(b[:tagLength])
	}
	if e == nil {
		return false, nil
	}
	given := b
	e.seal(&b)
	if subtle.ConstantTimeCompare(given[signed:], b[signed:]) != 1 {
		return false, nil
	}
	counter := binary.BigEndian.Uint64(b[tagLength:])
	if n.memory != nil {
		return n.memory.take(counter), nil
	}
	return n.takeShared(ctx, e, counter)
}

func (n *Set) epoch(tag []byte) *epoch {
	for _, e := range *n.epochs.Load() {
		if string(e.tag[:]) == string(tag) {
			return e
		}
	}
	return nil
}

// usedNonces remembers, for one process, a bit for each nonce handed out
// lately, in segments that are dropped from the old end.
type usedNonces struct {
	clock func() time.Time

	mu       sync.Mutex
	first    uint64 // the number of segments[0]
	segments []*nonceSegment
}

// A segment holds 2^20 nonces in 128 KiB. It is kept until an hour after the
// next one began, and at most 64 are: 18,000 nonces a second for an hour.
const (
	segmentBits  = 20
	mostSegments = 64
	nonceLife    = time.Hour
)

type nonceSegment struct {
	began time.Time
	used  [1 << segmentBits / 64]uint64
}

// handedOut begins a segment with its first nonce.
func (u *usedNonces) handedOut(counter uint64) {
	if counter&(1<<segmentBits-1) != 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.grow(counter >> segmentBits)
}

// grow adds segments up to the one of that number, and drops old ones. The
// caller holds the lock.
func (u *usedNonces) grow(segment uint64) {
	for u.first+uint64(len(u.segments)) <= segment {
		now := u.clock()
		u.segments = append(u.segments, &nonceSegment{began: now})
		for len(u.segments) > mostSegments || len(u.segments) > 1 && now.Sub(u.segments[1].began) > nonceLife {
			u.segments = slices.Delete(u.segments, 0, 1)
			u.first++
		}
	}
}

// take marks a nonce, whose MAC was good, as used; false if it is already, or
// too old to tell.
func (u *usedNonces) take(counter uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	segment := counter >> segmentBits
	u.grow(segment) // another goroutine may be about to
	if segment < u.first {
		return false
	}
	bit := counter & (1<<segmentBits - 1)
	word, mask := &u.segments[segment-u.first].used[bit/64], uint64(1)<<(bit%64)
	if *word&mask != 0 {
		return false
	}
	*word |= mask
	return true
}

// sharedNonces is what replicas on one PostgreSQL need to agree.
type sharedNonces struct {
	clock func() time.Time
	db    Database
	first uint64 // the start of this replica's range

	looked  atomic.Int64 // when the epochs were last read, unix microseconds
	tried   pace         // reading them beside the requests
	strange pace         // reading them for an unknown epoch

	mu      sync.Mutex
	reading *epochReading // the refresh under way; nil for none
}

// epochReading is a refresh that everybody shares who asks for one meanwhile,
// so that they don't wait one after the other for a database that is away.
type epochReading struct {
	done chan struct{}
	err  error // set before done is closed
}

// pace keeps what needn't happen often from happening more often.
type pace struct{ last atomic.Int64 } // unix microseconds

// due reports whether it is time again, to one caller.
func (p *pace) due(now time.Time, every time.Duration) bool {
	last := p.last.Load()
	return now.UnixMicro()-last >= every.Microseconds() && p.last.CompareAndSwap(last, now.UnixMicro())
}

const (
	nonceRangeBits = 40      // nonces of one replica in one epoch
	nonceRanges    = 1 << 22 // the counter fits a BIGINT

	nonceLook  = 30 * time.Second // how often the epochs are read, beside the requests
	nonceStale = 5 * time.Minute  // after such a silence they are read first
	nonceAwait = 2 * time.Second  // but no longer than so: the nonce may still be good
	nonceRetry = time.Second      // how often an unknown epoch, which may be made up, makes us look
)

// EpochLife is how long an epoch of replicas is the newest. It is taken for as
// long again, which leaves a nonce its hour even where a replica learns of the
// next epoch nonceLook late.
const EpochLife = 70 * time.Minute

func (s *sharedNonces) due(after time.Duration) bool {
	return s.clock().Sub(time.UnixMicro(s.looked.Load())) >= after
}

// keepFresh reads the epochs now and then: beside the request, except after a
// long silence, when the one we know may be gone. Failing changes nothing; the
// nonce then handed out may be refused, for which clients have badNonce.
func (n *Set) keepFresh() {
	s := n.shared
	if !s.due(nonceLook) || !s.tried.due(s.clock(), nonceLook) {
		return
	}
	if !s.due(nonceStale) {
		go n.refresh(context.Background())
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), nonceAwait)
	defer cancel()
	n.refresh(ctx)
}

// storedEpoch is a row of nonce_epochs.
type storedEpoch struct {
	number, startedAt int64
	tag, key          []byte
}

// refresh reads the newest two epochs, beginning one when there is none (the
// table is empty after a crash) or the newest is old. It may return the answer
// of a refresh that was under way.
func (n *Set) refresh(ctx context.Context) error {
	s := n.shared
	s.mu.Lock()
	r := s.reading
	if r == nil {
		r = &epochReading{done: make(chan struct{})}
		s.reading = r
		go func() {
			r.err = n.readEpochs(context.WithoutCancel(ctx))
			s.mu.Lock()
			s.reading = nil
			s.mu.Unlock()
			close(r.done)
		}()
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Set) readEpochs(ctx context.Context) error {
	s := n.shared
	now := s.clock()
	stored, err := s.read(ctx)
	if err != nil {
		return err
	}
	if len(stored) == 0 || now.Sub(time.UnixMicro(stored[0].startedAt)) >= EpochLife {
		if err := s.begin(stored, now); err != nil {
			return err
		}
		if stored, err = s.read(ctx); err != nil {
			return err
		}
	}
	var known []*epoch
	if p := n.epochs.Load(); p != nil {
		known = *p
	}
	var epochs []*epoch
	for _, row := range stored {
		i := slices.IndexFunc(known, func(e *epoch) bool { return string(e.tag[:]) == string(row.tag) })
		if i >= 0 {
			epochs = append(epochs, known[i])
		} else {
			epochs = append(epochs, newEpoch(row.number, [tagLength]byte(row.tag), row.key, s.first))
		}
	}
	if len(epochs) == 0 {
		return fmt.Errorf("%w: the nonce epochs vanish", engine.ErrUnavailable)
	}
	n.epochs.Store(&epochs)
	s.looked.Store(now.UnixMicro())
	return nil
}

// hasty runs statements whose commits don't wait for the disk.
func (s *sharedNonces) hasty() engine.Runner { return s.db.Hasty() }

func (s *sharedNonces) read(ctx context.Context) (list []storedEpoch, err error) {
	const text = "SELECT epoch, tag, mac_key, started_at FROM nonce_epochs WHERE length(tag) = 8 ORDER BY epoch DESC LIMIT 2"
	err = s.hasty().Query(ctx, text, nil, func(row engine.Row) error {
		var e storedEpoch
		err := row.Scan(&e.number, &e.tag, &e.key, &e.startedAt)
		list = append(list, e)
		return err
	})
	return list, err
}

// begin adds an epoch and drops those before the previous one. Of replicas
// that begin one together, the first wins.
func (s *sharedNonces) begin(stored []storedEpoch, now time.Time) error {
	// Never a number that was used before: marks of an epoch which a
	// crash's remains might bear are not this one's.
	number := now.UnixMicro()
	if len(stored) > 0 {
		number = stored[0].number + 1
	}
	tag, key := randomEpoch()
	if _, err := s.hasty().Exec("INSERT INTO nonce_epochs (epoch, tag, mac_key, started_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		[]any{number, tag[:], key, now.UnixMicro()}); err != nil {
		return err
	}
	if _, err := s.hasty().Exec("DELETE FROM nonce_epochs WHERE epoch < $1", []any{number - 1}); err != nil {
		return err
	}
	// The marks stay an epoch longer: a statement that saw the epoch must
	// still run into them.
	const batch = 10_000 // keeps each statement well under its timeout
	for {
		n, err := s.hasty().Exec("DELETE FROM used_nonces WHERE (epoch, counter) IN (SELECT epoch, counter FROM used_nonces WHERE epoch < $1 LIMIT $2)",
			[]any{number - 2, int64(batch)})
		if err != nil || n < batch {
			return err
		}
	}
}

// takeShared marks a nonce as used for all replicas, provided that its epoch
// still is in the table: a crash has emptied both. Then the epoch is given up
// at once, so that the client, who is told badNonce, is also given a nonce
// that will do.
func (n *Set) takeShared(ctx context.Context, e *epoch, counter uint64) (bool, error) {
	taken, err := n.shared.db.ExecHasty(ctx, `INSERT INTO used_nonces (epoch, counter)
		SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM nonce_epochs WHERE epoch = $1 AND tag = $3) ON CONFLICT DO NOTHING`,
		e.number, int64(counter), e.tag[:])
	if err != nil || taken > 0 {
		return taken > 0, err
	}
	known := false
	err = n.shared.hasty().Query(ctx, "SELECT 1 FROM nonce_epochs WHERE epoch = $1 AND tag = $2", []any{e.number, e.tag[:]},
		func(engine.Row) error { known = true; return nil })
	if err != nil || known {
		return false, err // used before
	}
	return false, n.refresh(ctx)
}
