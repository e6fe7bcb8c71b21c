package yubikey

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Attestation is what a YubiKey states of a key that it made: "this public key
// was generated in this slot of this device". It proves nothing before
// [Attestation.Verify] returned nil.
type Attestation struct {
	Statement *x509.Certificate // holds the attested public key; signed by the device's
	Device    *x509.Certificate // of slot f9; signed by Yubico

	Serial      uint32
	Firmware    Firmware
	Slot        Slot
	PINPolicy   PINPolicy
	TouchPolicy TouchPolicy
	FormFactor  FormFactor
}

// arc is Yubico's for PIV attestation: 1.3.6.1.4.1.41482.3 and one number.
var arc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3}

// The extensions of a statement that say something, by their number in the
// arc. 10 and 11 (FIPS and CSPN certified) say what the form factor says, too.
const (
	oidFirmware   = 3 // three bytes
	oidSerial     = 7 // a DER INTEGER
	oidPolicies   = 8 // two bytes: PIN, touch
	oidFormFactor = 9 // one byte
)

// subjectPrefix is what the subject's CN starts with; the slot follows.
const subjectPrefix = "YubiKey PIV Attestation "

// ParseAttestation reads what the statement says, strictly: every one of the
// four extensions must be there once and have its exact form (raw bytes but
// for the serial number's INTEGER), the subject must be one CN that names a
// slot, and unknown policies are refused. Cards older than firmware 5 leave
// some out, and so does one that was told to hide its serial number. It
// verifies no signature. The certificates are kept, not copied.
func ParseAttestation(statement, device *x509.Certificate) (*Attestation, error) {
	if statement == nil || device == nil {
		return nil, errors.New("attestation: both the statement and the device's certificate are needed")
	}
	a := &Attestation{Statement: statement, Device: device}
	seen := map[int]bool{}
	for _, e := range statement.Extensions {
		if len(e.Id) != len(arc)+1 || !e.Id[:len(arc)].Equal(arc) {
			continue
		}
		n := e.Id[len(arc)]
		if seen[n] {
			return nil, fmt.Errorf("attestation: extension %s comes twice", e.Id)
		}
		seen[n] = true
		if err := a.extension(n, e); err != nil {
			return nil, fmt.Errorf("attestation: extension %s: %w", e.Id, err)
		}
	}
	for _, n := range []int{oidFirmware, oidSerial, oidPolicies, oidFormFactor} {
		if !seen[n] {
			return nil, fmt.Errorf("attestation: extension %s.%d is missing", arc, n)
		}
	}
	return a, a.subject()
}

// extension reads one of the arc.
func (a *Attestation) extension(n int, e pkix.Extension) error {
	length := map[int]int{oidFirmware: 3, oidPolicies: 2, oidFormFactor: 1}
	if want, ok := length[n]; ok && len(e.Value) != want {
		return fmt.Errorf("%d bytes, want %d", len(e.Value), want)
	}
	switch n {
	case oidFirmware:
		a.Firmware = Firmware{e.Value[0], e.Value[1], e.Value[2]}
	case oidSerial:
		var serial int64
		rest, err := asn1.Unmarshal(e.Value, &serial)
		if err != nil || len(rest) != 0 || serial <= 0 || serial > 1<<32-1 {
			return errors.New("not an INTEGER from 1 to 2^32-1")
		}
		a.Serial = uint32(serial)
	case oidPolicies:
		a.PINPolicy, a.TouchPolicy = PINPolicy(e.Value[0]), TouchPolicy(e.Value[1])
		if a.PINPolicy < PINNever || a.PINPolicy > PINMatchAlways {
			return fmt.Errorf("unknown PIN policy %d", e.Value[0])
		}
		if a.TouchPolicy < TouchNever || a.TouchPolicy > TouchCached {
			return fmt.Errorf("unknown touch policy %d", e.Value[1])
		}
	case oidFormFactor:
		a.FormFactor = FormFactor(e.Value[0])
	}
	return nil
}

// commonName is the attribute's type in a name (RFC 5280 appendix A.1).
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// subject reads the slot from the statement's subject.
func (a *Attestation) subject() error {
	names := a.Statement.Subject.Names
	if len(names) != 1 || !names[0].Type.Equal(commonName) {
		return errors.New("attestation: the subject is not one CN")
	}
	text, ok := strings.CutPrefix(a.Statement.Subject.CommonName, subjectPrefix)
	slot, err := ParseSlot(text)
	if !ok || err != nil || text != slot.String() {
		return fmt.Errorf("attestation: the subject %q names no slot", a.Statement.Subject.CommonName)
	}
	a.Slot = slot
	return nil
}

// Verify checks that the statement is signed by the device's key, and the
// device's certificate by one of the issuers, which are trusted as they are
// (Yubico's PIV CAs, pinned), and that both are valid at the given time. The
// chain is exactly these three: neither a certificate below a statement nor a
// device certificate that calls itself trusted is accepted.
//
// It doesn't ask whether the device certificate may sign certificates where
// the certificate doesn't say (YubiKeys 4 have no basic constraints in it),
// nor for the issuer's path length (Yubico's older one forbids what it did).
func (a *Attestation) Verify(issuers []*x509.Certificate, at time.Time) error {
	for i, c := range []*x509.Certificate{a.Statement, a.Device} {
		name := [...]string{"statement", "device certificate"}[i]
		switch {
		case at.Before(c.NotBefore) || at.After(c.NotAfter):
			return fmt.Errorf("attestation: the %s is valid from %s to %s", name, c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
		case len(c.UnhandledCriticalExtensions) > 0:
			return fmt.Errorf("attestation: the %s has a critical extension %s", name, c.UnhandledCriticalExtensions[0])
		}
	}
	if a.Device.BasicConstraintsValid && !a.Device.IsCA {
		return errors.New("attestation: the device certificate may not sign: it is no CA")
	}
	// Several issuers may bear one name. The issuer comes first: until it
	// vouches for it, the device's key is a stranger's choice, and one of RSA
	// as large as it pleases takes long.
	if !slices.ContainsFunc(issuers, func(ca *x509.Certificate) bool { return signedBy(a.Device, ca) == nil }) {
		return fmt.Errorf("attestation: the device certificate, of %q, isn't signed by a trusted issuer", a.Device.Issuer)
	}
	if err := signedBy(a.Statement, a.Device); err != nil {
		return fmt.Errorf("attestation: the statement isn't the device's: %w", err)
	}
	return nil
}

// signedBy checks name and signature. CheckSignatureFrom would ask for basic
// constraints, too.
func signedBy(c, issuer *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("issued by %q, not %q", c.Issuer, issuer.Subject)
	}
	return issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
}

// PEM returns the statement and the device's certificate, to be kept as
// evidence.
func (a *Attestation) PEM() []byte {
	var b []byte
	for _, c := range []*x509.Certificate{a.Statement, a.Device} {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}
