package status

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxCRL bounds a list: 64 MiB are some 1.5 million entries.
	maxCRL = 64 << 20
	// maxNumber bounds a list's number, in octets (RFC 5280 section 5.2.3).
	maxNumber = 20
	// maxNames bounds the names of a list's distribution point.
	maxNames = 16
)

// list is a CRL, verified: of the serials only hashes are kept, 8 bytes each.
// Two serials with one hash would make a good certificate look revoked, never
// the other way round; with a secret seed nobody can look for such a pair.
type list struct {
	url        string // where it came from
	etag       string
	number     *big.Int
	this, next time.Time
	seed       maphash.Seed
	serials    []uint64 // sorted
}

func (l *list) of(serial []byte) (Status, string) {
	if _, found := slices.BinarySearch(l.serials, maphash.Bytes(l.seed, serial)); !found {
		return Good, ""
	}
	return Revoked, fmt.Sprintf("was revoked, says CRL number %d of %s from %s", l.number, stamp(l.this), l.url)
}

func (l *list) window() (this, next time.Time) { return l.this, l.next }

// follows refuses what is older than what is known: somebody replays it.
func (l *list) follows(known finding) error {
	k, ok := known.(*list)
	if !ok {
		return nil
	}
	switch order := l.number.Cmp(k.number); {
	case order < 0:
		return fmt.Errorf("CRL: its number is %d, but %d is known already", l.number, k.number)
	case order == 0 && l.this.Before(k.this):
		return fmt.Errorf("CRL: it is of %s, but one of %s is known already", stamp(l.this), stamp(k.this))
	}
	return nil
}

// crl is a CertificateList (RFC 5280 section 5.1): read, nothing verified.
type crl struct {
	list
	tbs       []byte
	issuer    []byte // its name, in DER
	algorithm x509.SignatureAlgorithm
	signature []byte

	// From the issuingDistributionPoint (section 5.2.5).
	scoped, part       bool     // there is one; it names a part
	names              []string // the part's URLs
	usersOnly, casOnly bool     // of end entities only, of CAs only
}

// parseCRL reads a list of version 2, all of it.
func parseCRL(der []byte) (*crl, error) {
	if len(der) > maxCRL {
		return nil, fmt.Errorf("it has more than %d bytes", maxCRL)
	}
	c := &crl{}
	var outer, element, tbs, inner, sig, name cryptobyte.String
	var version int
	s := cryptobyte.String(der)
	if !s.ReadASN1(&outer, asn1.SEQUENCE) || !s.Empty() || !outer.ReadASN1Element(&element, asn1.SEQUENCE) {
		return nil, errMalformed
	}
	c.tbs = element
	if !element.ReadASN1(&tbs, asn1.SEQUENCE) || !tbs.ReadASN1Integer(&version) || version != 1 ||
		!tbs.ReadASN1Element(&inner, asn1.SEQUENCE) {
		return nil, errors.New("it isn't a CRL of version 2")
	}
	rest := outer
	if !rest.ReadASN1Element(&sig, asn1.SEQUENCE) || !bytes.Equal(inner, sig) { // section 5.1.1.2
		return nil, errMalformed
	}
	var err error
	if c.algorithm, err = readAlgorithm(&outer); err != nil {
		return nil, err
	}
	if !outer.ReadASN1BitStringAsBytes(&c.signature) || !outer.Empty() ||
		!tbs.ReadASN1Element(&name, asn1.SEQUENCE) || !readTime(&tbs, &c.this) {
		return nil, errMalformed
	}
	c.issuer = name
	if (tbs.PeekASN1Tag(asn1.UTCTime) || tbs.PeekASN1Tag(asn1.GeneralizedTime)) && !readTime(&tbs, &c.next) {
		return nil, errMalformed
	}
	return c, c.readRest(tbs)
}

// readRest reads the entries and the extensions.
func (c *crl) readRest(tbs cryptobyte.String) error {
	var entries, extensions cryptobyte.String
	var present bool
	if !tbs.ReadOptionalASN1(&entries, &present, asn1.SEQUENCE) || !readExplicit(&tbs, 0, &extensions) || !tbs.Empty() {
		return errMalformed
	}
	if err := c.readEntries(entries); err != nil {
		return err
	}
	if err := readExtensions(extensions, c.extension); err != nil {
		return err
	}
	if c.number == nil { // section 5.2.3: every list has one
		return errors.New("it has no number")
	}
	return nil
}

func (c *crl) readEntries(entries cryptobyte.String) error {
	c.seed = maphash.MakeSeed()
	count := 0
	for rest := entries; rest.SkipASN1(asn1.SEQUENCE); {
		count++
	}
	c.serials = make([]uint64, 0, count)
	for !entries.Empty() {
		var entry, serial, extensions cryptobyte.String
		var present bool
		if !entries.ReadASN1(&entry, asn1.SEQUENCE) || !entry.ReadASN1(&serial, asn1.INTEGER) {
			return errMalformed
		}
		since := asn1.GeneralizedTime // which doesn't matter
		if entry.PeekASN1Tag(asn1.UTCTime) {
			since = asn1.UTCTime
		}
		if !entry.SkipASN1(since) || !entry.ReadOptionalASN1(&extensions, &present, asn1.SEQUENCE) || !entry.Empty() {
			return errMalformed
		}
		// A critical entry extension that isn't understood, such as the
		// certificateIssuer of indirect lists, spoils the list (section 5.3).
		if err := readExtensions(extensions, entryExtension); err != nil {
			return err
		}
		if serial, positive := magnitude(serial); positive {
			c.serials = append(c.serials, maphash.Bytes(c.seed, serial))
		}
	}
	slices.Sort(c.serials)
	return nil
}

