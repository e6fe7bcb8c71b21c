package challenge

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Registry tells which devices are enrolled. Enrolled is false where there is
// no such device; an error says that it isn't known.
type Registry interface {
	// DeviceByKey finds a device of whatever state by the hex SHA-256 of its
	// key's SubjectPublicKeyInfo.
	DeviceByKey(ctx context.Context, keyHash string) (d protocol.Device, enrolled bool, err error)
	Device(ctx context.Context, id protocol.DeviceID) (d protocol.Device, enrolled bool, err error)
	Advisories(ctx context.Context) ([]protocol.Advisory, error)
}

// Devices is what all proofs by enrolled devices share.
//
// What is told of a failure: the audit log gets every field that isn't as it
// should be (protocol.Evidence.Faults), the client only once the enrolled key
// has signed this very challenge. To anybody else the answer is always the
// same, so that it can't be found out which keys, names or serial numbers are
// enrolled.
type Devices struct {
	Registry      Registry
	Issuers       []*x509.Certificate // who signs the devices' certificates, pinned: yubikey.Issuers
	PINPolicies   []string            // that are taken, as yubikey.PINPolicy writes them
	TouchPolicies []string            // likewise
	Clock         func() time.Time    // nil: time.Now
}

// presented is what a client says of a device.
type presented struct {
	statement, device *x509.Certificate
	// signed says whether the statement's key signed what answers the
	// challenge. It is asked only where the chain holds.
	signed func(public any) error
}

// faults are collected, all of them.
type faults []protocol.Fault

// maxFault bounds what a field of a fault holds of a stranger's bytes.
const maxFault = 128

func (f *faults) add(field, want, got string) {
	if len(got) > maxFault {
		got = got[:maxFault] + "…"
	}
	*f = append(*f, protocol.Fault{Field: field, Want: want, Got: strings.ToValidUTF8(got, "?")})
}

func (f *faults) differ(field, want, got string) {
	if want != got {
		f.add(field, want, got)
	}
}

// judge holds a device that was presented against the registry.
func (d Devices) judge(ctx context.Context, v protocol.Validation, p presented) (protocol.Evidence, error) {
	now := d.now()
	hash := sha256.Sum256(p.statement.RawSubjectPublicKeyInfo)
	keyHash := hex.EncodeToString(hash[:])
	enrolled, known, err := d.Registry.DeviceByKey(ctx, keyHash)
	if err != nil {
		return protocol.Evidence{}, fmt.Errorf("the registry of devices: %w", err)
	}
	advisories, err := d.Registry.Advisories(ctx)
	if err != nil {
		return protocol.Evidence{}, fmt.Errorf("the registry of devices: %w", err)
	}
	seen := protocol.Evidence{Type: v.Type, Target: "a device with the key " + keyHash, SeenAt: now}
	var wrong faults
	a, err := yubikey.ParseAttestation(p.statement, p.device)
	if err != nil {
		wrong.add("attestation", "", err.Error())
	} else {
		seen.Target = fmt.Sprintf("YubiKey %d slot %s", a.Serial, a.Slot)
	}
	signed := d.genuine(p, now, &wrong)
	if age := now.Sub(v.CreatedAt); age > protocol.PrivateLife || age < -protocol.PrivateLife {
		wrong.add("challenge", "answered within "+protocol.PrivateLife.String(), age.String())
	}
	if !known || !bytes.Equal(enrolled.Key, p.statement.RawSubjectPublicKeyInfo) {
		known = false
		wrong.add("key", "an enrolled device's", keyHash)
	} else {
		seen.Subject = enrolled.Subject()
		if a != nil {
			compare(enrolled, a, &wrong)
		}
		d.entitled(enrolled, v.Type, v.Identifier, v.Wildcard, advisories, &wrong)
	}
	if len(wrong) == 0 {
		return seen, nil
	}
	seen.Faults = wrong
	return seen, refused(wrong, known && signed)
}

// sshAlike says what of a proof could be had through a forwarded ssh-agent,
// which signs what a remote host asks for; "" for nothing. yubikey-01 and -02
// hash as SSH never does with a key, but for Ed25519, which has no choice.
func sshAlike(e protocol.Device, t protocol.ChallengeType) string {
	if t == protocol.DeviceAttest01 {
		return string(t)
	}
	key, err := x509.ParsePKIXPublicKey(e.Key)
	if _, ok := key.(ed25519.PublicKey); ok || err != nil {
		return "an Ed25519 key"
	}
	return ""
}

func (d Devices) now() time.Time {
	if d.Clock != nil {
		return d.Clock()
	}
	return time.Now()
}

