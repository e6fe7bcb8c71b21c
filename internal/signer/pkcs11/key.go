//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
)

// Key is a private key in a token. It is safe for concurrent use.
type Key struct {
	uri URI
	pin func(context.Context) ([]byte, error)

	// Set by Open and never changed.
	public   crypto.PublicKey
	parallel int

	reopening sync.Mutex // one Reopen at a time
	module    *module    // guarded by reopening

	mu     sync.Mutex
	live   *live  // nil: gone
	token  string // as last seen
	reason error  // why live is nil
	closed bool
}

// live is a key as long as its token stays.
type live struct {
	session   // of the token, for its calls; the handle is one of those in free
	private   pkcs11.ObjectHandle
	mechanism uint

	free chan pkcs11.SessionHandle
	lost chan struct{} // closed when the token was found gone; lets those go who wait for free

	mu     sync.Mutex // guards ended, and that nothing enters free after
	ended  bool
	reason error // why
}

// Open finds the private key that an RFC 7512 URI names and proves with one
// signature that the token can use it. The pin function is asked at most once,
// and only when the token wants a login and this process has none; where the
// URI has a pin-source, that file is read instead. The bytes it returns are
// wiped.
//
// It blocks on the module, which can't be interrupted, and on the pin
// function. Its errors wrap ErrPIN, ErrNotFound or ErrAmbiguous, and name the
// module or token and what to do.
func Open(ctx context.Context, uri string, pin func(context.Context) ([]byte, error)) (*Key, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	return open(ctx, u, pin)
}

func open(ctx context.Context, u URI, pin func(context.Context) ([]byte, error)) (*Key, error) {
	k := newKey(u, pin)
	l, err := k.connect(ctx)
	if err != nil {
		return nil, err
	}
	k.live, k.parallel, k.token = l, cap(l.free), l.token.name()
	return k, nil
}

func newKey(u URI, pin func(context.Context) ([]byte, error)) *Key {
	if u.PINSource != "" {
		pin = pinFile(u.PINSource)
	}
	return &Key{uri: u, pin: pin}
}

// Public returns an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey. It
// never changes, not by Reopen either.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Parallel is how many signatures the token is given at once: 1 for a card or
// stick, whose queue must be ours so that its order is, up to 8 for others, or
// as chancery-parallel in the URI says. More callers of Sign wait.
func (k *Key) Parallel() int { return k.parallel }

// Token is the token's label and serial as last seen, for messages.
func (k *Key) Token() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.token
}

// Sign signs a digest: ECDSA as ASN.1, RSA as PKCS#1 v1.5, and for Ed25519 the
// message itself. The first argument isn't used: tokens have their own
// randomness. It blocks until the token is done, however long that takes.
//
// ErrGone is wrapped when the token failed, now or earlier: every further call
// fails at once until Reopen succeeds. ErrInput is wrapped where the arguments
// are surely to blame; other errors say nothing sure, and Reopen tries the key.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	msg, err := message(k.public, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", k.Token(), ErrInput, err)
	}
	l, err := k.current()
	if err != nil {
		return nil, err
	}
	l.calls.RLock()
	defer l.calls.RUnlock()
	s, err := l.take()
	if err != nil {
		return nil, err
	}
	raw, err := s.sign(l.private, l.mechanism, msg)
	if err != nil && !inputFault(err) {
		err = k.lose(l, err)
	} else if err != nil {
		if errors.Is(err, pkcs11.Error(pkcs11.CKR_DATA_LEN_RANGE)) {
			err = fmt.Errorf("%w: %w", ErrInput, err)
		}
		err = fmt.Errorf("%s: sign: %w", l.token.name(), err)
	}
	l.put(s)
	if err != nil {
		return nil, err
	}
	sig, err := signature(k.public, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.token.name(), err)
	}
	return sig, nil
}

// Probe asks the module whether the token is there, without a signature: an
// idle token that was pulled out is noticed so. The error wraps ErrGone, and
// from then on Sign fails as well. It blocks on the module.
func (k *Key) Probe() error {
	l, err := k.current()
	if err != nil {
		return err
	}
	l.calls.RLock()
	defer l.calls.RUnlock()
	s, err := l.take() // the session keeps the module from being ended meanwhile
	if err != nil {
		return err
	}
	info, err := l.module.ctx.GetTokenInfo(l.token.slot)
	if err == nil && info.SerialNumber != l.token.info.SerialNumber {
		err = errors.New("another token is in its place")
	}
	if err != nil {
		err = k.lose(l, err)
	}
	l.put(s)
	return err
}

