//go:build pcsc && cgo

package signer

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// TestYubiKey: two keys of one card behind pcscd sign, the card is pulled and
// put back.
func TestYubiKey(t *testing.T) {
	dir, err := os.MkdirTemp("", "pcscd") // not t.TempDir: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	readers, err := reader.Start(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer readers.Close()
	name, value, _ := strings.Cut(readers.Env()[0], "=")
	t.Setenv(name, value)
	card, err := softcard.New(softcard.Options{Serial: 4711})
	if err != nil {
		t.Fatal(err)
	}
	if err := readers.Insert(0, card); err != nil {
		t.Fatal(err)
	}

	cards := new(yubikey.Cards)
	pin := func(context.Context) ([]byte, error) { return []byte(softcard.DefaultPIN), nil }
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	var queues []*Queue
	for _, uri := range []string{"yubikey:serial=4711;slot=9c", "yubikey:slot=9a"} {
		if _, err := Open(ctx, uri, Options{Password: pin, Cards: cards}); err == nil || errors.Is(err, ErrAway) { // it won't come by itself
			t.Errorf("%s has no key yet: err = %v", uri, err)
		}
		if _, err := Open(ctx, "yubikey:serial=1;slot=9c", Options{Password: pin, Cards: cards}); !errors.Is(err, ErrAway) {
			t.Errorf("no such card: err = %v", err)
		}
		made, _, err := cards.Generate(ctx, uri, yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin})
		if err != nil {
			t.Fatal(err)
		}
		if err := made.Close(); err != nil {
			t.Error(err)
		}
		s, err := Open(ctx, uri, Options{Password: pin, Cards: cards})
		if err != nil {
			t.Fatal(err)
		}
		q := newQueue(t, QueueOptions{}, s)
		defer q.Close()
		watching.Go(func() { q.Watch(ctx) })
		queues = append(queues, q)
	}
	digest := sha256.Sum256([]byte("x"))
	works := func(q *Queue) error {
		sig, err := q.Sign(ctx, Request{}, digest[:], crypto.SHA256)
		if err == nil && !verifies(q.Public(), digest[:], sig) {
			t.Error("a signature doesn't verify")
		}
		return err
	}
	for _, q := range queues {
		if err := works(q); err != nil {
			t.Error(err)
		}
	}
	if err := readers.Remove(0); err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		if err := works(q); !errors.Is(err, ErrAway) {
			t.Errorf("pulled: err = %v", err)
		}
	}
	if err := readers.Insert(0, card); err != nil {
		t.Fatal(err)
	}
	for i, q := range queues {
		for start := time.Now(); !q.Usable(); time.Sleep(20 * time.Millisecond) {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("key %d doesn't come back: %s", i, q.Stats().Away)
			}
		}
		if err := works(q); err != nil {
			t.Error(err)
		}
	}
}
