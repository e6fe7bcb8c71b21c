package device

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Registry is the devices in the database as validators ask for them.
type Registry struct {
	// DB may be there only once the server runs.
	DB func() *store.DB
}

// DeviceByKey finds a device by the hash of its key.
func (r Registry) DeviceByKey(ctx context.Context, keyHash string) (protocol.Device, bool, error) {
	return known(r.DB().DeviceByKey(ctx, keyHash))
}

// Device finds a device by its ID.
func (r Registry) Device(ctx context.Context, id protocol.DeviceID) (protocol.Device, bool, error) {
	return known(r.DB().Device(ctx, id))
}

// Advisories returns the ranges of firmware that are refused.
func (r Registry) Advisories(ctx context.Context) ([]protocol.Advisory, error) {
	return r.DB().Advisories(ctx)
}

func known(d protocol.Device, err error) (protocol.Device, bool, error) {
	if errors.Is(err, store.ErrNotFound) {
		return d, false, nil
	}
	return d, err == nil, err
}

// Key settles whose key is certified. Where yubikey-01 proved, it is the
// device's own, whatever the CSR's is (but another device's is refused, as a
// mistake in the client); where device-attest-01 did, the CSR's, which must be
// the device's own; else the CSR's, which must be no enrolled device's, since
// that key is certified by its own device's proof only: ACLs can rely on it.
// The authorizations rest on one device (policy.OneSubject). Errors are problems
// (badCSR, unauthorized) or the database's.
func Key(ctx context.Context, db *store.DB, authorizations []protocol.Authorization, csr *issuer.CSR) (*issuer.CSR, error) {
	own := by(authorizations, protocol.YubiKey01)
	attested := by(authorizations, protocol.DeviceAttest01)
	if other := by(authorizations, protocol.YubiKey02); other != "" && (own != "" || attested != "") {
		return nil, protocol.NewProblem(protocol.Unauthorized,
			"some names were proven by yubikey-02, which is for other keys than the device's, and some for its own key; make an order for each")
	}
	asked, enrolled, err := known(db.DeviceByKey(ctx, csr.KeyHash))
	if err != nil {
		return nil, err
	}
	if own == "" && attested == "" {
		if enrolled {
			return nil, protocol.NewProblem(protocol.BadCSR,
				"the CSR's key is that of an enrolled device, which is certified by that device's own proof only (yubikey-01, device-attest-01); make another key")
		}
		return csr, nil
	}
	d, err := proven(ctx, db, max(own, attested))
	switch {
	case err != nil:
		return nil, err
	case csr.KeyHash == d.KeyHash:
		return csr, nil
	case enrolled:
		return nil, protocol.NewProblem(protocol.BadCSR,
			"the CSR's key is that of another enrolled device (%d slot %s) than the one that proved; use one device", asked.Serial, asked.Slot)
	case attested != "":
		return nil, protocol.NewProblem(protocol.BadCSR, "the CSR's key is not the one that the device attested; sign the CSR with that one")
	}
	return certified(ctx, db, d, csr)
}

// by is the subject of the proofs by a type, "" for none.
func by(authorizations []protocol.Authorization, t protocol.ChallengeType) string {
	i := slices.IndexFunc(authorizations, func(z protocol.Authorization) bool { return z.Attempt.Type == t })
	if i < 0 {
		return ""
	}
	return authorizations[i].Subject
}

// proven is the device that a proof rests on.
func proven(ctx context.Context, db *store.DB, subject string) (protocol.Device, error) {
	id, _ := protocol.DeviceOf(subject)
	d, enrolled, err := known(db.Device(ctx, id))
	if err == nil && (!enrolled || d.State != protocol.DeviceActive) {
		err = protocol.NewProblem(protocol.Unauthorized, "the device that proved the order is not enrolled any more")
	}
	return d, err
}

