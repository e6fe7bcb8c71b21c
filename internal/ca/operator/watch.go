package operator

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Advisory is an advisory and the active devices that it refuses.
type Advisory struct {
	protocol.Advisory
	Devices []Device
}

// Advisories lists the ranges of firmware that are refused.
func (o *Console) Advisories(ctx context.Context, who Caller) ([]Advisory, error) {
	if err := o.operate(ctx, who, "advisory.list", "", nil); err != nil {
		return nil, err
	}
	list, err := o.db.Advisories(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Advisory, len(list))
	for i, a := range list {
		if out[i], err = o.affected(ctx, a); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// affected finds the active devices that an advisory refuses.
func (o *Console) affected(ctx context.Context, a protocol.Advisory) (Advisory, error) {
	active, err := every(ctx, o.db, store.DeviceFilter{State: protocol.DeviceActive})
	if err != nil {
		return Advisory{}, err
	}
	refused := slices.DeleteFunc(active, func(d protocol.Device) bool { return refusedBy([]protocol.Advisory{a}, d.Firmware) == "" })
	views, err := o.views(ctx, refused)
	return Advisory{Advisory: a, Devices: views}, err
}

// maxLabel bounds what people call things.
const maxLabel = 100

// AddAdvisory refuses a range of firmware: such devices aren't enrolled, and
// get no more certificates. Those they have stay as they are.
func (o *Console) AddAdvisory(ctx context.Context, who Caller, a protocol.Advisory) (Advisory, error) {
	a.CreatedAt = o.clock()
	err := o.operate(ctx, who, "advisory.add", cut(a.ID, maxLabel), func(tx *store.Tx, e *audit.Entry) error {
		e.Detail = map[string]any{"first": cut(a.First, maxLabel), "last": cut(a.Last, maxLabel)}
		first, err1 := yubikey.ParseFirmware(a.First)
		last, err2 := yubikey.ParseFirmware(a.Last)
		switch {
		case a.ID == "" || len(a.ID) > maxLabel || strings.Trim(a.ID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "":
			return bad("an advisory's id is 1 to %d letters, digits and ._-, as in YSA-2024-03", maxLabel)
		case err1 != nil || err2 != nil:
			return bad("%v", errors.Join(err1, err2))
		case !last.AtLeast(first.Major, first.Minor, first.Patch):
			return bad("firmware %s comes after %s: give the older one first", a.First, a.Last)
		}
		err := tx.InsertAdvisory(a)
		if errors.Is(err, store.ErrConflict) {
			return bad("there is an advisory %s already: withdraw it first", a.ID)
		}
		return err
	})
	if err != nil {
		return Advisory{}, err
	}
	return o.affected(ctx, a)
}

// WithdrawAdvisory takes the range of firmware again.
func (o *Console) WithdrawAdvisory(ctx context.Context, who Caller, id string) error {
	return o.operate(ctx, who, "advisory.withdraw", id, func(tx *store.Tx, _ *audit.Entry) error {
		ok, err := tx.DeleteAdvisory(id)
		if err == nil && !ok {
			err = noSuch("advisory")
		}
		return err
	})
}

// WatchedKeys lists the SSH keys whose use is an alarm.
func (o *Console) WatchedKeys(ctx context.Context, who Caller) ([]protocol.WatchedKey, error) {
	if err := o.operate(ctx, who, "watch.list", "", nil); err != nil {
		return nil, err
	}
	return o.db.WatchedKeys(ctx)
}

// Watch makes the use of an SSH key an alarm.
func (o *Console) Watch(ctx context.Context, who Caller, k protocol.WatchedKey) (protocol.WatchedKey, error) {
	k.CreatedAt = o.clock()
	err := o.operate(ctx, who, "watch.add", cut(k.Fingerprint, maxLabel), func(tx *store.Tx, e *audit.Entry) error {
		e.Detail = map[string]any{"label": cut(k.Label, maxLabel)}
		hash, ok := strings.CutPrefix(k.Fingerprint, "SHA256:")
		if b, err := base64.RawStdEncoding.Strict().DecodeString(hash); !ok || err != nil || len(b) != 32 || strings.ContainsAny(hash, "\r\n") {
			return bad("%q is not a fingerprint as ssh-keygen -l writes it, SHA256 and 43 characters", cut(k.Fingerprint, maxLabel))
		}
		if k.Label == "" || k.Label != cut(k.Label, maxLabel) {
			return bad("label: want 1 to %d bytes of text that say what the key is for", maxLabel)
		}
		err := tx.InsertWatchedKey(k)
		if errors.Is(err, store.ErrConflict) {
			err = bad("the key is watched already")
		}
		return err
	})
	return k, err
}

// Forget ends the watch for a key.
func (o *Console) Forget(ctx context.Context, who Caller, fingerprint string) error {
	return o.operate(ctx, who, "watch.forget", fingerprint, func(tx *store.Tx, _ *audit.Entry) error {
		ok, err := tx.DeleteWatchedKey(fingerprint)
		if err == nil && !ok {
			err = noSuch("watched key")
		}
		return err
	})
}

// Sighting is a report that a watched key was used.
type Sighting struct {
	Host, User, From string
	At               time.Time
	Detail           string // the line of the log
}

// maxLine bounds a line of a log.
const maxLine = 1000

// Report records that a watched key was seen in use, and sounds the alarm.
func (o *Console) Report(ctx context.Context, who Caller, fingerprint string, s Sighting) error {
	if s.At.IsZero() {
		s.At = o.clock()
	}
	s = Sighting{cut(s.Host, maxLabel), cut(s.User, maxLabel), cut(s.From, maxLabel), s.At, cut(s.Detail, maxLine)}
	var key protocol.WatchedKey
	err := o.operate(ctx, who, "ssh.sighting", fingerprint, func(tx *store.Tx, e *audit.Entry) (err error) {
		e.Detail = map[string]any{"host": s.Host, "user": s.User, "from": s.From, "seen": s.At.Unix(), "line": s.Detail}
		key, err = tx.WatchedKey(ctx, fingerprint)
		if errors.Is(err, store.ErrNotFound) {
			err = noSuch("watched key")
		}
		e.Detail["label"] = key.Label
		return err
	})
	if err == nil && o.Sighted != nil {
		o.Sighted(key, s)
	}
	return err
}

// cut is at most so many bytes of what is printable in text from outside.
func cut(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
