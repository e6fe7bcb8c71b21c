package challenge

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// DeviceAttest01 validates device-attest-01 (draft-ietf-acme-device-attest-09):
// an attestation object of WebAuthn (section 6.5.4) without authenticator data.
// Of its formats it takes step, which is a YubiKey's PIV attestation with a
// signature over the key authorization; tpm and apple have their place in read.
type DeviceAttest01 struct{ Devices }

// maxAttObj bounds an attestation object: five certificates and a signature.
const maxAttObj = 12 << 10

// Validate checks the response. A no is unauthorized, or badAttestationStatement
// or malformed where the response can't be read.
func (d DeviceAttest01) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	p, err := readAttestation(v)
	if err != nil {
		return protocol.Evidence{Type: v.Type}, err
	}
	return d.judge(ctx, v, p)
}

// Recheck asks again whether the device may have the name.
func (d DeviceAttest01) Recheck(ctx context.Context, id protocol.Identifier, subject string) error {
	return d.recheck(ctx, protocol.DeviceAttest01, id, subject)
}

// readAttestation reads the response of any format, and verifies nothing.
func readAttestation(v protocol.Validation) (presented, error) {
	var payload struct {
		AttObj string `json:"attObj"`
	}
	if err := json.Unmarshal(v.Response, &payload); err != nil {
		return presented{}, no(protocol.Malformed, false, "the response is not a JSON object with attObj")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(payload.AttObj)
	if err != nil || len(raw) == 0 || len(raw) > maxAttObj {
		return presented{}, no(protocol.BadAttestationStatement, false, "attObj is not base64url, without padding, of 1 byte to %d KiB", maxAttObj>>10)
	}
	var object struct {
		Format    string          `cbor:"fmt"`
		Statement cbor.RawMessage `cbor:"attStmt"`
		// Unused, and to be left out; WebAuthn's own objects have it.
		AuthData []byte `cbor:"authData"`
	}
	if err := decodeCBOR(raw, &object); err != nil {
		return presented{}, no(protocol.BadAttestationStatement, false, "attObj is not an attestation object in definite-length CBOR: %v", err)
	}
	switch object.Format {
	case "step":
		p, err := readStep(object.Statement, v.KeyAuthorization())
		if err != nil {
			return presented{}, no(protocol.BadAttestationStatement, false, "format step: %v", err)
		}
		return p, nil
	}
	return presented{}, no(protocol.BadAttestationStatement, false, "attestation format %.20q is not taken here; use step (YubiKey PIV)", object.Format)
}

// decodeCBOR is as strict as WebAuthn is (section 6.5.4 has no room for other
// members, and CTAP2's canonical form has neither indefinite lengths, nor tags,
// nor a key twice).
func decodeCBOR(data []byte, to any) error {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		MaxNestedLevels: 4, MaxArrayElements: 16, MaxMapPairs: 16,
	}.DecMode()
	if err != nil {
		return err
	}
	return mode.Unmarshal(data, to) // also refuses what follows
}

// The COSE algorithms (RFC 9053 section 2, RFC 8812 section 2) that the step
// CLI uses.
const (
	coseES256 = -7
	coseEdDSA = -8
	coseRS256 = -257
)

// maxCertificates bounds x5c: the statement, the device's certificate, and what
// some clients add of Yubico's above.
const maxCertificates = 5

// readStep reads a statement of format step, which is WebAuthn's packed one
// (section 8.2) but that sig is CBOR in CBOR and over the key authorization. Of
// x5c the first two count: what stands above is pinned here.
func readStep(raw []byte, keyAuthorization string) (p presented, err error) {
	var s struct {
		Algorithm int64    `cbor:"alg"`
		Signature []byte   `cbor:"sig"`
		Chain     [][]byte `cbor:"x5c"`
	}
	if err := decodeCBOR(raw, &s); err != nil {
		return p, fmt.Errorf("attStmt can't be read: %v", err)
	}
	var signature []byte
	if err := decodeCBOR(s.Signature, &signature); err != nil {
		return p, errors.New("sig is not a CBOR byte string in a byte string")
	}
	if len(s.Chain) < 2 || len(s.Chain) > maxCertificates {
		return p, fmt.Errorf("x5c has %d certificates, want the slot's attestation, the device's and at most %d above", len(s.Chain), maxCertificates-2)
	}
	for i, to := range []**x509.Certificate{&p.statement, &p.device} {
		if *to, err = x509.ParseCertificate(s.Chain[i]); err != nil {
			return p, fmt.Errorf("x5c[%d] is not a certificate", i)
		}
	}
	p.signed = func(public any) error { return verifyCOSE(public, s.Algorithm, keyAuthorization, signature) }
	return p, nil
}

// verifyCOSE checks a signature by just the algorithm that it names.
func verifyCOSE(public any, algorithm int64, message string, signature []byte) error {
	digest := sha256.Sum256([]byte(message))
	good := false
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		good = algorithm == coseES256 && key.Curve == elliptic.P256() && ecdsa.VerifyASN1(key, digest[:], signature)
	case *rsa.PublicKey:
		good = algorithm == coseRS256 && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	case ed25519.PublicKey:
		good = algorithm == coseEdDSA && ed25519.Verify(key, []byte(message), signature)
	}
	if !good {
		return fmt.Errorf("sig isn't the attested key's over the key authorization, by algorithm %d", algorithm)
	}
	return nil
}
