package server

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

const (
	// reportEvery is how often replicas tell each other how their keys are
	// doing: a remote key is chosen by what it said last.
	reportEvery = 2 * time.Second
	// reportsSince is how old a report may be to be read at all;
	// signer.Remote has its own idea of how long one counts.
	reportsSince = 10 * time.Second
)

// keyring holds the keys of a process: each has one queue, however often the
// configuration is read.
type keyring struct {
	log    *slog.Logger
	absent func(uri, name string, err error) // told of a token that isn't there and may come
	cards  *yubikey.Cards

	mu      sync.Mutex
	leaving bool
	ctx     context.Context // of watch; nil before
	running sync.WaitGroup
	queues  map[string]*ring          // by the URIs of a signer
	next    map[string]*ring          // those of the reading under way
	remotes map[string]*signer.Remote // by key ID
}

// ring is one key with what it is called.
type ring struct {
	queue *signer.Queue
	keyID string
	uris  []string
	stop  context.CancelFunc // ends Watch; nil before watch
	ended chan struct{}      // closed when Watch has returned
}

func newKeyring(log *slog.Logger) *keyring {
	return &keyring{log: log, cards: new(yubikey.Cards), queues: map[string]*ring{}, remotes: map[string]*signer.Remote{}}
}

// where names a key's places in the configuration.
type where struct {
	uris          []string
	password, pin string // files; "": none
	path          string // of the signer in the configuration
	key           identity
	signing       config.Signing
	position      func(path string, err error) error
}

// identity says which key is wanted.
type identity struct {
	public crypto.PublicKey // nil: whichever is there
	name   string           // for messages
	id     func(crypto.PublicKey) (string, error)
}

// certified is the key of a CA certificate.
func certified(c *x509.Certificate) identity {
	return identity{c.PublicKey, fmt.Sprintf("CA certificate %q", c.Subject), func(crypto.PublicKey) (string, error) { return keyID(c), nil }}
}

// is reports whether the key is the one that is wanted.
func (i identity) is(public crypto.PublicKey) bool {
	return i.public == nil || sameKey(public, i.public)
}

// begin and end enclose one reading of the configuration, which opens keys. A
// good one lets go of the keys that it doesn't name, a bad one of those that it
// opened: then nothing has changed.
func (k *keyring) begin() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = map[string]*ring{}
}

func (k *keyring) end(good bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before, opened := k.queues, k.next
	if good {
		k.queues = opened
	}
	k.next = nil
	for _, rings := range []map[string]*ring{before, opened} {
		for name, r := range rings {
			if k.queues[name] != r {
				k.drop(r)
			}
		}
	}
	for name, r := range k.queues {
		if before[name] != r && k.ctx != nil {
			k.tend(r)
		}
	}
}

// open returns the queue of a key, the one it has already or a new one, which
// blocks on the tokens. One reading opens one key after the other.
func (k *keyring) open(ctx context.Context, w where) (*signer.Queue, error) {
	name := strings.Join(w.uris, " ")
	if r := k.has(name, w.key); r != nil {
		return r.queue, nil
	}
	queue, err := k.queue(ctx, w)
	if err != nil {
		return nil, w.position(w.path, err)
	}
	id, err := w.key.id(queue.Public())
	if err != nil {
		queue.Close()
		return nil, w.position(w.path, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next[name] = &ring{queue: queue, keyID: id, uris: w.uris}
	return queue, nil
}

// queue opens the tokens of a key and makes its queue.
func (k *keyring) queue(ctx context.Context, w where) (queue *signer.Queue, err error) {
	var tokens []*signer.Signer
	defer func() {
		if err != nil {
			for _, s := range tokens {
				k.release(s)
			}
		}
	}()
	for _, uri := range w.uris {
		s, err := k.token(ctx, w, uri)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, s)
	}
	return signer.NewQueue(signer.QueueOptions{
		Depth: w.signing.MaxWaiting, Shares: w.signing.Shares(), Logger: k.log, Stuck: time.Duration(w.signing.Stuck),
	}, tokens...)
}

// release closes a token that came into no queue.
func (k *keyring) release(s *signer.Signer) {
	if key, ok := s.Signer.(signer.Key); ok {
		if err := key.Close(); err != nil {
			k.log.Warn("closing a signing token", "key", s.URI, "error", err)
		}
	}
}

// has returns the key that is open by that name already, unless the file or
// token has another one by now.
func (k *keyring) has(name string, key identity) *ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, open := range []map[string]*ring{k.next, k.queues} {
		if r := open[name]; r != nil && key.is(r.queue.Public()) {
			k.next[name] = r
			return r
		}
	}
	return nil
}

