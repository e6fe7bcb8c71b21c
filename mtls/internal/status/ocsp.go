package status

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxOCSP bounds a response. Real ones have 300 bytes to 3 KiB; one with
	// post-quantum signatures and the responder's certificate some 20 KiB.
	maxOCSP = 64 << 10
	// maxSingles bounds the certificates one response speaks of, maxCerts those
	// that come with it. Real ones have one of each.
	maxSingles, maxCerts = 32, 4
)

// Status is what an issuer says of a certificate (RFC 6960 section 2.2). The
// numbers are CertStatus's tags.
type Status int

// The states.
const (
	Good Status = iota
	Revoked
	Unknown // the responder doesn't know it
)

// answer is an OCSP answer about one certificate, verified.
type answer struct {
	status     Status
	this, next time.Time
	revokedAt  time.Time
	sum        [sha256.Size]byte // of the whole response
}

func (a *answer) of([]byte) (Status, string) {
	if a.status != Revoked {
		return a.status, ""
	}
	return Revoked, fmt.Sprintf("was revoked at %s, says OCSP", stamp(a.revokedAt))
}

func (a *answer) window() (this, next time.Time) { return a.this, a.next }

func (a *answer) follows(known finding) error {
	if k, ok := known.(*answer); ok {
		switch {
		case k.status == Revoked:
			return errors.New("OCSP response: the certificate was revoked before, which is final")
		case a.this.Before(k.this):
			return fmt.Errorf("OCSP response: it is of %s, but one of %s is known already", stamp(a.this), stamp(k.this))
		}
	}
	return nil
}

// response is a BasicOCSPResponse (RFC 6960 section 4.2.1): read, nothing
// verified.
type response struct {
	tbs       []byte
	byName    []byte // the responder's name, in DER, or
	byKey     []byte // the SHA-1 of its key
	singles   []single
	algorithm x509.SignatureAlgorithm
	signature []byte
	certs     [][]byte
}

// single is a SingleResponse.
type single struct {
	sha256          bool // else SHA-1
	name, key       []byte
	serial          []byte // without leading zeros
	status          Status
	revokedAt       time.Time
	thisUp, nextUpd time.Time
}

var (
	oidBasic  = []byte{0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01} // id-pkix-ocsp-basic
	oidSHA1   = []byte{0x2b, 0x0e, 0x03, 0x02, 0x1a}                         // id-sha1
	oidSHA256 = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01} // id-sha256
	ocspFault = [...]string{1: "malformed request", 2: "internal error", 3: "try later", 5: "the request must be signed", 6: "unauthorized"}
)

// parseOCSP reads an OCSPResponse. A responder's error is an error.
func parseOCSP(der []byte) (*response, error) {
	if len(der) > maxOCSP {
		return nil, fmt.Errorf("it has more than %d bytes", maxOCSP)
	}
	var outer, body, oid, octets, basic cryptobyte.String
	var code int
	s := cryptobyte.String(der)
	if !s.ReadASN1(&outer, asn1.SEQUENCE) || !s.Empty() || !outer.ReadASN1Enum(&code) {
		return nil, errMalformed
	}
	if code != 0 {
		if code < len(ocspFault) && code > 0 && ocspFault[code] != "" {
			return nil, fmt.Errorf("the responder says: %s", ocspFault[code])
		}
		return nil, fmt.Errorf("the responder says: status %d", code)
	}
	if !readExplicit(&outer, 0, &body) || !outer.Empty() || !body.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
		!bytes.Equal(oid, oidBasic) || !body.ReadASN1(&octets, asn1.OCTET_STRING) || !body.Empty() ||
		!octets.ReadASN1(&basic, asn1.SEQUENCE) || !octets.Empty() {
		return nil, errMalformed
	}
	return readBasic(basic)
}

func readBasic(basic cryptobyte.String) (*response, error) {
	var r response
	var tbs, certs, one cryptobyte.String
	if !basic.ReadASN1Element(&tbs, asn1.SEQUENCE) {
		return nil, errMalformed
	}
	r.tbs = tbs
	var err error
	if r.algorithm, err = readAlgorithm(&basic); err != nil {
		return nil, err
	}
	if !basic.ReadASN1BitStringAsBytes(&r.signature) || !readExplicit(&basic, 0, &certs) || !basic.Empty() {
		return nil, errMalformed
	}
	for !certs.Empty() {
		if len(r.certs) == maxCerts {
			return nil, fmt.Errorf("more than %d certificates come with it", maxCerts)
		}
		if !certs.ReadASN1Element(&one, asn1.SEQUENCE) {
			return nil, errMalformed
		}
		r.certs = append(r.certs, one)
	}
	return &r, r.readData(tbs)
}

