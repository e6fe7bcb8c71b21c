//go:build linux && pcsc && cgo

package login_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/login"
	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// One person's key in one reader, for all tests, which run one after the other;
// libpcsclite knows one pcscd in a process's life.
var (
	readers *reader.Reader
	maker   *softcard.Maker
	card    *softcard.Card
	public  *ecdsa.PublicKey // of slot 9a
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "pcscd") // not t.TempDir: a socket's path is bounded
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if readers, err = reader.Start(dir, 2); err != nil {
		return 1, err
	}
	defer readers.Close()
	name, value, _ := strings.Cut(readers.Env()[0], "=")
	if err := os.Setenv(name, value); err != nil {
		return 1, err
	}
	if maker, err = softcard.NewMaker(); err != nil {
		return 1, err
	}
	if card, err = softcard.New(softcard.Options{Serial: 1001, Maker: maker}); err != nil {
		return 1, err
	}
	if err := readers.Insert(0, card); err != nil {
		return 1, err
	}
	k, _, err := new(yubikey.Cards).Generate(context.Background(), "yubikey:slot=9a", yubikey.GenerateOptions{
		KeyType: cert.P256, TouchPolicy: yubikey.TouchAlways, PIN: func(context.Context) ([]byte, error) { return []byte(softcard.DefaultPIN), nil },
	})
	if err != nil {
		return 1, err
	}
	public = k.Public().(*ecdsa.PublicKey)
	if err := k.Close(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// desk is where a person sits.
type desk struct {
	login.Login
	mu   sync.Mutex
	told []string
	pins int
}

// newDesk has a login of a TLS and an SSH certificate at these CAs, with folders
// of its own.
func newDesk(t testing.TB, challenge protocol.ChallengeType, houses ...*house) *desk {
	t.Helper()
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
	d := new(desk)
	d.Login = login.Login{
		Certificates: []settings.Certificate{
			{Name: "tls", Kind: settings.TLS, Profile: "people", Identifiers: []string{"alice.people.internal"}, Challenge: challenge},
			{Name: "ssh", Kind: settings.SSH, Challenge: challenge, Into: []string{"files"}},
		},
		Cards: &yubikey.Cards{Person: true},
		State: login.State{Dir: filepath.Join(dir, "state", "chancery")},
		PIN: func(context.Context, string) ([]byte, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.pins++
			return []byte(softcard.DefaultPIN), nil
		},
		Tell: func(line string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.told = append(d.told, line)
		},
		Places:   place.Options{Home: dir, StateDir: filepath.Join(dir, "state"), RuntimeDir: filepath.Join(dir, "run")},
		Patience: 30 * time.Second,
	}
	for _, h := range houses {
		d.CAs = append(d.CAs, h.ca(t))
	}
	return d
}

// touches counts the card's signatures while do runs.
func touches(do func()) int {
	before := card.Signatures()
	do()
	return card.Signatures() - before
}

// wants checks that an error is one line that says all of this.
func wants(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v\nwants %q", err, text)
		}
	}
}

// says checks what the person was told.
func (d *desk) says(t *testing.T, texts ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	all := strings.Join(d.told, "\n")
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("told\n%s\nwants %q", all, text)
		}
	}
}

// nothing checks that no file of a login is left but its bookkeeping.
func (d *desk) nothing(t *testing.T) {
	t.Helper()
	for _, dir := range []string{d.State.Dir, os.Getenv("XDG_RUNTIME_DIR")} {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err == nil && !e.IsDir() && e.Name() != "held.json" && e.Name() != "lock" {
				t.Errorf("%s is left", path)
			}
			return err
		})
		check(t, err)
	}
}
