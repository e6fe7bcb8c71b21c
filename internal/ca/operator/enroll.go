package operator

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Enrolment says which devices are taken. The zero value takes none.
type Enrolment struct {
	// Issuers sign devices' certificates, each trusted as it is: yubikey.Issuers.
	Issuers []*x509.Certificate
	// PINPolicies and TouchPolicies that are taken, as yubikey writes them.
	// nil: all PIN policies but never; only always.
	PINPolicies, TouchPolicies []string
	// Reserved are the names, of persons too, that an enroller may not give:
	// an operator's, or it could make itself one. nil: none.
	Reserved func(name string) bool
}

// NewDevice is what is asked to be enrolled. Possession is the key's signature
// over yubikey.EnrolmentMessage for the owner, made at MadeAt.
type NewDevice struct {
	Owner string
	protocol.Identities
	Attestation []byte // PEM: the statement, then the device's certificate
	Possession  []byte
	MadeAt      time.Time
}

// Bounds of an enrolment. A signature may travel by mail, and clocks differ.
const (
	maxAttestation = 32 << 10
	possessionAge  = 7 * 24 * time.Hour
	clocksDiffer   = 5 * time.Minute
)

// Enroll adds a device's key to the registry, when its attestation shows that
// it was made in a device of a trusted maker and needs PIN and touch, and its
// signature that whoever enrolls it has it.
func (o *Console) Enroll(ctx context.Context, who Caller, n NewDevice) (Device, error) {
	now := o.clock()
	d := protocol.Device{ID: protocol.NewID[protocol.DeviceID](now), State: protocol.DeviceActive, EnrolledAt: now, EnrolledBy: who.Name}
	var rules Enrolment
	if o.Enrolment != nil {
		rules = o.Enrolment()
	}
	pub, refused := rules.examine(n, now, &d)
	err := o.operate(ctx, who, "device.enroll", string(d.ID), func(tx *store.Tx, e *audit.Entry) error {
		e.Detail = detailOf(d)
		if refused != nil {
			return refused
		}
		if err := rules.reserved(who, d.Owner, d.Identities); err != nil {
			return err
		}
		if advisory, err := advisoryOf(ctx, tx, d); err != nil || advisory != "" {
			return orProblem(err, "advisory %s refuses firmware %s: use another device", advisory, d.Firmware)
		}
		err := tx.InsertDevice(d)
		if errors.Is(err, store.ErrConflict) {
			return alreadyEnrolled(ctx, tx, d)
		}
		if err != nil {
			return err
		}
		if blocked, err := tx.KeyBlocked(ctx, d.KeyHash); err != nil || blocked {
			return orProblem(err, "the key was reported as compromised: make a new one in the slot")
		}
		return takeNames(tx, d.Owner, d.Identities)
	})
	if err != nil {
		return Device{}, err
	}
	typ, _ := keyType(pub)
	return Device{Device: d, KeyType: typ}, nil
}

// orProblem is err, or a problem where there is none.
func orProblem(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return protocol.NewProblem(protocol.Malformed, format, args...)
}

func bad(format string, args ...any) error { return orProblem(nil, format, args...) }

// detailOf is what the audit log says of a device; of one that is refused, as
// far as it could be read.
func detailOf(d protocol.Device) map[string]any {
	detail := identityDetail(d.Identities)
	for name, text := range map[string]string{
		"owner": d.Owner, "slot": d.Slot, "firmware": d.Firmware, "pin_policy": d.PINPolicy, "touch_policy": d.TouchPolicy, "key": d.KeyHash,
	} {
		if text != "" {
			detail[name] = text
		}
	}
	if d.Serial != 0 {
		detail["serial"] = int64(d.Serial)
	}
	return detail
}

// examine checks all that needs no database, and fills d in as far as it comes.
func (rules Enrolment) examine(n NewDevice, now time.Time, d *protocol.Device) (crypto.PublicKey, error) {
	var err error
	if d.Owner, err = protocol.ParseOwner(n.Owner); err != nil {
		return nil, err
	}
	a, err := readAttestation(n.Attestation)
	if err != nil {
		return nil, bad("%v", err)
	}
	d.Serial, d.Slot, d.Firmware, d.FormFactor = a.Serial, a.Slot.String(), a.Firmware.String(), byte(a.FormFactor)
	d.PINPolicy, d.TouchPolicy, d.Attestation = a.PINPolicy.String(), a.TouchPolicy.String(), a.PEM()
	if err := a.Verify(rules.Issuers, now); err != nil {
		return nil, bad("%v", err)
	}
	pub := a.Statement.PublicKey
	if d.Key, err = x509.MarshalPKIXPublicKey(pub); err != nil {
		return nil, bad("attestation: this kind of key is not supported; make one of type %v", keyTypes)
	}
	hash := sha256.Sum256(d.Key)
	d.KeyHash = hex.EncodeToString(hash[:])
	if err := rules.checkPolicies(a); err != nil {
		return nil, err
	}
	if err := checkDeviceKey(pub); err != nil {
		return nil, err
	}
	if d.Identities, err = checkIdentities(n.Identities, pub); err != nil {
		return nil, err
	}
	switch {
	case n.MadeAt.Before(now.Add(-possessionAge)):
		return nil, bad("the signature was made on %s, more than 7 days ago: make a new one", n.MadeAt.UTC().Format(time.DateOnly))
	case n.MadeAt.After(now.Add(clocksDiffer)):
		return nil, bad("the signature is from the future, %s: set the clock of the machine that made it", n.MadeAt.UTC().Format(time.RFC3339))
	}
	if err := yubikey.VerifyMessage(pub, yubikey.EnrolmentMessage(a, d.Owner, n.MadeAt), n.Possession); err != nil {
		return nil, bad("possession: %v: it must be made by the attested key, for %q and for just this time and attestation", err, d.Owner)
	}
	return pub, nil
}

