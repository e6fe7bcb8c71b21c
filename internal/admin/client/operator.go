package client

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/secret"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Operator is who calls over TLS: a certificate, and its key in a file or in a
// YubiKey. One serves all CAs, and opens the card once; see At. It is safe for
// concurrent use. Close it.
type Operator struct {
	Certificate string // a PEM file, leaf first
	Key         string // a PEM file, or "yubikey:serial=…;slot=9a"
	Cards       *yubikey.Cards
	// PIN asks for the card's; it may block on a person.
	PIN func(context.Context) ([]byte, error)
	// Touch is told before each signature of a card, which may wait for a
	// finger; may be nil.
	Touch func()

	mu     sync.Mutex
	pair   *tls.Certificate // of a card, once loaded
	failed error            // to load, which isn't tried again: a wrong PIN costs a try
	cards  *cards           // those that are open, At's too
}

// cards are keys in cards, by URI.
type cards struct {
	mu   sync.Mutex
	keys map[string]*yubikey.Key
	errs map[string]error // why one couldn't be opened
}

// At is the same operator with another certificate and key, for a CA that
// doesn't know the first. Closing o closes it. It must be called before o is
// used.
func (o *Operator) At(certificate, key string) *Operator {
	if o.cards == nil {
		o.cards = new(cards)
	}
	return &Operator{Certificate: certificate, Key: key, Cards: o.Cards, PIN: o.PIN, Touch: o.Touch, cards: o.cards}
}

// open opens a card once.
func (c *cards) open(ctx context.Context, o *Operator) (*yubikey.Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[o.Key] != nil || c.errs[o.Key] != nil {
		return c.keys[o.Key], c.errs[o.Key]
	}
	if c.keys == nil {
		c.keys, c.errs = map[string]*yubikey.Key{}, map[string]error{}
	}
	key, err := o.Cards.Open(ctx, o.Key, o.PIN)
	if err != nil {
		c.errs[o.Key] = err
		return nil, err
	}
	c.keys[o.Key] = key
	return key, nil
}

// close gives back what is open.
func (c *cards) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, key := range c.keys {
		errs = append(errs, key.Close())
	}
	clear(c.keys)
	return errors.Join(errs...)
}

// maxPEM bounds a file with a certificate and its chain, or with a key.
const maxPEM = 256 << 10

// errOperator is wrapped by what is wrong with the operator's own files and
// card.
var errOperator = errors.New("the operator's certificate")

// String names the certificate.
func (o *Operator) String() string {
	if o == nil {
		return ""
	}
	return o.Certificate
}

// certificate loads the certificate and opens the key: a card's once, files at
// each handshake, since a program that goes on running finds renewed ones there.
func (o *Operator) certificate(ctx context.Context) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pair != nil || o.failed != nil {
		return o.pair, o.failed
	}
	pair, err := o.load(ctx)
	if err != nil {
		err = fmt.Errorf("%w %s: %w", errOperator, o.Certificate, err)
	}
	if o.onCard() {
		o.pair, o.failed = pair, err
	}
	return pair, err
}

func (o *Operator) onCard() bool { return strings.HasPrefix(o.Key, "yubikey:") }

func (o *Operator) load(ctx context.Context) (*tls.Certificate, error) {
	if o.Certificate == "" || o.Key == "" {
		return nil, errNobody
	}
	pair, err := readChain(o.Certificate)
	if err != nil {
		return nil, err
	}
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		return nil, fmt.Errorf("it ended at %s: chancery login gets a new one", end.Local().Format("2006-01-02 15:04"))
	}
	if !o.onCard() {
		pair.PrivateKey, err = readKey(o.Key)
	} else {
		if o.cards == nil {
			o.cards = new(cards)
		}
		var card *yubikey.Key
		card, err = o.cards.open(ctx, o)
		pair.PrivateKey = touched{card, o.Touch}
	}
	if err != nil {
		return nil, err
	}
	ours, ok := pair.PrivateKey.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !ours.Equal(pair.Leaf.PublicKey) {
		return nil, fmt.Errorf("its key is not %s", o.Key)
	}
	return pair, nil
}

// Close gives the card back, if it was opened.
func (o *Operator) Close() error {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pair = nil
	if o.cards == nil {
		return nil
	}
	return o.cards.close()
}

// touched says that a finger is wanted before it signs.
type touched struct {
	*yubikey.Key
	tell func()
}

// Sign tells, and signs.
func (t touched) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if t.tell != nil {
		t.tell()
	}
	sig, err := t.Key.Sign(rand, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOperator, err)
	}
	return sig, nil
}

func readChain(path string) (*tls.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM))
	if err != nil {
		return nil, err
	}
	pair := new(tls.Certificate)
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			pair.Certificate = append(pair.Certificate, block.Bytes)
		}
	}
	if len(pair.Certificate) == 0 {
		return nil, errors.New("the file has no PEM certificate")
	}
	pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	return pair, err
}

func readKey(path string) (crypto.Signer, error) {
	data, err := secret.Read(path, maxPEM)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s has no private key in PEM (PKCS #8)", path)
		}
		var key any
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		s, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%s: keys of type %T don't sign", path, key)
		}
		return s, nil
	}
}