// tend brings the key's tokens back when they went away; mu is held.
func (k *keyring) tend(r *ring) {
	ctx, stop := context.WithCancel(k.ctx)
	r.stop, r.ended = stop, make(chan struct{})
	k.running.Go(func() {
		defer close(r.ended)
		r.queue.Watch(ctx)
	})
}

// drop lets go of a key that isn't used any more: those who wait for it are
// given another; mu is held.
func (k *keyring) drop(r *ring) {
	k.running.Go(func() {
		if r.stop != nil {
			r.stop()
			<-r.ended
		}
		r.queue.Close()
	})
}

// token opens one token of a signer. One that isn't plugged in may come later:
// its certificate says which key it has.
func (k *keyring) token(ctx context.Context, w where, uri string) (*signer.Signer, error) {
	o := signer.Options{Cards: k.cards}
	secret := w.password
	if !strings.HasPrefix(uri, "file:") {
		secret = w.pin
	}
	if secret != "" {
		o.Password = signer.PasswordFile(secret)
	}
	open := func(ctx context.Context) (*signer.Signer, error) {
		s, err := signer.Open(ctx, uri, o)
		if err != nil {
			return nil, err
		}
		if !w.key.is(s.Public()) {
			k.release(s)
			return nil, fmt.Errorf("%s has another key than the one in %s", uri, w.key.name)
		}
		return s, nil
	}
	s, err := open(ctx)
	if errors.Is(err, signer.ErrAway) && w.key.public == nil {
		return nil, fmt.Errorf("%w; name its public_key file too, so that the server can start without the token", err)
	}
	if errors.Is(err, signer.ErrAway) {
		k.absent(uri, w.key.name, w.position(w.path, err))
		late := &lateKey{public: w.key.public, open: open, why: err}
		return &signer.Signer{Signer: late, URI: uri, Parallel: 1, Away: err}, nil
	}
	return s, err
}

// lateKey is a key whose token wasn't there at the start. It implements
// signer.Key.
type lateKey struct {
	public crypto.PublicKey
	open   func(context.Context) (*signer.Signer, error)

	mu  sync.Mutex
	key *signer.Signer // nil until it came
	why error          // that it didn't
}

// Public implements crypto.Signer.
func (l *lateKey) Public() crypto.PublicKey { return l.public }

// Sign implements crypto.Signer.
func (l *lateKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	l.mu.Lock()
	key, why := l.key, l.why
	l.mu.Unlock()
	if key == nil {
		return nil, why
	}
	return key.Sign(random, digest, opts)
}

// Reopen implements signer.Key.
func (l *lateKey) Reopen(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.key != nil {
		if key, ok := l.key.Signer.(signer.Key); ok {
			return key.Reopen(ctx)
		}
		return nil
	}
	key, err := l.open(ctx)
	if err != nil {
		l.why = err
		return err
	}
	l.key = key
	return nil
}

// Probe says whether the token is there, where the key can say so.
func (l *lateKey) Probe() error {
	l.mu.Lock()
	key, why := l.key, l.why
	l.mu.Unlock()
	if key == nil {
		return why
	}
	if p, ok := key.Signer.(interface{ Probe() error }); ok {
		return p.Probe()
	}
	return nil
}