// readAttestation reads PEM with exactly the statement and the device's
// certificate, in this order.
func readAttestation(text []byte) (*yubikey.Attestation, error) {
	if len(text) > maxAttestation {
		return nil, fmt.Errorf("attestation: longer than %d bytes", maxAttestation)
	}
	var found []*x509.Certificate
	rest := bytes.TrimSpace(text)
	for len(rest) > 0 && len(found) <= 2 {
		var block *pem.Block
		if bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) { // Decode would look further on
			block, rest = pem.Decode(rest)
		}
		if block == nil || len(block.Headers) > 0 {
			return nil, errors.New("attestation: want two certificates in PEM and nothing else")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("attestation: certificate %d can't be read", len(found)+1)
		}
		found, rest = append(found, c), bytes.TrimSpace(rest)
	}
	if len(found) != 2 {
		return nil, fmt.Errorf("attestation: want two certificates, the slot's statement and the device's of slot f9; there are %d", len(found))
	}
	return yubikey.ParseAttestation(found[0], found[1])
}

func (rules Enrolment) checkPolicies(a *yubikey.Attestation) error {
	pin, touch := rules.PINPolicies, rules.TouchPolicies
	if pin == nil {
		for p := yubikey.PINOnce; p <= yubikey.PINMatchAlways; p++ {
			pin = append(pin, p.String())
		}
	}
	if touch == nil {
		touch = []string{yubikey.TouchAlways.String()}
	}
	switch {
	case !slices.Contains(pin, a.PINPolicy.String()):
		return bad("the key's PIN policy is %q, want %s: make a new key in the slot", a.PINPolicy, strings.Join(pin, ", "))
	case !slices.Contains(touch, a.TouchPolicy.String()):
		return bad("the key's touch policy is %q, want %s: make a new key in the slot", a.TouchPolicy, strings.Join(touch, ", "))
	}
	return nil
}

// keyTypes are those that a device may have.
var keyTypes = []cert.KeyType{cert.P256, cert.P384, cert.Ed25519, cert.RSA2048, cert.RSA3072, cert.RSA4096}

func keyType(pub crypto.PublicKey) (cert.KeyType, bool) {
	key, err := sshca.NewKey(pub)
	if err != nil {
		return "", false
	}
	return sshca.KeyTypeOf(key)
}

// checkDeviceKey refuses what couldn't be certified, for TLS or for SSH.
func checkDeviceKey(pub crypto.PublicKey) error {
	key, err := sshca.NewKey(pub)
	if err != nil {
		return bad("this kind of key is not supported; make one of type %v", keyTypes)
	}
	if err := sshca.CheckKey(key, keyTypes); err != nil {
		return bad("%s", protocol.AsProblem(err).Detail)
	}
	return nil
}

// checkNoSSH refuses Ed25519 where there are SSH principals: such a key signs
// the message itself, so that an agent that signs for SSH could be made to
// answer a challenge (DESIGN section 6).
func checkNoSSH(pub crypto.PublicKey, principals []string) error {
	if _, ok := pub.(ed25519.PublicKey); ok && len(principals) > 0 {
		return bad("a device with an Ed25519 key can't have SSH principals, since it could be made to sign both for SSH and for the CA: make a P-256 key")
	}
	return nil
}

// alreadyEnrolled says by what a key or its slot is taken.
func alreadyEnrolled(ctx context.Context, tx *store.Tx, d protocol.Device) error {
	before, err := tx.DeviceByKey(ctx, d.KeyHash)
	if err == nil {
		return bad("the key is enrolled already, as device %s of %s, which is %s: a key is enrolled once, make a new one in the slot", before.ID, before.Owner, before.State)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return bad("slot %s of YubiKey %d is enrolled with another key: retire that device first", d.Slot, d.Serial)
}