// readData reads the ResponseData.
func (r *response) readData(tbs cryptobyte.String) error {
	var data, version, responses, extensions cryptobyte.String
	var produced time.Time
	var present bool
	if !tbs.ReadASN1(&data, asn1.SEQUENCE) || !data.ReadOptionalASN1(&version, &present, explicit(0)) {
		return errMalformed
	}
	if present && !bytes.Equal(version, []byte{2, 1, 0}) {
		return errors.New("it isn't of version 1")
	}
	if !r.readResponder(&data) || !data.ReadASN1GeneralizedTime(&produced) ||
		!data.ReadASN1(&responses, asn1.SEQUENCE) || !readExplicit(&data, 1, &extensions) || !data.Empty() {
		return errMalformed
	}
	for !responses.Empty() {
		if len(r.singles) == maxSingles {
			return fmt.Errorf("it speaks of more than %d certificates", maxSingles)
		}
		one, err := readSingle(&responses)
		if err != nil {
			return err
		}
		r.singles = append(r.singles, one)
	}
	return readExtensions(extensions, unknown)
}

// readResponder reads the ResponderID.
func (r *response) readResponder(data *cryptobyte.String) bool {
	var id, key cryptobyte.String
	if data.PeekASN1Tag(explicit(1)) {
		ok := data.ReadASN1(&id, explicit(1))
		r.byName = id
		return ok && len(id) > 0
	}
	ok := data.ReadASN1(&id, explicit(2)) && id.ReadASN1(&key, asn1.OCTET_STRING) && id.Empty()
	r.byKey = key
	return ok && len(key) > 0
}

func readSingle(s *cryptobyte.String) (r single, err error) {
	var one, id, alg, oid, name, key, serial, next, extensions cryptobyte.String
	var hasNext bool
	if !s.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1(&id, asn1.SEQUENCE) ||
		!id.ReadASN1(&alg, asn1.SEQUENCE) || !alg.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
		!id.ReadASN1(&name, asn1.OCTET_STRING) || !id.ReadASN1(&key, asn1.OCTET_STRING) ||
		!id.ReadASN1(&serial, asn1.INTEGER) || !id.Empty() {
		return r, errMalformed
	}
	var positive bool
	r.name, r.key = name, key
	r.serial, positive = magnitude(serial)
	r.sha256 = bytes.Equal(oid, oidSHA256)
	if !positive || !r.sha256 && !bytes.Equal(oid, oidSHA1) {
		r.name, r.key = nil, nil // it can't be about ours
	}
	if !r.readStatus(&one) || !one.ReadASN1GeneralizedTime(&r.thisUp) || !one.ReadOptionalASN1(&next, &hasNext, explicit(0)) ||
		hasNext && (!next.ReadASN1GeneralizedTime(&r.nextUpd) || !next.Empty()) ||
		!readExplicit(&one, 1, &extensions) || !one.Empty() {
		return r, errMalformed
	}
	return r, readExtensions(extensions, unknown)
}

// readStatus reads the CertStatus.
func (r *single) readStatus(one *cryptobyte.String) bool {
	var content, reason cryptobyte.String
	var tag asn1.Tag
	var present bool
	if !one.ReadAnyASN1(&content, &tag) {
		return false
	}
	switch tag {
	case asn1.Tag(0).ContextSpecific():
		r.status = Good
		return content.Empty()
	case asn1.Tag(2).ContextSpecific():
		r.status = Unknown
		return content.Empty()
	case explicit(1):
		r.status = Revoked
		return content.ReadASN1GeneralizedTime(&r.revokedAt) && content.ReadOptionalASN1(&reason, &present, explicit(0)) && content.Empty()
	}
	return false
}

// verifyOCSP reads a response and checks all that makes it an answer about
// cert (RFC 6960 section 3.2). issuer has issued cert, which the caller has
// verified.
func verifyOCSP(der []byte, cert, issuer *x509.Certificate, now time.Time) (*answer, error) {
	r, err := parseOCSP(der)
	if err != nil {
		return nil, fmt.Errorf("OCSP response: %w", err)
	}
	one, err := r.about(cert, issuer)
	if err == nil {
		err = current(one.thisUp, one.nextUpd, now)
	}
	if err == nil {
		err = r.verify(issuer, now)
	}
	if err != nil {
		return nil, fmt.Errorf("OCSP response: %w", err)
	}
	return &answer{status: one.status, this: one.thisUp, next: one.nextUpd, revokedAt: one.revokedAt, sum: sha256.Sum256(der)}, nil
}

