package krl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
)

// DefaultValidity is how long a list is believed where nothing else is said.
const DefaultValidity = 24 * time.Hour

const (
	// place is where the list lies among the CRLs: no issuing key has that ID.
	place = "6b726c" // "krl"
	// lookEvery is how often revocations, and lists of other replicas, are
	// looked for; notices of revoked certificates come sooner.
	lookEvery = 3 * time.Second
	// loadTime bounds the loading of a list.
	loadTime = time.Minute
	// topicMade tells the other replicas that there is a new list.
	topicMade = "krl"
)

// Key is one SSH CA key that issued certificates.
type Key struct {
	Authority *sshca.Authority
	Queue     *signer.Queue // nil: another replica holds the key, or nobody does
	Retired   bool          // it signs a list only if no other can
}

// Options is what a Keeper needs.
type Options struct {
	DB       *store.DB
	Keys     []Key
	Validity time.Duration // 0 means DefaultValidity
	Replica  string        // names this process in leases
	Logger   *slog.Logger  // nil: silent
	Clock    func() time.Time
	Made     func(Making) // sees each try to make a list; nil: none; must not block
	Previous *Keeper      // its list is served until this one has loaded it; nil: none
}

// Making is one try to make a list.
type Making struct {
	Took       time.Duration
	Err        error // nil: the list is being served, and the rest is set
	Number     int64
	Entries    int
	Bytes      int
	NextUpdate time.Time
}

// List is a KRL with its detached signature. It doesn't change.
type List struct {
	KRL        []byte
	Signature  []byte // an armored SSHSIG by an SSH CA key
	Number     int64  // the version in the KRL
	Made       time.Time
	NextUpdate time.Time

	revision int64 // of the revocations that it shows
}

// Keeper makes the list and has the current one. It is safe for concurrent use.
type Keeper struct {
	db       *store.DB
	keys     []Key
	validity time.Duration
	replica  string
	log      *slog.Logger
	clock    func() time.Time
	made     func(Making)
	ours     map[string]bool // IDs of keys
	woken    chan struct{}   // has a value when there may be something to do
	current  atomic.Pointer[List]
	loading  sync.Mutex // held while another list is put into its place
}

// New makes a Keeper. It reads and writes nothing before Load and Run.
func New(o Options) (*Keeper, error) {
	k := &Keeper{
		db: o.DB, keys: o.Keys, validity: o.Validity, replica: o.Replica, log: o.Logger, clock: o.Clock, made: o.Made,
		ours: map[string]bool{}, woken: make(chan struct{}, 1),
	}
	if k.validity == 0 {
		k.validity = DefaultValidity
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.clock == nil {
		k.clock = time.Now
	}
	for _, key := range o.Keys {
		if k.ours[key.Authority.ID()] {
			return nil, fmt.Errorf("the SSH CA key %s is listed twice", key.Authority.ID())
		}
		k.ours[key.Authority.ID()] = true
	}
	if o.Previous != nil {
		k.current.Store(o.Previous.current.Load())
	}
	return k, nil
}

// Current is the newest list, nil until the first was made or loaded.
func (k *Keeper) Current() *List { return k.current.Load() }

// Run makes the list where a key is here, and loads what others made, until ctx
// ends; it blocks so long. Trouble is logged and tried again.
func (k *Keeper) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { k.db.Listen(ctx, k.heard, func(bool) { k.wake() }) })
	defer all.Wait()
	failures := 0
	for {
		begun := time.Now()
		made, err := k.round(ctx)
		rest := time.Duration(0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			rest = min(lookEvery<<min(failures, 5), maxRest)
			failures++
			k.log.Error("no new KRL could be made or loaded; the old one, if any, is still served", "error", err)
		default:
			failures = 0
			if made { // a storm of revocations costs one part in six of the time
				rest = min(restFactor*time.Since(begun), maxRest)
			}
		}
		if !pause(ctx, nil, rest) || !pause(ctx, k.woken, lookEvery) {
			return
		}
	}
}

// heard takes a notice. On SQLite it runs while whoever caused it waits.
func (k *Keeper) heard(n store.Notice) {
	const id = 64 // hex digits of a key ID, which come first
	if n.Topic == topicMade || n.Topic == store.TopicRevoked && len(n.Body) > id && k.ours[n.Body[:id]] {
		k.wake()
	}
}

func (k *Keeper) wake() {
	select {
	case k.woken <- struct{}{}:
	default: // it will look anyway
	}
}

// pause waits until it is woken or the time is over. False: ctx has ended.
func pause(ctx context.Context, woken <-chan struct{}, atMost time.Duration) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-woken:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// Load takes over the stored list, if it is newer than ours.
func (k *Keeper) Load(ctx context.Context) error {
	head, err := k.db.CRL(ctx, place, 0)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	k.loading.Lock()
	defer k.loading.Unlock()
	if old := k.current.Load(); old != nil && old.Number >= head.Number {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	body, err := k.db.CRLBody(ctx, head)
	if errors.Is(err, store.ErrNotFound) {
		return nil // a newer one has taken its place, and will be loaded
	}
	if err != nil {
		return err
	}
	list, signature, err := split(body)
	if err != nil {
		return fmt.Errorf("KRL %d in the database: %w", head.Number, err)
	}
	k.current.Store(&List{
		KRL: list, Signature: signature, Number: head.Number, Made: head.ThisUpdate, NextUpdate: head.NextUpdate, revision: head.Revision,
	})
	return nil
}

// join makes one body of a list and its signature, so that nobody ever has one
// of each of two: the length of the list, the list, the signature.
func join(list, signature []byte) []byte {
	body := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(list)+len(signature)), uint32(len(list)))
	return append(append(body, list...), signature...)
}

func split(body []byte) (list, signature []byte, err error) {
	if len(body) < 4 || uint64(binary.BigEndian.Uint32(body)) > uint64(len(body)-4) {
		return nil, nil, errors.New("it is damaged")
	}
	n := int(binary.BigEndian.Uint32(body))
	return body[4 : 4+n], body[4+n:], nil
}
