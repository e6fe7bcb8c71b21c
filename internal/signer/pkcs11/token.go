//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// token is one token as its slot showed it.
type token struct {
	slot      uint
	removable bool // a card or stick
	info      pkcs11.TokenInfo
}

// name is how messages call a token.
func (t token) name() string {
	return fmt.Sprintf("token %q (serial %s)", unpad(t.info.Label), unpad(t.info.SerialNumber))
}

// unpad takes away what fills a field of CK_TOKEN_INFO: spaces, and NULs in
// modules that don't know better.
func unpad(s string) string { return strings.TrimRight(s, " \x00") }

// find returns the one initialized token that matches. PINs are never tried to
// tell tokens apart, so two matches are an error even if only one of them
// holds the key.
func (m *module) find(u URI) (token, error) {
	slots, err := m.ctx.GetSlotList(true)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_BUFFER_TOO_SMALL)) {
		slots, err = m.ctx.GetSlotList(true) // a token came between count and list
	}
	if err != nil {
		return token{}, fmt.Errorf("PKCS#11 module %s: list tokens: %w", m.path, err)
	}
	var found []token
	var others []string
	for _, slot := range slots {
		t := token{slot: slot}
		if t.info, err = m.ctx.GetTokenInfo(slot); err != nil {
			others = append(others, fmt.Sprintf("slot-id=%d (can't be read: %v)", slot, err))
			continue
		}
		switch {
		case u.matches(t):
			found = append(found, t)
		case t.info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0:
			others = append(others, t.name())
		}
	}
	switch {
	case len(found) == 1:
		if s, err := m.ctx.GetSlotInfo(found[0].slot); err == nil {
			found[0].removable = s.Flags&pkcs11.CKF_REMOVABLE_DEVICE != 0
		}
		return found[0], nil
	case len(found) > 1:
		var names []string
		for _, t := range found {
			names = append(names, fmt.Sprintf("serial=%s (label %q, slot-id %d)", encode(unpad(t.info.SerialNumber), ":"), unpad(t.info.Label), t.slot))
		}
		return token{}, fmt.Errorf("%w: %s matches the tokens %s; add serial= of the one that is meant, or list each with its serial under the signer's keys if they hold the same key",
			ErrAmbiguous, u, list(names))
	case len(others) == 0:
		return token{}, fmt.Errorf("%w: no token matches %s, and the module shows no other; is it plugged in?", ErrAbsent, u)
	}
	return token{}, fmt.Errorf("%w: no token matches %s; there are %s", ErrAbsent, u, list(others))
}

// matches compares what the URI says of the token (RFC 7512 section 2.5).
func (u URI) matches(t token) bool {
	same := func(want, is string) bool { return want == "" || want == unpad(is) }
	return t.info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 &&
		(u.SlotID == nil || *u.SlotID == uint64(t.slot)) &&
		same(u.Token, t.info.Label) && same(u.Serial, t.info.SerialNumber) &&
		same(u.Manufacturer, t.info.ManufacturerID) && same(u.Model, t.info.Model)
}

// list joins names for a message, a bounded number of them.
func list(names []string) string {
	const most = 8
	if len(names) > most {
		names = append(names[:most:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}
