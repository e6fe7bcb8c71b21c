// Package softhsm makes SoftHSM 2 tokens for tests: a folder of tokens, a
// configuration and a copy of the module, all in a temporary folder.
//
// The module is a copy of Debian's because a process that loads it reads
// SOFTHSM2_CONF once: with a copy each, the HSMs of several tests live side by
// side in one process. Who loads the module, this process or a child, needs
// [HSM.Env] in its environment at that moment; [New] sets it for this process.
//
// It may import the standard library only; it is for tests.
package softhsm

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// system is where Debian's package softhsm2 puts the module.
const system = "/usr/lib/softhsm/libsofthsm2.so"

// HSM is one SoftHSM with its tokens.
type HSM struct {
	Module string // path of the module
	Conf   string // path of the configuration: SOFTHSM2_CONF
	dir    string
}

// New makes an HSM without tokens that vanishes with the test, and sets
// SOFTHSM2_CONF until then; so the test can't be parallel. It fails the test
// where softhsm2 isn't installed.
func New(t testing.TB) *HSM {
	t.Helper()
	h, err := In(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", h.Conf)
	return h
}

// In makes an HSM without tokens in an existing empty folder. It leaves the
// environment as it is.
func In(dir string) (*HSM, error) {
	library, err := os.ReadFile(system)
	if err != nil {
		return nil, fmt.Errorf("%w; install it: apt-get install softhsm2", err)
	}
	h := &HSM{Module: filepath.Join(dir, "libsofthsm2.so"), Conf: filepath.Join(dir, "softhsm2.conf"), dir: dir}
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.Module, library, 0o700); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", tokens)
	return h, os.WriteFile(h.Conf, []byte(conf), 0o600)
}

// Env is what a process that loads the module needs in its environment.
func (h *HSM) Env() string { return "SOFTHSM2_CONF=" + h.Conf }

// Token is one token with its PINs set.
type Token struct {
	Label, Serial string
	PIN           string
	PINFile       string // holds PIN, mode 0600
	Module        string // path of the module; a test may put another before it
}

// Token makes a token. Labels may be used twice; serials are SoftHSM's choice.
// A process that loaded the module before sees the token once it initializes
// the module anew.
func (h *HSM) Token(t testing.TB, label string) *Token {
	t.Helper()
	token, err := h.NewToken(label, "1234")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// NewToken is Token with a PIN of one's own, and an error.
func (h *HSM) NewToken(label, pin string) (*Token, error) {
	before, err := h.serials()
	if err != nil {
		return nil, err
	}
	if _, err := h.util("--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "5678-so"); err != nil {
		return nil, err
	}
	after, err := h.serials()
	if err != nil {
		return nil, err
	}
	for serial := range after {
		if !before[serial] {
			t := &Token{Label: label, Serial: serial, PIN: pin, PINFile: filepath.Join(h.dir, "pin-"+serial), Module: h.Module}
			return t, os.WriteFile(t.PINFile, []byte(pin+"\n"), 0o600)
		}
	}
	return nil, fmt.Errorf("softhsm2-util made no token %q", label)
}

// URI names a key of the token by label, with module and PIN file.
func (t *Token) URI(object string) string {
	return fmt.Sprintf("pkcs11:token=%s;object=%s?module-path=%s&pin-source=file:%s",
		url.PathEscape(t.Label), url.PathEscape(object), path(t.Module), path(t.PINFile))
}

// path escapes a path but for its slashes, which a URI's query may hold.
func path(p string) string { return strings.ReplaceAll(url.PathEscape(p), "%2F", "/") }

// util runs softhsm2-util on this HSM.
func (h *HSM) util(args ...string) ([]byte, error) {
	cmd := exec.Command("softhsm2-util", append(args, "--module", h.Module)...)
	cmd.Env = append(os.Environ(), h.Env())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("softhsm2-util %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return out, nil
}

// serials lists the serials of the tokens there are.
func (h *HSM) serials() (map[string]bool, error) {
	out, err := h.util("--show-slots")
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "Serial number" {
			if serial := strings.TrimSpace(value); serial != "" {
				found[serial] = true
			}
		}
	}
	return found, nil
}