// certified is the CSR with the device's key in place of its own.
func certified(ctx context.Context, db *store.DB, d protocol.Device, csr *issuer.CSR) (*issuer.CSR, error) {
	public, err := x509.ParsePKIXPublicKey(d.Key)
	if err != nil {
		return nil, fmt.Errorf("device %s: its key in the database is damaged: %w", d.ID, err)
	}
	blocked, err := db.KeyBlocked(ctx, d.KeyHash)
	if err == nil && blocked {
		err = protocol.NewProblem(protocol.BadCSR, "the device's key was reported as compromised; make and enroll a new one")
	}
	c := *csr
	c.PublicKey, c.KeyHash = public, d.KeyHash
	return &c, err
}

// Narrow bounds a profile by the longest lifetime of the device that an order
// rests on; subject may be another's, or "".
func Narrow(ctx context.Context, db *store.DB, subject string, p cert.Profile) (cert.Profile, error) {
	if _, ok := protocol.DeviceOf(subject); !ok {
		return p, nil
	}
	d, err := proven(ctx, db, subject)
	if err != nil || d.MaxLifetime <= 0 || d.MaxLifetime >= p.MaxLifetime {
		return p, err
	}
	p.MaxLifetime = d.MaxLifetime
	p.Lifetime = min(p.Lifetime, d.MaxLifetime)
	p.Backdate = min(p.Backdate, p.Lifetime/2) // it counts inside the lifetime
	return p, nil
}

// Hold keeps the device that a certificate rests on as it is until the
// transaction's end, and refuses where it isn't active any more, or may have
// less by now than the plan says: the plan may have waited long for its key.
// principals are an SSH certificate's. The error is a problem (unauthorized), or
// the database's.
func Hold(ctx context.Context, tx *store.Tx, c cert.Certificate, principals []string) error {
	id, ok := protocol.DeviceOf(c.Subject)
	if !ok {
		return nil
	}
	if held, err := tx.HoldSubject(c.Subject); err != nil || !held {
		return cmp.Or[error](err, protocol.NewProblem(protocol.Unauthorized,
			"the device it rests on was withdrawn while the certificate was being issued"))
	}
	d, err := tx.Device(ctx, id)
	if err != nil {
		return err
	}
	person := slices.ContainsFunc(c.Names, func(id protocol.Identifier) bool { return id.Type == protocol.PermanentIdentifier })
	for _, name := range principals {
		if person && !slices.Contains(d.Principals, name) { // else a host's, whose names are asked about before
			return protocol.NewProblem(protocol.Unauthorized, "principal %q was taken from the device while the certificate was being issued", name)
		}
	}
	if life := c.NotAfter.Sub(c.NotBefore); d.MaxLifetime > 0 && life > d.MaxLifetime {
		return protocol.NewProblem(protocol.Unauthorized,
			"the device's certificates were limited to %s while this one was being issued; make a new order", d.MaxLifetime)
	}
	return nil
}

// TooLong says of a date that was refused that the device is why.
func TooLong(err error, bound, profile time.Duration) error {
	p, ok := errors.AsType[*protocol.Problem](err)
	if !ok || bound == profile {
		return err
	}
	q := *p
	q.Detail += fmt.Sprintf(" (this device's certificates live at most %s)", bound)
	return &q
}

// maxMismatches bounds the entries of one proof; there are not so many fields.
const maxMismatches = 20

// Mismatches are the audit entries of what a device's proof said otherwise than
// the registry: one for each field, about the device where it is known, else
// about what was presented. like has what they share with the validation's own.
func Mismatches(like audit.Entry, seen protocol.Evidence) (all []audit.Entry) {
	object := seen.Target
	if id, ok := protocol.DeviceOf(seen.Subject); ok {
		object = string(id)
	}
	for _, f := range seen.Faults[:min(len(seen.Faults), maxMismatches)] {
		e := like
		e.Action, e.Object, e.Denied = "device.mismatch", object, strings.TrimSpace(f.Field+" "+f.Got)
		e.Detail = map[string]any{"authorization": like.Object, "field": f.Field, "want": f.Want, "got": f.Got, "presented": seen.Target}
		all = append(all, e)
	}
	return all
}
