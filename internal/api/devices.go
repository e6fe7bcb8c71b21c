package api

import "time"

// Identities are what a device may be certified as: dns names for its own key
// (yubikey-01, device-attest-01), others for keys that it vouches for
// (yubikey-02), SSH principals, and the longest lifetime of any certificate in
// seconds, 0 for the profiles' bounds alone.
type Identities struct {
	Names       []string `json:"names,omitempty"`
	OtherNames  []string `json:"other_names,omitempty"`
	Principals  []string `json:"principals,omitempty"`
	MaxLifetime float64  `json:"max_lifetime,omitzero"`
}

// NewDevice asks to enroll a device's key: POST /v1/devices. Attestation is
// PEM, the statement of the slot and the device's certificate of slot f9.
// Possession is the key's signature over yubikey.EnrolmentMessage, made at
// MadeAt, which must be recent.
type NewDevice struct {
	Owner string `json:"owner"`
	Identities
	Attestation string    `json:"attestation"`
	Possession  []byte    `json:"possession"` // base64
	MadeAt      time.Time `json:"made_at"`
}

// Device is an enrolled device.
type Device struct {
	ID    string `json:"id"`
	Owner string `json:"owner"`
	State string `json:"state"` // "active", "retired" or "lost"
	Identities
	Serial      uint32    `json:"serial"`
	Slot        string    `json:"slot"`
	Firmware    string    `json:"firmware"`
	FormFactor  string    `json:"form_factor"`
	PINPolicy   string    `json:"pin_policy"`
	TouchPolicy string    `json:"touch_policy"`
	Key         string    `json:"key"`      // hex SHA-256 of the SubjectPublicKeyInfo
	KeyType     string    `json:"key_type"` // as in profiles
	Attestation string    `json:"attestation,omitzero"`
	EnrolledAt  time.Time `json:"enrolled_at"`
	EnrolledBy  string    `json:"enrolled_by"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
	// Advisory names what refuses its firmware, "" for nothing.
	Advisory string `json:"advisory,omitzero"`
}

// Withdrawn is what came of withdrawing all of a person's or a device's
// certificates at once: what was revoked now, and what nobody can revoke
// (profiles without revocation), with the time until which it is good.
type Withdrawn struct {
	Devices     []Device      `json:"devices,omitempty"` // whose state changed
	Revoked     []Certificate `json:"revoked"`
	Irrevocable []Certificate `json:"irrevocable"`
}

// Advisory refuses devices of a range of firmware, both ends included.
type Advisory struct {
	ID        string    `json:"id"`    // as in "YSA-2024-03"
	First     string    `json:"first"` // as in "5.0.0"
	Last      string    `json:"last"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	// Devices are the active ones that it refuses.
	Devices []Device `json:"devices,omitempty"`
}

// WatchedKey is an SSH key whose use is an alarm.
type WatchedKey struct {
	Fingerprint string    `json:"fingerprint"` // "SHA256:…" as ssh-keygen writes it
	Label       string    `json:"label"`
	CreatedAt   time.Time `json:"created_at,omitzero"`
}

// Sighting reports that a watched key was used.
type Sighting struct {
	Host   string    `json:"host"`
	User   string    `json:"user"`           // the account that was opened
	From   string    `json:"from,omitempty"` // the client's address
	At     time.Time `json:"at"`
	Detail string    `json:"detail,omitempty"` // the line of the log
}