// entryExtension knows reasonCode and invalidityDate (sections 5.3.1, 5.3.2).
func entryExtension(oid, _ []byte) (bool, error) {
	return bytes.Equal(oid, []byte{0x55, 0x1d, 21}) || bytes.Equal(oid, []byte{0x55, 0x1d, 24}), nil
}

// extension reads those of the list that matter. A deltaCRLIndicator is
// critical and not among them: a delta is no list.
func (c *crl) extension(oid, value []byte) (bool, error) {
	switch {
	case bytes.Equal(oid, []byte{0x55, 0x1d, 20}): // cRLNumber
		number := new(big.Int)
		s := cryptobyte.String(value)
		if c.number != nil || len(value) > 2+maxNumber+1 || !s.ReadASN1Integer(number) || !s.Empty() || number.Sign() < 0 {
			return true, errMalformed
		}
		c.number = number
		return true, nil
	case bytes.Equal(oid, []byte{0x55, 0x1d, 28}): // issuingDistributionPoint
		if c.scoped {
			return true, errMalformed
		}
		c.scoped = true
		return true, c.readPoint(value)
	}
	return bytes.Equal(oid, []byte{0x55, 0x1d, 35}), nil // authorityKeyIdentifier: the signature tells
}

// readPoint reads the IssuingDistributionPoint and refuses lists that speak of
// less than all that happened to their certificates, or of another CA's.
func (c *crl) readPoint(value []byte) error {
	var idp, point, full cryptobyte.String
	var present bool
	s := cryptobyte.String(value)
	if !s.ReadASN1(&idp, asn1.SEQUENCE) || !s.Empty() || !idp.ReadOptionalASN1(&point, &present, explicit(0)) {
		return errMalformed
	}
	if present {
		c.part = true
		if !point.ReadASN1(&full, explicit(0)) || !point.Empty() { // not a name relative to the issuer
			return errors.New("it is of a part that isn't named by URL")
		}
		if err := c.readNames(full); err != nil {
			return err
		}
	}
	for !idp.Empty() {
		var content cryptobyte.String
		var tag asn1.Tag
		if !idp.ReadAnyASN1(&content, &tag) {
			return errMalformed
		}
		yes := len(content) == 1 && content[0] == 0xff
		switch tag {
		case asn1.Tag(1).ContextSpecific():
			c.usersOnly = yes
		case asn1.Tag(2).ContextSpecific():
			c.casOnly = yes
		case asn1.Tag(3).ContextSpecific():
			return errors.New("it is of some reasons only")
		case asn1.Tag(4).ContextSpecific(), asn1.Tag(5).ContextSpecific():
			if yes {
				return errors.New("it is an indirect list, or one of attribute certificates")
			}
		default:
			return errMalformed
		}
	}
	return nil
}

// readNames reads the URLs of a distribution point.
func (c *crl) readNames(full cryptobyte.String) error {
	for n := 0; !full.Empty(); n++ {
		var content cryptobyte.String
		var tag asn1.Tag
		if !full.ReadAnyASN1(&content, &tag) || n == maxNames {
			return errMalformed
		}
		if tag == asn1.Tag(6).ContextSpecific() {
			c.names = append(c.names, string(content))
		}
	}
	return nil
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(asn1.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}

// verifyCRL reads a list and checks all that makes it speak for cert (RFC 5280
// section 6.3.3). issuer has issued cert, which the caller has verified.
func verifyCRL(der []byte, cert, issuer *x509.Certificate, now time.Time) (*list, error) {
	c, err := parseCRL(der)
	if err == nil {
		err = c.speaksFor(cert, issuer)
	}
	if err == nil {
		err = current(c.this, c.next, now)
	}
	if err == nil {
		signed := &x509.RevocationList{RawTBSRevocationList: c.tbs, Signature: c.signature, SignatureAlgorithm: c.algorithm}
		if err = signed.CheckSignatureFrom(issuer); err != nil { // that has cRLSign
			err = fmt.Errorf("it isn't signed by %q: %w", issuer.Subject, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	l := c.list
	return &l, nil
}

// speaksFor holds the list's scope against the certificate.
func (c *crl) speaksFor(cert, issuer *x509.Certificate) error {
	switch {
	case !bytes.Equal(c.issuer, issuer.RawSubject):
		return fmt.Errorf("it isn't of %q", issuer.Subject)
	case cert.IsCA && c.usersOnly || !cert.IsCA && c.casOnly:
		return errors.New("it isn't of this kind of certificate")
	case c.part && !slices.ContainsFunc(c.names, func(name string) bool { return slices.Contains(cert.CRLDistributionPoints, name) }):
		return fmt.Errorf("it is of another part (%.100q)", c.names)
	}
	return nil
}
