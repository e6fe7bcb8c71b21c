package yubikey_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/yubikey"
)

// fingerprints are the SHA-256 of the pinned certificates. Found alike in
// go-piv v2.6.0 (piv/certs, fetched from developers.yubico.com in June 2025)
// and in the sources of step (the PIV root in certificates v0.30.2, A 1 and B 1
// in go.step.sm/crypto v0.91.0). B2 1 is younger (August 2025) than both: two
// other projects that pin it name this one, and what it stands on is Yubico's
// signature, which TestIssuersAreYubicos follows up to the root.
var fingerprints = map[string]string{
	"Yubico PIV Root CA Serial 263751": "63ece914e54dd87915f34033c85af4c0696ba1512f8add66ced738331207b546",
	"Yubico PIV Attestation A 1":       "6de693f05376f5d8ca29069261e1c8626c75d503bd2edbfd75354cad1f722870",
	"Yubico PIV Attestation B 1":       "2d55b7998f4e42569d6d8fa382b6dc77d1dacf07358b19701163892922b17052",
	"Yubico PIV Attestation B2 1":      "0c90b7d184a36edf50a35f9be935f0c5689bfdcfe5bdd073366cafb49061a440",
	// Of testdata, not pinned: go-piv, go.step.sm/crypto and certificates agree.
	"Yubico Attestation Root 1":           "62760c6a6ef91679f454c8902b80fd009825b3f25da90f1fbace2ec6586cd5a8",
	"Yubico Attestation Intermediate A 1": "4698a1d3389c3ec60016c216250f1d0439922832d65142327436376dc2942b55",
	"Yubico Attestation Intermediate B 1": "d4cc3f456fdaf4e7812a21aab1dfe9d8e27d24e2fd2d6f21c9940109f0daa754",
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// above reads the new hierarchy's root and its intermediates, which aren't
// pinned.
func above(t *testing.T) []*x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "attestation-root-1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if fingerprint(c) != fingerprints[c.Subject.CommonName] {
			t.Fatalf("%s: %s", c.Subject, fingerprint(c))
		}
		all = append(all, c)
	}
	return all
}

func TestIssuersAreYubicos(t *testing.T) {
	issuers := yubikey.Issuers()
	if len(issuers) != 4 {
		t.Fatalf("%d issuers, want 4", len(issuers))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(issuers[0])
	for _, c := range above(t) {
		if c.Subject.CommonName == "Yubico Attestation Root 1" {
			roots.AddCert(c)
		}
		between.AddCert(c)
	}
	for _, c := range issuers {
		if want := fingerprints[c.Subject.CommonName]; fingerprint(c) != want {
			t.Errorf("%s: %s, want %s", c.Subject, fingerprint(c), want)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", c.Subject, err)
		}
	}
}

// Attestations of sold devices, published by their owners, of before and since
// firmware 5.7.4, when Yubico changed the hierarchy; the last one's device
// certificate names its signature algorithm without parameters, which RFC 4055
// section 5 asks for.
func TestRealDevices(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for file, want := range map[string]yubikey.Attestation{
		"yubikey-5.4.3.pem": {
			Serial: 0xf00f14, Firmware: yubikey.Firmware{Major: 5, Minor: 4, Patch: 3}, Slot: yubikey.Authentication,
			PINPolicy: yubikey.PINOnce, TouchPolicy: yubikey.TouchNever, FormFactor: 4,
		},
		"yubikey-5.7.4.pem": {
			Serial: 32718477, Firmware: yubikey.Firmware{Major: 5, Minor: 7, Patch: 4}, Slot: yubikey.Authentication,
			PINPolicy: yubikey.PINAlways, TouchPolicy: yubikey.TouchNever, FormFactor: 4,
		},
		"yubikey-5.7.4-touch.pem": {
			Serial: 38906331, Firmware: yubikey.Firmware{Major: 5, Minor: 7, Patch: 4}, Slot: yubikey.Signature,
			PINPolicy: yubikey.PINAlways, TouchPolicy: yubikey.TouchAlways, FormFactor: 3,
		},
	} {
		statement, device, _ := published(t, file)
		got, err := yubikey.ParseAttestation(statement, device)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		want.Statement, want.Device = statement, device
		if *got != want {
			t.Errorf("%s: %+v", file, got)
		}
		if err := got.Verify(yubikey.Issuers(), now); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		// Not by what stands above the pinned ones, which signs for other
		// applications too.
		if err := got.Verify(above(t), now); err == nil {
			t.Errorf("%s: verified by issuers that aren't PIV's", file)
		}
		others := slices.DeleteFunc(yubikey.Issuers(), func(c *x509.Certificate) bool {
			return c.Subject.String() == device.Issuer.String()
		})
		if err := got.Verify(others, now); err == nil {
			t.Errorf("%s: verified without its issuer", file)
		}
	}
}