// about finds what the response says of the certificate.
func (r *response) about(cert, issuer *x509.Certificate) (*single, error) {
	bits, err := keyBits(issuer)
	if err != nil {
		return nil, err
	}
	name1, key1 := sha1Of(issuer.RawSubject), sha1Of(bits)
	name256, key256 := sha256.Sum256(issuer.RawSubject), sha256.Sum256(bits)
	serial := cert.SerialNumber.Bytes()
	for i := range r.singles {
		s := &r.singles[i]
		name, key := name1[:], key1[:]
		if s.sha256 {
			name, key = name256[:], key256[:]
		}
		if bytes.Equal(s.serial, serial) && bytes.Equal(s.name, name) && bytes.Equal(s.key, key) {
			return s, nil
		}
	}
	return nil, errors.New("it isn't about this certificate")
}

// verify checks the signature: of the issuer, or of a responder that the
// issuer itself has certified for OCSP (RFC 6960 section 4.2.2.2).
func (r *response) verify(issuer *x509.Certificate, now time.Time) error {
	if r.names(issuer) && issuer.CheckSignature(r.algorithm, r.tbs, r.signature) == nil {
		return nil
	}
	for _, der := range r.certs {
		c, err := x509.ParseCertificate(der)
		if err != nil || !r.names(c) || c.Equal(issuer) {
			continue
		}
		if err := delegated(c, issuer, now); err != nil {
			return fmt.Errorf("the responder's certificate %q %w", c.Subject, err)
		}
		if err := c.CheckSignature(r.algorithm, r.tbs, r.signature); err != nil {
			return fmt.Errorf("the signature of responder %q is wrong: %w", c.Subject, err)
		}
		return nil
	}
	return errors.New("it is signed neither by the certificate's issuer nor by a responder of that issuer's")
}

// names reports whether the ResponderID fits a certificate.
func (r *response) names(c *x509.Certificate) bool {
	if r.byName != nil {
		return bytes.Equal(r.byName, c.RawSubject)
	}
	bits, err := keyBits(c)
	if err != nil {
		return false
	}
	sum := sha1Of(bits)
	return bytes.Equal(r.byKey, sum[:])
}

// delegated checks a responder's certificate. Whether it was revoked itself
// isn't asked: it should be short-lived and say id-pkix-ocsp-nocheck (RFC 6960
// section 4.2.2.2.1).
func delegated(c, issuer *x509.Certificate, now time.Time) error {
	switch {
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return fmt.Errorf("was not issued by %q", issuer.Subject)
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("lacks the extended key usage OCSP signing")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("lacks the key usage digital signature")
	case len(c.UnhandledCriticalExtensions) > 0:
		return errors.New("has a critical extension that isn't known here")
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		return fmt.Errorf("is valid from %s to %s only", stamp(c.NotBefore), stamp(c.NotAfter))
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("was not issued by %q: %w", issuer.Subject, err)
	}
	return nil
}

// requestOCSP is an OCSPRequest for one certificate. It names the issuer by
// SHA-1, which RFC 5019 section 2.1.1 demands and every responder knows, and
// has no nonce, so that ready answers can be given.
func requestOCSP(cert, issuer *x509.Certificate) ([]byte, error) {
	bits, err := keyBits(issuer)
	if err != nil {
		return nil, err
	}
	name, key := sha1Of(issuer.RawSubject), sha1Of(bits)
	var b cryptobyte.Builder
	sequence := func(b *cryptobyte.Builder, f cryptobyte.BuilderContinuation) { b.AddASN1(asn1.SEQUENCE, f) }
	sequence(&b, func(b *cryptobyte.Builder) { // OCSPRequest
		sequence(b, func(b *cryptobyte.Builder) { // TBSRequest
			sequence(b, func(b *cryptobyte.Builder) { // requestList
				sequence(b, func(b *cryptobyte.Builder) { // Request
					sequence(b, func(b *cryptobyte.Builder) { // CertID
						sequence(b, func(b *cryptobyte.Builder) {
							b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oidSHA1) })
							b.AddASN1NULL()
						})
						b.AddASN1OctetString(name[:])
						b.AddASN1OctetString(key[:])
						b.AddASN1BigInt(cert.SerialNumber)
					})
				})
			})
		})
	})
	return b.Bytes()
}
