package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// digestInfo returns what goes before a digest in a PKCS#1 v1.5 signature (RFC
// 8017 section 9.2, note 1), as CKM_RSA_PKCS leaves that to the caller.
func digestInfo(hash crypto.Hash) ([]byte, bool) {
	switch hash {
	case crypto.SHA256:
		return []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}, true
	case crypto.SHA384:
		return []byte{0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30}, true
	case crypto.SHA512:
		return []byte{0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40}, true
	}
	return nil, false
}

// message is what the token is given to sign for a digest. For Ed25519 the
// digest is the message itself, and opts.HashFunc() is 0, as in crypto/ed25519.
func message(public crypto.PublicKey, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := opts.HashFunc()
	if _, ok := public.(ed25519.PublicKey); ok {
		if hash != 0 {
			return nil, errors.New("Ed25519 signs the message itself, not a digest of it")
		}
		if o, ok := opts.(*ed25519.Options); ok && o.Context != "" {
			return nil, errors.New("Ed25519 with a context isn't supported by tokens here")
		}
		return digest, nil
	}
	prefix, ok := digestInfo(hash)
	if !ok {
		return nil, fmt.Errorf("can't sign with hash %v; use SHA-256, SHA-384 or SHA-512", hash)
	}
	if len(digest) != hash.Size() {
		return nil, fmt.Errorf("a %v digest of %d bytes", hash, len(digest))
	}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		// FIPS 186-5 section 6.4.1: the leftmost bits that fit the curve's
		// order. PKCS#11 wants the caller to cut (mechanisms 2.40, 2.3.6).
		return digest[:min(len(digest), (key.Curve.Params().N.BitLen()+7)/8)], nil
	case *rsa.PublicKey:
		if _, ok := opts.(*rsa.PSSOptions); ok {
			return nil, errors.New("RSA-PSS isn't supported by tokens here; certificates are signed with PKCS#1 v1.5")
		}
		return slices.Concat(prefix, digest), nil
	}
	return nil, fmt.Errorf("a %T can't sign here", public)
}

// signature brings what the token returned into the form of crypto.Signer.
// CKM_ECDSA returns r and s side by side, each as long as the order (mechanisms
// 2.40, section 2.3.1); X.509 wants a SEQUENCE of two INTEGERs (RFC 3279
// section 2.2.3).
func signature(public crypto.PublicKey, raw []byte) ([]byte, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		half := len(raw) / 2
		if half == 0 || len(raw)%2 != 0 || half > (key.Curve.Params().N.BitLen()+7)/8 {
			return nil, fmt.Errorf("the token returned an ECDSA signature of %d bytes, which %s has none of", len(raw), keyName(public))
		}
		r, s := new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])
		return asn1.Marshal(struct{ R, S *big.Int }{r, s})
	case *rsa.PublicKey:
		if len(raw) != key.Size() {
			return nil, fmt.Errorf("the token returned an RSA signature of %d bytes instead of %d", len(raw), key.Size())
		}
	case ed25519.PublicKey:
		if len(raw) != ed25519.SignatureSize {
			return nil, fmt.Errorf("the token returned an Ed25519 signature of %d bytes instead of %d", len(raw), ed25519.SignatureSize)
		}
	}
	return raw, nil
}

// check verifies one signature over a digest made with SHA-256, or over the
// message for Ed25519.
func check(public crypto.PublicKey, digest, sig []byte) bool {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, sig)
	}
	return false
}
