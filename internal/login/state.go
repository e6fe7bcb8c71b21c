package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/settings"
)

// State is the folder in which login keeps what it must remember: which
// certificates it put where. Files for programs lie there too.
type State struct{ Dir string }

// Held is a certificate that a login got. It is kept as JSON.
type Held struct {
	Name        string                 `json:"name"` // as in the settings
	Kind        settings.Kind          `json:"kind"`
	For         string                 `json:"for"` // names, for people
	CA          settings.CA            `json:"ca"`
	Challenge   protocol.ChallengeType `json:"challenge"`
	Serial      string                 `json:"serial"` // hex
	NotBefore   time.Time              `json:"not_before"`
	NotAfter    time.Time              `json:"not_after"`
	Certificate []byte                 `json:"certificate"` // DER, or SSH's bytes
	Placed      []place.Placed         `json:"placed"`
	Account     Account                `json:"account"`
}

// Account is the ACME account that got a certificate and so may revoke it
// (RFC 8555 section 7.6). Its key opens nothing else: every order needs a touch.
type Account struct {
	URL string `json:"url"`
	Key []byte `json:"key"` // PKCS #8
}

// file is held.json.
type file struct {
	Version int    `json:"version"`
	Held    []Held `json:"held"`
}

const (
	stateVersion = 1
	maxState     = 4 << 20
)

// StateDir is the user's state folder: XDG_STATE_HOME, or the system's place for
// such.
func StateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) { // others are to be ignored, says the specification
		return filepath.Join(dir, "chancery"), nil
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		dir, err := os.UserCacheDir() // %LocalAppData%, ~/Library/Caches
		if runtime.GOOS == "darwin" {
			dir, err = os.UserConfigDir() // ~/Library/Application Support
		}
		return filepath.Join(dir, "chancery"), err
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "chancery"), err
}

// runtimeDir is where the SSH certificates of device keys lie, for `chancery ssh
// agent`: gone when the user's last session ends, where the system has such a
// place.
func (s State) runtimeDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "chancery")
	}
	return s.Dir
}

func (s State) path() string { return filepath.Join(s.Dir, "held.json") }

// Held returns what logins got and no logout took away, expired or not.
func (s State) Held() ([]Held, error) {
	f, err := os.Open(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, err
	}
	var got file
	if err := json.Unmarshal(text, &got); err != nil || len(text) > maxState {
		return nil, fmt.Errorf("%s can't be read (%v): remove it, and what lies beside it", s.path(), err)
	}
	if got.Version != stateVersion {
		return nil, fmt.Errorf("%s is of another version of chancery: use that one to log out", s.path())
	}
	return got.Held, nil
}

// save writes all that is held, whole or not at all. Nothing needs no file, nor
// room on a full disk.
func (s State) save(all []Held) error {
	if len(all) == 0 {
		if err := os.Remove(s.path()); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.MarshalIndent(file{stateVersion, all}, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(s.path(), append(text, '\n'))
}

// put notes a certificate in the place of the one of its name, which it returns.
func (s State) put(h Held) (old *Held, err error) {
	all, err := s.Held()
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		h.inherit(o)
	}
	if i := slices.IndexFunc(all, func(o Held) bool { return o.Name == h.Name }); i >= 0 {
		before := all[i]
		old, all[i] = &before, h
	} else {
		all = append(all, h)
	}
	return old, s.save(all)
}

// inherit takes over what lay in a slot before the certificate of a login, of
// this name or another, that this one replaces there.
func (h Held) inherit(old Held) {
	for i, p := range h.Placed {
		for _, o := range old.Placed {
			if p.Target == o.Target && slices.Equal(p.Where, o.Where) && p.Was != nil && bytes.Equal(p.Was, old.Certificate) {
				h.Placed[i].Was = o.Was
			}
		}
	}
}

// writeFile writes a file that only its user can read, whole or not at all.
func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// lockWait is how long a login or logout waits for another one, which may wait
// for a touch.
const lockWait = 30 * time.Second

// lock keeps other logins and logouts out until unlock.
func (s State) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockWait)
	for {
		if err = lockFile(f); err == nil {
			return func() { f.Close() }, nil // which unlocks it
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("another chancery login or logout is at work (%w): end that first", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