// inputFault tells errors that blame what was asked from those after which the
// token must be opened anew: that is every other one, since what modules
// return for a token that was pulled out is any of a dozen codes.
func inputFault(err error) bool {
	code, ok := errors.AsType[pkcs11.Error](err)
	return ok && slices.Contains([]uint{
		pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE, pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_KEY_TYPE_INCONSISTENT,
		pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID,
	}, uint(code))
}

// Reopen finds the token again, logs in and proves with one signature that it
// holds the same key; what was open before is closed first. It returns nil and
// does the same when the token never went. It offers no PIN that was refused,
// and none where the token says that the next wrong one locks it.
//
// It blocks like Open; a second call waits for the first. Its errors wrap
// ErrPIN, ErrNotFound, ErrAmbiguous, or ErrGone after Close.
func (k *Key) Reopen(ctx context.Context) error {
	k.reopening.Lock()
	defer k.reopening.Unlock()
	k.mu.Lock()
	old, closed := k.live, k.closed
	k.mu.Unlock()
	if closed {
		return fmt.Errorf("%s: %w: closed", k.Token(), ErrGone)
	}
	if old != nil {
		k.lose(old, errors.New("opened anew"))
	}
	l, err := k.connect(ctx)
	k.mu.Lock()
	closed = k.closed
	switch {
	case closed: // meanwhile
	case err != nil:
		k.reason = err
	default:
		k.live, k.token, k.reason = l, l.token.name(), nil
	}
	k.mu.Unlock()
	if closed && err == nil {
		l.end(ErrGone)
		return fmt.Errorf("%s: %w: closed", k.Token(), ErrGone)
	}
	return err
}

// Close ends the key's sessions; signatures under way are finished. Other keys
// of the token stay open. It may block on the module.
func (k *Key) Close() error {
	k.mu.Lock()
	l := k.live
	k.live, k.closed, k.reason = nil, true, errors.New("closed")
	k.mu.Unlock()
	if l != nil {
		l.end(fmt.Errorf("%s: %w: closed", l.token.name(), ErrGone))
	}
	return nil
}

func (k *Key) current() (*live, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.live == nil {
		return nil, fmt.Errorf("%s: %w: %w", k.token, ErrGone, k.reason)
	}
	return k.live, nil
}

// lose takes a token out that failed with err, and returns the error for those
// who wanted a signature of it.
func (k *Key) lose(l *live, err error) error {
	err = fmt.Errorf("%s: %w: %w", l.token.name(), ErrGone, err)
	k.mu.Lock()
	if k.live == l {
		k.live, k.reason = nil, err
	}
	k.mu.Unlock()
	l.end(err)
	return err
}

// connect opens sessions, logs in, finds the key and tries it. A module that
// doesn't show the token is initialized anew, once, if no other key uses it.
func (k *Key) connect(ctx context.Context) (_ *live, err error) {
	if k.module == nil {
		if k.module, err = process.load(k.uri); err != nil {
			return nil, err
		}
	}
	l, err := k.try(ctx)
	_, module := errors.AsType[pkcs11.Error](err)
	if (module || errors.Is(err, ErrAbsent)) && !errors.Is(err, ErrPIN) && ctx.Err() == nil && k.module.renew() {
		return k.try(ctx)
	}
	return l, err
}

func (k *Key) try(ctx context.Context) (_ *live, err error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	m := k.module
	m.calls.RLock()
	defer m.calls.RUnlock()
	t, err := m.find(k.uri)
	if err != nil {
		return nil, err
	}
	s, err := m.openSession(t, 0)
	if err != nil {
		return nil, err
	}
	// Open sessions keep the login; so close only after a failure.
	handles := []pkcs11.SessionHandle{s.handle}
	defer func() {
		if err != nil {
			for _, h := range handles {
				m.ctx.CloseSession(h)
			}
		}
	}()
	if err := m.logIn(ctx, s.handle, t, k.pin); err != nil {
		return nil, err
	}
	l := &live{session: s, lost: make(chan struct{})}
	if err := k.prove(l); err != nil {
		return nil, err
	}
	for len(handles) < k.sessions(t) {
		more, err := m.openSession(t, 0)
		if err != nil {
			break // a token may have fewer sessions than it says
		}
		handles = append(handles, more.handle)
	}
	l.free = make(chan pkcs11.SessionHandle, len(handles))
	for _, h := range handles {
		l.free <- h
	}
	m.open.Add(1)
	return l, nil
}

