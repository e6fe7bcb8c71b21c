//go:build cgo

package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// pinState is what this process knows of a PIN on a token.
type pinState int

const (
	_           pinState = iota
	pinAccepted          // it was right once
	pinRefused           // never offer it again
)

// login logs the process in to the token of a session, unless it is already.
// It asks for the PIN only then, and calls C_Login at most once. A token whose
// next wrong PIN would be the last is left alone: a server that is restarted
// again and again remembers nothing.
func (m *module) logIn(ctx context.Context, s pkcs11.SessionHandle, t token, pin func(context.Context) ([]byte, error)) error {
	if t.info.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	m.login.Lock()
	defer m.login.Unlock()
	state, err := m.ctx.GetSessionInfo(s)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name(), err)
	}
	if state.State == pkcs11.CKS_RO_USER_FUNCTIONS || state.State == pkcs11.CKS_RW_USER_FUNCTIONS {
		return nil // another key of this process logged in
	}
	// Read again under the lock: another login may just have used up a try.
	if t.info, err = m.ctx.GetTokenInfo(t.slot); err != nil {
		return fmt.Errorf("%s: %w", t.name(), err)
	}
	if err := mayTry(t); err != nil {
		return err
	}
	if pin == nil {
		return fmt.Errorf("%w for %s is missing: name a file with pin_file or pin-source=file:/path", ErrPIN, t.name())
	}
	secret, err := pin(ctx)
	defer clear(secret)
	switch {
	case err != nil:
		return fmt.Errorf("%w for %s: %w", ErrPIN, t.name(), err)
	case len(secret) == 0:
		return fmt.Errorf("%w for %s is empty", ErrPIN, t.name())
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return m.offer(s, t, secret)
}

// mayTry looks at what the token says of its PIN before any is offered.
func mayTry(t token) error {
	switch {
	case t.info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w of %s is locked, after too many wrong ones; its security officer can set a new one", ErrPIN, t.name())
	case t.info.Flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
		return fmt.Errorf("%w of %s was never set; its security officer must set one first", ErrPIN, t.name())
	case t.info.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0:
		return fmt.Errorf("%w of %s must be entered on the token's own keypad, which a server can't do", ErrPIN, t.name())
	case t.info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("%w of %s isn't tried: the token says that the next wrong one locks it; a right one brings its tries back: pkcs11-tool --module MODULE --login --list-objects", ErrPIN, t.name())
	}
	return nil
}

// offer calls C_Login once, unless this very PIN was refused before. The
// caller holds m.login.
func (m *module) offer(s pkcs11.SessionHandle, t token, secret []byte) error {
	hash := m.hash(t, secret)
	if m.pins[hash] == pinRefused {
		return fmt.Errorf("%w for %s is one that the token has refused already, so it isn't tried again (%s); put the right one in its place, or restart if it has become right", ErrPIN, t.name(), triesLeft(t))
	}
	// The binding copies the PIN into a C string and frees it; a Go string
	// can't be wiped either. What is left is memory of a process that can ask
	// the token to sign anyway.
	err := m.ctx.Login(s, pkcs11.CKU_USER, string(secret))
	if err == nil || errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		if err == nil {
			m.pins[hash] = pinAccepted
		}
		return nil
	}
	info, infoErr := m.ctx.GetTokenInfo(t.slot)
	if infoErr == nil {
		t.info = info
	}
	if !m.refused(err, hash, t, infoErr == nil) {
		return fmt.Errorf("%s: login: %w", t.name(), err)
	}
	m.pins[hash] = pinRefused
	return fmt.Errorf("%w for %s was refused (%w): %s; it won't be tried again, put the right one in its place", ErrPIN, t.name(), err, triesLeft(t))
}

// refused judges a failed C_Login. Some modules hide a wrong PIN behind a
// general error, so in doubt it was refused: a restart is cheaper than a locked
// token. No doubt where the token is gone, or where the PIN was right before
// and the token counts no wrong one.
func (m *module) refused(err error, hash [32]byte, t token, readable bool) bool {
	code, _ := errors.AsType[pkcs11.Error](err)
	switch {
	case slices.Contains([]uint{pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE,
		pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED}, uint(code)):
		return true
	case slices.Contains([]uint{pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_SESSION_HANDLE_INVALID,
		pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_HOST_MEMORY,
		pkcs11.CKR_USER_PIN_NOT_INITIALIZED, pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, pkcs11.CKR_USER_TOO_MANY_TYPES}, uint(code)):
		return false
	}
	counted := t.info.Flags&(pkcs11.CKF_USER_PIN_COUNT_LOW|pkcs11.CKF_USER_PIN_FINAL_TRY|pkcs11.CKF_USER_PIN_LOCKED) != 0
	return m.pins[hash] != pinAccepted || readable && counted
}

// hash names a PIN on a token in memory without holding it.
func (m *module) hash(t token, secret []byte) [32]byte {
	h := sha256.New()
	h.Write(m.salt[:])
	// %q keeps the parts apart.
	fmt.Fprintf(h, "%q %q %q ", t.info.ManufacturerID, t.info.Label, t.info.SerialNumber)
	h.Write(secret)
	return [32]byte(h.Sum(nil))
}

// triesLeft says what the flags of CK_TOKEN_INFO tell (base specification
// 2.40, section 3.3); PKCS#11 has no count.
func triesLeft(t token) string {
	switch flags := t.info.Flags; {
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return "the token is locked now"
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return "one try is left, a wrong PIN there locks the token"
	case flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return "the token counts wrong PINs since the last right one, and more than one try is left"
	}
	return "the token doesn't say how many tries are left"
}
