package config

import (
	"fmt"
	"slices"
)

// Devices is what the server believes of people's devices (YubiKeys), which
// operators enroll by `chancery devices enroll`.
type Devices struct {
	// A PEM file of the CA certificates whose attestations are believed, in
	// place of Yubico's that this program has: for devices of others with the
	// same PIV application, and for tests. Who holds a key of one of these can
	// say of any key that it can't leave its device. Default: Yubico's.
	Issuers string `yaml:"issuers"`
}

// DevicePolicies are which devices may prove to a directory, by what their keys
// ask of people (yubikey-01, yubikey-02, device-attest-01).
type DevicePolicies struct {
	// never, once, always, match-once, match-always (a fingerprint). A key
	// that never asks works for whoever holds the device. Default: all but
	// never.
	PINPolicies []string `yaml:"pin_policies"`
	// never, always, cached (for 15 seconds). A key that isn't touched each
	// time works for whatever program reaches it. Default: always.
	TouchPolicies []string `yaml:"touch_policies"`
}

var (
	knownPINPolicies   = []string{"never", "once", "always", "match-once", "match-always"}
	knownTouchPolicies = []string{"never", "always", "cached"}
)

func (d *DevicePolicies) setDefaults() {
	if d.PINPolicies == nil {
		d.PINPolicies = slices.Clone(knownPINPolicies[1:])
	}
	if d.TouchPolicies == nil {
		d.TouchPolicies = []string{"always"}
	}
}

func (k *checker) devices() {
	if k.c.Devices.Issuers != "" {
		k.warn("devices.issuers", "Yubico's issuers count no more: whoever holds a key of a certificate in this file can say of any key that a device made it, needs a PIN and a touch")
	}
}

func (k *checker) devicePolicies(path string, d Directory) {
	lists := []struct {
		field, weak, why string
		has, known       []string
	}{
		{"pin_policies", "never", "a key that never asks for a PIN works for whoever holds the device", d.Devices.PINPolicies, knownPINPolicies},
		{"touch_policies", "never", "a key that needs no touch works for any program on the machine, unseen", d.Devices.TouchPolicies, knownTouchPolicies},
		{"touch_policies", "cached", "for 15 seconds after a touch the key works for any program on the machine, unseen", d.Devices.TouchPolicies, nil},
	}
	for _, l := range lists {
		at := path + "." + l.field
		if len(l.has) == 0 {
			k.fail(at, "the list is empty, so that no device could prove anything; leave it out for the default")
		}
		if l.known != nil {
			allOf(k, at, l.has, l.known)
		}
		if i := slices.Index(l.has, l.weak); i >= 0 {
			k.warn(fmt.Sprintf("%s[%d]", at, i), "%s", l.why)
		}
	}
}