// openSession opens a session; flags beside CKF_SERIAL_SESSION.
func (m *module) openSession(t token, flags uint) (session, error) {
	h, err := m.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION|flags)
	if err != nil {
		return session{}, fmt.Errorf("%s: open a session: %w", t.name(), err)
	}
	return session{m, h, t}, nil
}

// sessions is how many a token gets.
func (k *Key) sessions(t token) int {
	n := k.uri.Parallel
	if n == 0 {
		n = defaultParallel
		if t.removable {
			n = 1
		}
	}
	// 0 is CK_EFFECTIVELY_INFINITE.
	if most := t.info.MaxSessionCount; most != 0 && most != ckUnavailable && most < uint(n) {
		n = int(most)
	}
	return n
}

// prove finds the private key and its public key, and shows with a signature
// over a fixed text, which can't be mistaken for a certificate, that they
// belong together and that the token may use them. Where the public
// key is known already it must be that one.
func (k *Key) prove(l *live) (err error) {
	if l.private, err = l.session.private(k.uri); err != nil {
		return err
	}
	if l.mechanism, err = l.session.mechanism(l.private); err != nil {
		return err
	}
	if b := l.attribute(l.private, pkcs11.CKA_ALWAYS_AUTHENTICATE); len(b) == 1 && b[0] != 0 {
		return fmt.Errorf("%s wants its PIN again for each signature of this key, which a server can't give; use a key made without that (for a YubiKey: a yubikey: URI)", l.token.name())
	}
	candidates := []crypto.PublicKey{k.public}
	if k.public == nil {
		if candidates, err = l.publics(l.private, l.mechanism); err != nil {
			return err
		}
	}
	digest := sha256.Sum256([]byte(testMessage))
	msg := digest[:]
	if l.mechanism == pkcs11.CKM_RSA_PKCS {
		prefix, _ := digestInfo(crypto.SHA256)
		msg = slices.Concat(prefix, msg)
	}
	raw, err := l.sign(l.private, l.mechanism, msg)
	if err != nil {
		return fmt.Errorf("%s can't sign with the key that %s names: %w", l.token.name(), k.uri, err)
	}
	for _, c := range candidates {
		if sig, err := signature(c, raw); err == nil && check(c, digest[:], sig) {
			if k.public == nil { // Sign reads it without a lock
				k.public = c
			}
			return nil
		}
	}
	if k.public != nil {
		return fmt.Errorf("private key %w: %s holds another key under %s than the one expected", ErrNotFound, l.token.name(), k.uri)
	}
	return fmt.Errorf("%s: the public key shown for %s doesn't belong to the private key; remove the wrong public key object or certificate", l.token.name(), k.uri)
}

// take waits for a free session.
func (l *live) take() (session, error) {
	select {
	case h := <-l.free:
		return session{l.module, h, l.token}, nil
	case <-l.lost:
		l.mu.Lock()
		defer l.mu.Unlock()
		return session{}, l.reason
	}
}

// put gives a session back; of a lost token it is closed.
func (l *live) put(s session) {
	l.mu.Lock()
	ended := l.ended
	if !ended {
		l.free <- s.handle // has room for all there are
	}
	l.mu.Unlock()
	if ended {
		l.ctx.CloseSession(s.handle)
	}
}

// end closes the sessions that aren't at work; the others follow in put. The
// module isn't renewed meanwhile, as the count of open keys falls last.
func (l *live) end(reason error) {
	l.mu.Lock()
	ended := l.ended
	if !ended {
		l.ended, l.reason = true, reason
		close(l.lost)
	}
	l.mu.Unlock()
	if ended {
		return
	}
	for {
		select {
		case h := <-l.free:
			l.ctx.CloseSession(h)
		default:
			l.module.open.Add(-1)
			return
		}
	}
}
