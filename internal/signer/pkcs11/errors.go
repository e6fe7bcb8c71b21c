package pkcs11

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart. What wraps them names the token and says
// what to do; none holds a PIN.
var (
	// ErrPIN is wrapped when there is no PIN, the token refused it now or
	// earlier, or the token is locked. Trying again with the same PIN is
	// pointless and does nothing.
	ErrPIN = errors.New("PIN")
	// ErrGone is wrapped when the token doesn't answer any more, or forgot
	// this process: pulled out, restarted, logged out. Reopen may help.
	ErrGone = errors.New("token is gone")
	// ErrInput blames what was to be signed, which this kind of token can't:
	// the token is as good as before.
	ErrInput = errors.New("can't be signed")
	// ErrAmbiguous is wrapped when several tokens or keys match one URI.
	ErrAmbiguous = errors.New("more than one match")
	// ErrNotFound is wrapped when no token or key matches the URI.
	ErrNotFound = errors.New("not found")
	// ErrAbsent is an ErrNotFound for a token: it may be plugged in later,
	// while a key that isn't on a token that is there won't come by itself.
	ErrAbsent = fmt.Errorf("token %w", ErrNotFound)
)
