package protocol

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Device is an enrolled key in a person's security key: what the registry
// holds of it, and what certificates it may bring (DESIGN sections 1 and 6).
// Names and principals are in canonical form.
type Device struct {
	ID          DeviceID
	Owner       string // the person; see [ParseOwner]
	State       DeviceState
	Key         []byte // the SubjectPublicKeyInfo in DER
	KeyHash     string // hex SHA-256 of Key
	Serial      uint32
	Slot        string // two hex digits, as in "9a"
	Firmware    string // as in "5.7.1"
	FormFactor  byte
	PINPolicy   string // as yubikey.PINPolicy writes it
	TouchPolicy string
	Attestation []byte // PEM: the statement, then the device's certificate
	Identities
	EnrolledAt time.Time
	EnrolledBy string    // the operator
	EndedAt    time.Time // retired or lost
}

// Identities are what a device may be certified as. A name stands in one of
// the two lists only, of all devices, and belongs to one person.
type Identities struct {
	Names       []string      // dns names for the device's own key (yubikey-01, device-attest-01)
	OtherNames  []string      // dns names for other keys (yubikey-02)
	Principals  []string      // SSH principals
	MaxLifetime time.Duration // of any certificate; 0: the profile's bound alone
}

// MayHave reports whether the device's proof of the type is good for the name:
// a dns name stands in the list of that type, and a permanent-identifier is the
// owner, by device-attest-01 also the device's serial number.
func (d Device) MayHave(t ChallengeType, id Identifier) bool {
	switch {
	case !t.Device() || id.IsWildcard():
		return false
	case id.Type == PermanentIdentifier:
		return id.Value == d.Owner || t == DeviceAttest01 && id.Value == strconv.FormatUint(uint64(d.Serial), 10)
	case id.Type != DNS:
		return false
	case t == YubiKey02:
		return slices.Contains(d.OtherNames, id.Value)
	}
	return slices.Contains(d.Names, id.Value)
}

// DeviceState is where a device stands.
type DeviceState string

// A device is active until it is retired or lost, which is for good.
const (
	DeviceActive  DeviceState = "active"
	DeviceRetired DeviceState = "retired"
	DeviceLost    DeviceState = "lost"
)

// deviceSubject begins the subject ([Evidence]) of a device's proof.
const deviceSubject = "device:"

// Subject is what a proof by the device rests on.
func (d Device) Subject() string { return deviceSubject + string(d.ID) }

// DeviceOf finds the device that a proof's subject names; false: it rests on
// something else.
func DeviceOf(subject string) (DeviceID, bool) {
	id, ok := strings.CutPrefix(subject, deviceSubject)
	return DeviceID(id), ok
}

// maxOwner bounds a person's name: an SSH key ID and a SAN must hold it.
const maxOwner = 64

// ParseOwner brings a person's name into canonical form: 1 to 64 lower-case
// letters, digits and ._-+@, the first a letter or a digit, and not digits alone,
// which name a device ([ParseIdentifier]). Error: malformed.
func ParseOwner(name string) (string, error) {
	owner := strings.ToLower(name)
	good := func(r rune) bool {
		return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("._-+@", r)
	}
	if owner == "" || len(owner) > maxOwner || strings.ContainsRune("._-+@", rune(owner[0])) ||
		strings.Trim(owner, digits) == "" || strings.ContainsFunc(owner, func(r rune) bool { return !good(r) }) {
		return "", NewProblem(Malformed, "%q is not a person's name: want 1 to %d letters, digits and ._-+@, a letter or a digit first, and not digits alone", printable(name), maxOwner)
	}
	return owner, nil
}

// Advisory refuses devices of a range of firmware, both ends included, as
// after a vendor's security advisory.
type Advisory struct {
	ID        string // what people call it, as in "YSA-2024-03"
	First     string // as in "5.0.0"
	Last      string
	CreatedAt time.Time
}

// WatchedKey is an SSH key that nobody should see in use, such as one for
// emergencies.
type WatchedKey struct {
	Fingerprint string // as ssh-keygen writes it: "SHA256:…"
	Label       string
	CreatedAt   time.Time
}
