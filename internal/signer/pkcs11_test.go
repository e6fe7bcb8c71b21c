package signer

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/slowhsm"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// TestTwoTokensOneKey is what a NitroKey's encrypted export allows: two real
// tokens hold one key, are used side by side, one is pulled out while many
// wait, and comes back.
func TestTwoTokensOneKey(t *testing.T) {
	hsm := softhsm.New(t)
	slow := slowhsm.New(t, hsm.Module, hsm.Env())
	file := filepath.Join(t.TempDir(), "a.key")
	if _, err := Generate(cert.P256, file, nil); err != nil {
		t.Fatal(err)
	}
	tokens := []*softhsm.Token{hsm.Token(t, "left"), hsm.Token(t, "right")}
	var signers []*Signer
	for _, token := range tokens {
		label := token.Label
		out, err := exec.Command("softhsm2-util", "--import", file, "--token", label, "--label", "ca", "--id", "01", "--pin", token.PIN).CombinedOutput()
		if err != nil {
			t.Fatalf("softhsm2-util: %v\n%s", err, out)
		}
		slow.SetDelay(label, 10*time.Millisecond)
		token.Module = slow.Path
		s, err := Open(t.Context(), token.URI("ca"), Options{Password: PasswordFile(token.PINFile)})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Signer.(Key); !ok {
			t.Fatal("a PKCS#11 key is no Key")
		}
		signers = append(signers, s)
	}
	q := newQueue(t, QueueOptions{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, signers...)
	defer q.Close()
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { q.Watch(ctx) })
	defer watching.Wait()
	defer stop()

	var all sync.WaitGroup
	ask := func(n int) {
		for i := range n {
			all.Go(func() {
				digest := sha256.Sum256([]byte{byte(i)})
				sig, err := q.Sign(ctx, Request{Class: schedule.Class(i % 4), Client: fmt.Sprint(i % 5)}, digest[:], crypto.SHA256)
				if err != nil {
					t.Errorf("signature %d: %v", i, err)
				} else if !verifies(q.Public(), digest[:], sig) {
					t.Errorf("signature %d doesn't verify", i)
				}
			})
		}
	}
	ask(60)
	time.Sleep(100 * time.Millisecond)
	slow.Unplug("right")
	all.Wait()
	if s := q.Stats(); s.Tokens[1].Away == "" || s.Tokens[0].Away != "" || s.Away != "" {
		t.Errorf("%+v", s)
	}
	ask(20) // on one
	all.Wait()
	slow.Plug("right")
	for start := time.Now(); q.Stats().Tokens[1].Away != ""; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the token is back, and nobody noticed")
		}
	}
	before := slow.Signatures("right")
	ask(20)
	all.Wait()
	if n := slow.Signatures("right") - before; n < 5 {
		t.Errorf("the token that came back made %d of 20 signatures", n)
	}
	slow.Unplug("left")
	slow.Unplug("right")
	digest := sha256.Sum256(nil)
	if _, err := q.Sign(ctx, Request{}, digest[:], crypto.SHA256); !errors.Is(err, ErrAway) {
		t.Errorf("err = %v, want ErrAway", err)
	}
}

// TestOpenPKCS11 tells what isn't there from what is wrong.
func TestOpenPKCS11(t *testing.T) {
	token := softhsm.New(t).Token(t, "ca")
	o := Options{Password: PasswordFile(token.PINFile)}
	if _, err := Open(t.Context(), strings.Replace(token.URI("none"), "token=ca", "token=elsewhere", 1), o); !errors.Is(err, ErrAway) {
		t.Errorf("no such token: %v", err)
	}
	if _, err := Open(t.Context(), token.URI("none"), o); err == nil || errors.Is(err, ErrAway) { // it won't come by itself
		t.Errorf("no such key: %v", err)
	}
	if err := os.WriteFile(token.PINFile, []byte("000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), token.URI("none"), o); err == nil || errors.Is(err, ErrAway) {
		t.Errorf("wrong PIN: %v", err)
	}
}
