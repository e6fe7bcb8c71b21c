package sshorder

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
)

// Request is what finalize brings for an SSH certificate, unchecked.
type Request struct {
	Key        string // an authorized_keys line; "" where the key is the device's
	Possession string // an SSHSIG over the order's URL
	OrderURL   string // as the client knows it
}

// Empty reports whether the client sent neither a key nor a proof.
func (r Request) Empty() bool { return r.Key == "" && r.Possession == "" }

func unauthorized(format string, args ...any) error {
	return protocol.NewProblem(protocol.Unauthorized, format, args...)
}

func badKey(format string, args ...any) error {
	return protocol.NewProblem(protocol.BadCSR, "sshPublicKey: "+format, args...)
}

// WrongPayload is the answer to a CSR where an SSH key is wanted, and the reverse.
func WrongPayload(p cert.Profile) error {
	if p.Format() == cert.OpenSSH {
		return protocol.NewProblem(protocol.BadCSR,
			"profile %q gives SSH certificates: send sshPublicKey and possession in place of csr", p.Name)
	}
	return protocol.NewProblem(protocol.Malformed, "the payload has no csr, and profile %q gives X.509 certificates (RFC 8555 section 7.4)", p.Name)
}

// Key settles the key to be certified. Where the device's own key is certified
// (yubikey-01, device-attest-01) the proof was by that key already; any other
// comes with a proof of possession, and internal/ca/device sees that it is no
// enrolled device's. Errors are problems (badCSR, unauthorized, malformed) or the
// database's.
func Key(ctx context.Context, db *store.DB, p cert.Profile, o protocol.Order, proofs []protocol.Authorization, r Request) (*issuer.CSR, error) {
	if err := policy.CheckSSH(p, o.Identifiers); err != nil {
		return nil, err
	}
	own, err := provenKey(ctx, db, proofs)
	if err != nil {
		return nil, err
	}
	if r.Key == "" {
		if own == nil {
			return nil, protocol.NewProblem(protocol.Malformed, "the payload has no sshPublicKey; send it with possession (profile %q gives SSH certificates)", p.Name)
		}
		return issuer.SSHCSR(own)
	}
	key, err := sshca.ParseKey(r.Key)
	if err != nil {
		return nil, err
	}
	asked, err := issuer.SSHCSR(key)
	if err != nil {
		return nil, err
	}
	if own != nil {
		if string(own.Marshal()) != string(key.Marshal()) {
			return nil, badKey("the proof was by a device whose own key is certified, and this is another key; send {} or the device's key, or prove by yubikey-02")
		}
		return asked, nil
	}
	if err := sshca.VerifyPossession(key, r.OrderURL, r.Possession); err != nil {
		return nil, err
	}
	return asked, nil
}

// provenKey is the key of the device whose own key the proofs certify, nil where
// they certify another key.
func provenKey(ctx context.Context, db *store.DB, proofs []protocol.Authorization) (ssh.PublicKey, error) {
	i := slices.IndexFunc(proofs, func(z protocol.Authorization) bool {
		return z.Attempt.Type == protocol.YubiKey01 || z.Attempt.Type == protocol.DeviceAttest01
	})
	if i < 0 {
		return nil, nil
	}
	d, err := device(ctx, db, proofs[i].Subject)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(d.Key)
	if err != nil {
		return nil, err
	}
	return sshca.NewKey(key)
}

// device is the enrolled device that a proof rests on.
func device(ctx context.Context, db *store.DB, subject string) (protocol.Device, error) {
	id, ok := protocol.DeviceOf(subject)
	if !ok {
		return protocol.Device{}, unauthorized("an SSH user certificate needs the proof of an enrolled device")
	}
	d, err := db.Device(ctx, id)
	if err == nil && d.State != protocol.DeviceActive || errors.Is(err, store.ErrNotFound) {
		return d, unauthorized("the device that proved the order is not enrolled any more")
	}
	return d, err
}

// Subject decides what the certificate says besides its key and its dates, by
// what the registry says of the device now. subject is what the order's private
// proofs rest on.
func Subject(ctx context.Context, db *store.DB, p cert.Profile, o protocol.Order, subject string, key ssh.PublicKey) (issuer.SSHSubject, error) {
	s := issuer.SSHSubject{Key: key}
	err := policy.CheckSSH(p, o.Identifiers)
	if err != nil {
		return s, err
	}
	if slices.Contains(p.Usages, cert.SSHHost) {
		s.Principals = protocol.Values(o.Identifiers)
		s.KeyID, err = sshca.KeyID(s.Principals[0], "")
		return s, err
	}
	d, err := device(ctx, db, subject)
	if err != nil {
		return s, err
	}
	// The validator has compared these; that it had to is no reason to trust
	// what names the person in sshd's log.
	if named := o.Identifiers[0].Value; named != d.Owner {
		return s, unauthorized("the device that proved the order is not %q's", named)
	}
	if len(d.Principals) == 0 {
		return s, unauthorized("no SSH principals are registered for this device; ask the operator to add them (chancery devices)")
	}
	s.Principals = d.Principals
	s.KeyID, err = sshca.KeyID(d.Owner, DeviceName(d))
	return s, err
}

// DeviceName is how a key ID names the device: its serial number and slot.
func DeviceName(d protocol.Device) string {
	return strconv.FormatUint(uint64(d.Serial), 10) + "-" + strings.ToLower(d.Slot)
}

// SerialOf reads the serial of a certificate: in DER, or as the bytes that an SSH
// certificate's line has in base64.
func SerialOf(der []byte) (cert.Serial, error) {
	if leaf, err := x509.ParseCertificate(der); err == nil {
		return cert.SerialOf(leaf.SerialNumber), nil
	}
	serial, _, err := sshca.Read(der)
	if err != nil {
		return "", protocol.NewProblem(protocol.Malformed, "\"certificate\" is not a certificate in DER, base64url without padding (nor the binary form of an SSH certificate)")
	}
	return serial, nil
}
