package sshagent

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Card is what the agent asks of the security keys that are plugged in. Both
// block on the card.
type Card interface {
	// Look reads a slot's public key and its PIN policy. It needs no PIN.
	Look(ctx context.Context, uri string) (crypto.PublicKey, yubikey.PINPolicy, error)
	// Open makes the key ready to sign, with the PIN from pin where it wants
	// one. No other program can use the card until Close.
	Open(ctx context.Context, uri string, pin func(context.Context) ([]byte, error)) (OpenKey, error)
}

// OpenKey is a key that can sign now.
type OpenKey interface {
	crypto.Signer
	io.Closer
}

// Cards is Card over the real readers. There is one per process.
type Cards struct{ cards yubikey.Cards }

// Look attests the slot's key: what wasn't made in the device isn't for us.
func (c *Cards) Look(ctx context.Context, uri string) (crypto.PublicKey, yubikey.PINPolicy, error) {
	a, public, err := c.cards.Attest(ctx, uri)
	if err != nil {
		return nil, 0, err
	}
	return public, a.PINPolicy, nil
}

// Open opens the key.
func (c *Cards) Open(ctx context.Context, uri string, pin func(context.Context) ([]byte, error)) (OpenKey, error) {
	return c.cards.Open(ctx, uri, pin)
}

// key is a slot. What it holds is remembered once seen, so that listing keys
// doesn't need the card, and a card that is away still has its names.
type key struct {
	uri string

	mu     sync.Mutex
	public ssh.PublicKey // nil: not seen yet
	policy yubikey.PINPolicy
}

// look returns the slot's key, from the card if it wasn't seen yet.
func (k *key) look(ctx context.Context, card Card) (ssh.PublicKey, yubikey.PINPolicy, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.public != nil {
		return k.public, k.policy, nil
	}
	public, policy, err := card.Look(ctx, k.uri)
	if err != nil {
		return nil, 0, err
	}
	if k.public, err = sshca.NewKey(public); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", k.uri, err)
	}
	k.policy = policy
	return k.public, policy, nil
}

// identity is a line of what the agent lists.
type identity struct {
	blob    []byte
	comment string
}

// Bounds on the folder of certificates: it is the user's own, but a listing must
// not become long by what lies about there.
const (
	maxFiles = 64
	maxFile  = 64 << 10
)

// certificates reads the folder anew, since login writes there at any time: every
// user certificate for the key that is valid now. Whatever else lies there is
// left alone.
func certificates(folder string, plain ssh.PublicKey, now time.Time) []identity {
	names, err := filepath.Glob(filepath.Join(folder, "*-cert.pub"))
	if err != nil || folder == "" {
		return nil
	}
	slices.Sort(names)
	var found []identity
	for _, name := range names[:min(len(names), maxFiles)] {
		data, err := readBounded(name)
		if err != nil {
			continue
		}
		parsed, comment, _, _, err := ssh.ParseAuthorizedKey(data)
		cert, ok := parsed.(*ssh.Certificate)
		if err != nil || !ok || cert.CertType != ssh.UserCert || !bytes.Equal(cert.Key.Marshal(), plain.Marshal()) {
			continue
		}
		if unix := uint64(now.Unix()); unix >= cert.ValidBefore || unix < cert.ValidAfter {
			continue // each one offered counts as a try at the server
		}
		comment = cmp.Or(comment, strings.TrimSuffix(filepath.Base(name), "-cert.pub"))
		found = append(found, identity{cert.Marshal(), comment})
	}
	return found
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// wanted is one signature: its algorithm, what is signed, and for people, what it
// is for.
type wanted struct {
	algorithm string
	data      []byte
	what      string
}

// sign has the card make one signature, and checks it. touch is called when
// nothing but a finger is missing.
func (k *key) sign(ctx context.Context, card Card, pins *pins, w wanted, touch func()) (*ssh.Signature, error) {
	public, policy, err := k.look(ctx, card)
	if err != nil {
		return nil, err
	}
	opened, err := card.Open(ctx, k.uri, pins.source(k.uri, policy, w.what))
	if err != nil {
		if errors.Is(err, yubikey.ErrPIN) {
			pins.forget()
		}
		return nil, err
	}
	defer opened.Close()
	signer, err := ssh.NewSignerFromSigner(opened)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
		return nil, fmt.Errorf("%s holds another key than before: start the agent anew", k.uri)
	}
	by, ok := signer.(ssh.AlgorithmSigner)
	if !ok {
		return nil, fmt.Errorf("%s: keys of type %s don't sign", k.uri, public.Type())
	}
	touch()
	signature, err := by.SignWithAlgorithm(rand.Reader, w.data, w.algorithm)
	if err != nil {
		return nil, err
	}
	if err := public.Verify(w.data, signature); err != nil {
		return nil, fmt.Errorf("%s: the card made a signature that doesn't verify", k.uri)
	}
	return signature, nil
}

// pins remembers one card's PINs for as long as it is told to.
type pins struct {
	ask func(ctx context.Context, prompt string) ([]byte, error)
	// How long; 0: never, negative: as long as the agent runs.
	keep time.Duration

	mu    sync.Mutex
	known map[string][]byte // by URI
	until *time.Timer
}

// source gives the PIN to the card, which is asked for at most once in a call.
// A key whose policy is "always" is one whose owner wants to be asked.
func (p *pins) source(uri string, policy yubikey.PINPolicy, what string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		p.mu.Lock()
		known := bytes.Clone(p.known[uri])
		p.mu.Unlock()
		if known != nil {
			return known, nil
		}
		if p.ask == nil {
			return nil, errors.New("there is nobody to ask for the PIN")
		}
		pin, err := p.ask(ctx, fmt.Sprintf("PIN of %s, for %s", uri, what))
		if err == nil && policy == yubikey.PINOnce && p.keep != 0 {
			p.remember(uri, pin)
		}
		return pin, err
	}
}

func (p *pins) remember(uri string, pin []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[string][]byte{}
	}
	p.known[uri] = bytes.Clone(pin)
	if p.until != nil {
		p.until.Stop()
	}
	if p.keep > 0 {
		p.until = time.AfterFunc(p.keep, p.forget)
	}
}

// forget overwrites what is remembered.
func (p *pins) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for uri, pin := range p.known {
		clear(pin)
		delete(p.known, uri)
	}
}
