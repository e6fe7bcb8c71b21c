package sshagent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Options say what an agent does.
type Options struct {
	Keys   []string // URIs of slots, as in yubikey:serial=12345678;slot=9a
	Card   Card
	Folder string // where login puts certificates, *-cert.pub; "": none
	// Upstream is the socket of the user's own agent, which gets all that
	// isn't about Keys; "": there is none.
	Upstream string
	// Forwarded lets connections from other machines (ssh -A) use Keys.
	Forwarded bool
	// PIN asks the user for a key's PIN; the prompt says which key's, and what
	// for. It may block on a person; its answer is overwritten after use.
	PIN func(ctx context.Context, prompt string) ([]byte, error)
	// KeepPIN is how long a PIN is remembered where the key's policy is to
	// ask once: 0 never, negative as long as the agent runs.
	KeepPIN time.Duration
	// Tell shows the user a line, such as who wants a touch now; nil: nobody
	// looks.
	Tell   func(line string)
	Logger *slog.Logger // nil discards
}

// Agent is an ssh-agent. Its methods are safe for concurrent use.
type Agent struct {
	o    Options
	log  *slog.Logger
	keys []*key
	pins pins
	turn chan struct{} // holds one token: a person touches one key at a time

	mu   sync.Mutex
	lock *lock // nil: open
}

// signTime bounds one signature: PIN entry and touch.
const signTime = 2 * time.Minute

// New makes an agent.
func New(o Options) *Agent {
	a := &Agent{o: o, log: o.Logger, pins: pins{ask: o.PIN, keep: o.KeepPIN}, turn: make(chan struct{}, 1)}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.o.Tell == nil {
		a.o.Tell = func(string) {}
	}
	for _, uri := range o.Keys {
		a.keys = append(a.keys, &key{uri: uri})
	}
	return a
}

// Close forgets the PINs.
func (a *Agent) Close() { a.pins.forget() }

// identities are those of the cards, certificates first: a server that trusts the
// CA then asks for no touch in vain.
func (a *Agent) identities(ctx context.Context) []identity {
	if a.locked() {
		return nil
	}
	var certs, plain []identity
	for _, k := range a.keys {
		public, _, err := k.look(ctx, a.o.Card)
		if err != nil {
			a.log.Warn("a key is left out", "key", k.uri, "error", err)
			continue
		}
		certs = append(certs, certificates(a.o.Folder, public, time.Now())...)
		plain = append(plain, identity{public.Marshal(), k.uri})
	}
	return append(certs, plain...)
}

// find returns the key that a blob names, plain or in a certificate; nil if it
// is none of ours.
func (a *Agent) find(ctx context.Context, blob []byte) (*key, ssh.PublicKey) {
	named, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, nil
	}
	if cert, ok := named.(*ssh.Certificate); ok {
		named = cert.Key
	}
	for _, k := range a.keys {
		if public, _, err := k.look(ctx, a.o.Card); err == nil && string(public.Marshal()) == string(named.Marshal()) {
			return k, public
		}
	}
	return nil, nil
}

// sign decides about a request for one of our keys, and has it signed.
func (a *Agent) sign(ctx context.Context, k *key, public ssh.PublicKey, bound *bindings, data []byte, flags uint32) (*ssh.Signature, error) {
	if a.locked() {
		return nil, errors.New("the agent is locked")
	}
	r, err := Parse(data, public, flags)
	if err != nil {
		return nil, err
	}
	if err := bound.allow(r); err != nil {
		return nil, err
	}
	what := r.String()
	if through, ok := bound.forwarded(); ok {
		where := "an unknown host"
		if through != nil {
			where = "the host with key " + ssh.FingerprintSHA256(through)
		}
		if what += ", asked from " + where; !a.o.Forwarded {
			return nil, fmt.Errorf("%s: forwarded connections may not use this key (--forwarded lets them)", what)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, signTime, fmt.Errorf("nobody entered the PIN or touched the key within %v", signTime))
	defer cancel()
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if ctx.Err() != nil { // who asked may have gone while others had their turn
		return nil, context.Cause(ctx)
	}
	touch := func() { a.o.Tell("touch the key now: " + what) }
	signature, err := k.sign(ctx, a.o.Card, &a.pins, wanted{r.Algorithm, data, what}, touch)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	a.log.Info("signed", "key", k.uri, "for", what)
	return signature, nil
}

// lock is the state of ssh-add -x. The passphrase isn't kept.
type lock struct{ salt, sum [sha256.Size]byte }

func newLock(passphrase []byte) *lock {
	l := new(lock)
	rand.Read(l.salt[:])
	l.sum = l.hash(passphrase)
	return l
}

func (l *lock) hash(passphrase []byte) [sha256.Size]byte {
	return sha256.Sum256(append(l.salt[:], passphrase...))
}

func (a *Agent) locked() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lock != nil
}

// setLock locks the cards' keys, and forgets their PINs; false if they are
// locked.
func (a *Agent) setLock(passphrase []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lock != nil {
		return false
	}
	a.lock = newLock(passphrase)
	a.pins.forget()
	return true
}

// clearLock opens them again; false where the passphrase is another.
func (a *Agent) clearLock(passphrase []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lock == nil {
		return false
	}
	if sum := a.lock.hash(passphrase); subtle.ConstantTimeCompare(sum[:], a.lock.sum[:]) != 1 {
		return false
	}
	a.lock = nil
	return true
}