// Close implements signer.Key.
func (l *lateKey) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.key != nil {
		if key, ok := l.key.Signer.(signer.Key); ok {
			return key.Close()
		}
	}
	return nil
}

// remote returns what stands for a key that another replica holds.
func (k *keyring) remote(id string, public crypto.PublicKey) *signer.Remote {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.remotes[id] == nil {
		k.remotes[id] = signer.NewRemote(public)
	}
	return k.remotes[id]
}

// watch brings keys back that went away, and tells the other replicas how ours
// are doing, until ctx ends.
func (k *keyring) watch(ctx context.Context, db *store.DB, authority *ca.Authority) {
	k.mu.Lock()
	k.ctx = ctx
	for _, r := range k.queues {
		k.tend(r)
	}
	k.mu.Unlock()
	if db.Engine() != "sqlite" { // which has no other replicas
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for alive := true; alive; {
			if err := k.exchange(ctx, db, authority); err != nil && ctx.Err() == nil {
				k.log.Warn("the replicas' reports of their keys could not be exchanged", "error", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				alive = false
			}
		}
	}
	<-ctx.Done()
	k.running.Wait()
}

// leave tells the other replicas that our keys won't take more work: this one
// stops, and finishes what it has.
func (k *keyring) leave(ctx context.Context, db *store.DB, authority *ca.Authority) {
	k.mu.Lock()
	k.leaving = true
	k.mu.Unlock()
	if db.Engine() == "sqlite" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportEvery)
	defer cancel()
	if err := k.exchange(ctx, db, authority); err != nil {
		k.log.Warn("the other replicas could not be told that this one stops", "error", err)
	}
}

// exchange records the states of our keys and reads the others'.
func (k *keyring) exchange(ctx context.Context, db *store.DB, authority *ca.Authority) error {
	var ours []store.KeyState
	now := time.Now()
	k.mu.Lock()
	for _, r := range k.queues {
		state := r.queue.State()
		if k.leaving {
			state.Away = "its replica stops"
		}
		if text, err := json.Marshal(state); err == nil {
			ours = append(ours, store.KeyState{KeyID: r.keyID, At: now, State: string(text)})
		}
	}
	remotes := len(k.remotes)
	k.mu.Unlock()
	if len(ours) > 0 {
		if err := authority.ReportKeys(ctx, ours); err != nil {
			return err
		}
	}
	if remotes == 0 {
		return nil
	}
	states, err := db.KeyStates(ctx, now.Add(-reportsSince))
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for keyID, s := range best(states) {
		if remote := k.remotes[keyID]; remote != nil {
			remote.Report(s)
		}
	}
	return nil
}

// best is what counts of each key where several replicas hold it: the newest
// word of one that has it at hand, else the newest.
func best(states []store.KeyState) map[string]signer.State {
	found := map[string]signer.State{}
	for _, state := range states {
		var s signer.State
		if json.Unmarshal([]byte(state.State), &s) != nil {
			continue
		}
		old, ok := found[state.KeyID]
		if here, there := s.Away == "", old.Away == ""; !ok || here && !there || here == there && s.At.After(old.At) {
			found[state.KeyID] = s
		}
	}
	return found
}

// close lets go of all keys, of a keyring that was never watched.
func (k *keyring) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.queues {
		r.queue.Close()
	}
}

// all returns the open keys, in a fixed order.
func (k *keyring) all() []*ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedFunc(maps.Values(k.queues), func(a, b *ring) int { return strings.Compare(a.keyID, b.keyID) })
}

// find returns the queue of a key, nil if it isn't here, and its URIs.
func (k *keyring) find(id string) (*signer.Queue, []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.queues {
		if r.keyID == id {
			return r.queue, r.uris
		}
	}
	return nil, nil
}

// sameKey reports whether two public keys are one.
func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