// genuine checks chain and signature, and says whether both are good. A key
// that no pinned issuer vouches for isn't worth the time.
func (d Devices) genuine(p presented, now time.Time, wrong *faults) bool {
	a := yubikey.Attestation{Statement: p.statement, Device: p.device}
	if err := a.Verify(d.Issuers, now); err != nil {
		wrong.add("chain", "", err.Error())
		return false
	}
	if err := p.signed(p.statement.PublicKey); err != nil {
		wrong.add("signature", "", err.Error())
		return false
	}
	return true
}

// compare holds each field of an attestation against what was enrolled.
func compare(d protocol.Device, a *yubikey.Attestation, wrong *faults) {
	wrong.differ("serial", strconv.FormatUint(uint64(d.Serial), 10), strconv.FormatUint(uint64(a.Serial), 10))
	wrong.differ("slot", d.Slot, a.Slot.String())
	wrong.differ("firmware", d.Firmware, a.Firmware.String())
	wrong.differ("form factor", yubikey.FormFactor(d.FormFactor).String(), a.FormFactor.String())
	wrong.differ("PIN policy", d.PINPolicy, a.PINPolicy.String())
	wrong.differ("touch policy", d.TouchPolicy, a.TouchPolicy.String())
	_, rest := pem.Decode(d.Attestation) // the statement, which is another one each time
	stored, _ := pem.Decode(rest)
	if stored == nil || !bytes.Equal(stored.Bytes, a.Device.Raw) {
		wrong.add("device certificate", "the one that was enrolled", "serial number "+a.Device.SerialNumber.Text(16))
	}
}

// entitled checks what the registry and the directory say of an enrolled
// device, without the device.
func (d Devices) entitled(e protocol.Device, t protocol.ChallengeType, id protocol.Identifier, wildcard bool, advisories []protocol.Advisory, wrong *faults) {
	wrong.differ("state", string(protocol.DeviceActive), string(e.State))
	if !slices.Contains(d.PINPolicies, e.PINPolicy) {
		wrong.add("PIN policy", strings.Join(d.PINPolicies, " or "), e.PINPolicy)
	}
	if !slices.Contains(d.TouchPolicies, e.TouchPolicy) {
		wrong.add("touch policy", strings.Join(d.TouchPolicies, " or "), e.TouchPolicy)
	}
	for _, advisory := range advisories {
		if refuses(advisory, e.Firmware) {
			wrong.add("firmware", "none of "+advisory.First+" to "+advisory.Last+" ("+advisory.ID+")", e.Firmware)
		}
	}
	if alike := sshAlike(e, t); alike != "" && len(e.Principals) > 0 {
		wrong.add("principals", "none, for "+alike+" signs as SSH does", strings.Join(e.Principals, " "))
	}
	if wildcard || !e.MayHave(t, id) {
		wrong.add("identifier", "one of the device's for "+string(t), id.String())
	}
}

// refuses says whether an advisory is about a firmware. One that can't be read
// is about all.
func refuses(a protocol.Advisory, firmware string) bool {
	first, err1 := yubikey.ParseFirmware(a.First)
	last, err2 := yubikey.ParseFirmware(a.Last)
	f, err3 := yubikey.ParseFirmware(firmware)
	return err1 != nil || err2 != nil || err3 != nil || f.Within(first, last)
}

// refused is the answer to the client: in full to who holds the enrolled key.
func refused(wrong faults, told bool) error {
	if !told {
		return no(protocol.Unauthorized, false, "no enrolled device proved this")
	}
	return no(protocol.Unauthorized, false, "the device is refused: %s", wrong)
}

// String lists the faults for a person.
func (f faults) String() string {
	var all []string
	for _, one := range f {
		switch {
		case one.Want == "":
			all = append(all, one.Field+": "+one.Got)
		default:
			all = append(all, fmt.Sprintf("%s is %q, want %s", one.Field, one.Got, one.Want))
		}
	}
	return strings.Join(all, "; ")
}

// recheck asks again about a device that proved a name (proof.Rechecker),
// without the device: whoever asks has proven it.
func (d Devices) recheck(ctx context.Context, t protocol.ChallengeType, id protocol.Identifier, subject string) error {
	device, ok := protocol.DeviceOf(subject)
	if !ok {
		return no(protocol.Unauthorized, false, "it was no device that proved %q", id.Value)
	}
	enrolled, known, err := d.Registry.Device(ctx, device)
	if err != nil {
		return fmt.Errorf("the registry of devices: %w", err)
	}
	advisories, err := d.Registry.Advisories(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the registry of devices: %w", err)
	case !known:
		return no(protocol.Unauthorized, false, "the device that proved %q isn't enrolled any more", id.Value)
	}
	var wrong faults
	if d.entitled(enrolled, t, id, id.IsWildcard(), advisories, &wrong); len(wrong) > 0 {
		return refused(wrong, true)
	}
	return nil
}
