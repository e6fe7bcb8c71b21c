//go:build cgo

package pkcs11

import (
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Numbers that the binding lacks: of PKCS#11 3.0 (mechanisms, section 2.3),
// and CKA_PUBLIC_KEY_INFO of the base specification 2.40, section 4.9.
const (
	ckkECEdwards        = 0x40
	ckmECEdwardsKeyPair = 0x1055
	ckmEDDSA            = 0x1057
	ckaPublicKeyInfo    = 0x129
	ckUnavailable       = ^uint(0) // CK_UNAVAILABLE_INFORMATION
)

const (
	maxFound        = 32       // objects looked at; more than anyone names alike
	maxAttribute    = 64 << 10 // bytes; a certificate has a few thousand
	defaultParallel = 8        // sessions on a token that isn't a card
	testMessage     = "chancery: is this the private key of that public key?"
)

// session is one session with a token that the process is logged in to.
type session struct {
	*module
	handle pkcs11.SessionHandle
	token  token
}

// attribute reads one attribute; an empty answer counts as none.
func (s session) attribute(o pkcs11.ObjectHandle, kind uint) []byte {
	got, err := s.ctx.GetAttributeValue(s.handle, o, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	if err != nil || len(got) != 1 || len(got[0].Value) == 0 || len(got[0].Value) > maxAttribute {
		return nil
	}
	return got[0].Value
}

// search returns up to maxFound objects that match a template.
func (s session) search(template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := s.ctx.FindObjectsInit(s.handle, template); err != nil {
		return nil, fmt.Errorf("%s: search: %w", s.token.name(), err)
	}
	found, _, err := s.ctx.FindObjects(s.handle, maxFound)
	if err := errors.Join(err, s.ctx.FindObjectsFinal(s.handle)); err != nil {
		return nil, fmt.Errorf("%s: search: %w", s.token.name(), err)
	}
	return found, nil
}

// private finds the one private key a URI names.
func (s session) private(u URI) (pkcs11.ObjectHandle, error) {
	class := pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)
	template := []*pkcs11.Attribute{class}
	if u.Object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, u.Object))
	}
	if len(u.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, u.ID))
	}
	found, err := s.search(template...)
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		others, err := s.search(class)
		if err != nil {
			return 0, err
		}
		if len(others) == 0 {
			return 0, fmt.Errorf("private key %w: %s holds none; make one with: chanceryd key generate", ErrNotFound, s.token.name())
		}
		return 0, fmt.Errorf("private key %w: %s holds none that matches %s; it holds %s", ErrNotFound, s.token.name(), u, s.names(others))
	}
	return 0, fmt.Errorf("%w: %s matches %d private keys of %s: %s; add the id= of the one that is meant", ErrAmbiguous, u, len(found), s.token.name(), s.names(found))
}

// names describes objects in the words of a URI.
func (s session) names(objects []pkcs11.ObjectHandle) string {
	var names []string
	for _, o := range objects {
		names = append(names, fmt.Sprintf("object=%s;id=%s", encode(string(s.attribute(o, pkcs11.CKA_LABEL)), ":"), encode(string(s.attribute(o, pkcs11.CKA_ID)), "")))
	}
	return list(names)
}

// number reads a CK_ULONG attribute.
func (s session) number(o pkcs11.ObjectHandle, kind uint) (uint, bool) {
	switch b := s.attribute(o, kind); len(b) {
	case 8:
		return uint(binary.NativeEndian.Uint64(b)), true
	case 4:
		return uint(binary.NativeEndian.Uint32(b)), true
	}
	return 0, false
}

// mechanism is how keys of a private key's type sign.
func (s session) mechanism(private pkcs11.ObjectHandle) (uint, error) {
	kind, ok := s.number(private, pkcs11.CKA_KEY_TYPE)
	if !ok {
		return 0, fmt.Errorf("%s doesn't say of what type the key is", s.token.name())
	}
	switch kind {
	case pkcs11.CKK_EC:
		return pkcs11.CKM_ECDSA, nil
	case pkcs11.CKK_RSA:
		return pkcs11.CKM_RSA_PKCS, nil
	case ckkECEdwards:
		return ckmEDDSA, nil
	}
	return 0, fmt.Errorf("%s: a key of PKCS#11 type %#x can't sign certificates here; use P-256, P-384, P-521, RSA or Ed25519", s.token.name(), kind)
}

// publics gathers what the token shows as the public key of a private one:
// attributes of the key itself, public key objects and certificates with its
// id, or with its label where it has no id. Which of them is right is decided
// by a signature.
func (s session) publics(private pkcs11.ObjectHandle, mechanism uint) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	var problem error
	add := func(key crypto.PublicKey, err error) {
		if err != nil {
			problem = err
			return
		}
		keys = append(keys, key)
	}
	match := pkcs11.NewAttribute(pkcs11.CKA_ID, s.attribute(private, pkcs11.CKA_ID))
	if len(match.Value) == 0 {
		match = pkcs11.NewAttribute(pkcs11.CKA_LABEL, s.attribute(private, pkcs11.CKA_LABEL))
	}
	objects := []pkcs11.ObjectHandle{private}
	if len(match.Value) > 0 {
		found, err := s.search(pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), match)
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	for _, o := range objects {
		if key, err := s.public(o, mechanism); key != nil || err != nil {
			add(key, err)
		}
	}
	if der := s.attribute(private, ckaPublicKeyInfo); der != nil {
		add(parseSPKI(der))
	}
	if len(keys) == 0 && len(match.Value) > 0 {
		found, err := s.search(pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_CERTIFICATE), match)
		if err != nil {
			return nil, err
		}
		for _, o := range found {
			if c, err := x509.ParseCertificate(s.attribute(o, pkcs11.CKA_VALUE)); err == nil {
				add(parseSPKI(c.RawSubjectPublicKeyInfo))
			}
		}
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case problem != nil:
		return nil, fmt.Errorf("%s: %w", s.token.name(), problem)
	}
	return nil, fmt.Errorf("%s shows no public key of the private key: no public key object and no certificate has its id; import the certificate with that id", s.token.name())
}

// public reads the public key from the attributes of an object; nil if it
// shows none.
func (s session) public(o pkcs11.ObjectHandle, mechanism uint) (crypto.PublicKey, error) {
	if mechanism == pkcs11.CKM_RSA_PKCS {
		n, e := s.attribute(o, pkcs11.CKA_MODULUS), s.attribute(o, pkcs11.CKA_PUBLIC_EXPONENT)
		if n == nil || e == nil {
			return nil, nil
		}
		return known(parseRSA(n, e))
	}
	params, point := s.attribute(o, pkcs11.CKA_EC_PARAMS), s.attribute(o, pkcs11.CKA_EC_POINT)
	switch {
	case params == nil || point == nil:
		return nil, nil
	case mechanism == ckmEDDSA:
		return known(parseEd25519(params, point))
	}
	return known(parseECDSA(params, point))
}

// known keeps a nil pointer from becoming a non-nil interface.
func known[K crypto.PublicKey](key K, err error) (crypto.PublicKey, error) {
	if err != nil {
		return nil, err
	}
	return key, nil
}

// sign makes one signature; it blocks until the token is done.
func (s session) sign(private pkcs11.ObjectHandle, mechanism uint, message []byte) ([]byte, error) {
	if err := s.ctx.SignInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, private); err != nil {
		return nil, err
	}
	return s.ctx.Sign(s.handle, message)
}
