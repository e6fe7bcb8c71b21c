package issuer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

// CA says what a CA certificate shall be.
type CA struct {
	CommonName   string // required
	Organization string
	Now          time.Time
	Lifetime     time.Duration // 0: RootLifetime or IntermediateLifetime

	// The rest is for intermediates.

	// Usages limit what may be issued below (as extended key usage): a CA for
	// clients can't make servers. None: no limit.
	Usages []cert.Usage
	// PermittedDNS and PermittedIPs become critical name constraints (RFC 5280
	// section 4.2.1.10). Where only one kind is given, the other is excluded
	// whole, since it would be free otherwise.
	PermittedDNS []string
	PermittedIPs []netip.Prefix
	IssuerURL    string // where the parent's certificate can be had; "": left out
	CRLURL       string // where the parent's CRL can be had; "": left out
}

// Lifetimes of CA certificates, and how far back they begin, so that clocks a
// little behind still take them.
const (
	RootLifetime         = 10 * 365 * 24 * time.Hour
	IntermediateLifetime = 5 * 365 * 24 * time.Hour
	ResponderLifetime    = 90 * 24 * time.Hour
	caBackdate           = time.Hour
)

// NewRoot makes a self-signed root of a key. It has no path length, so that
// more tiers can follow. It blocks on the key.
func NewRoot(key crypto.Signer, ca CA) (*x509.Certificate, error) {
	if len(ca.Usages) > 0 || len(ca.PermittedDNS)+len(ca.PermittedIPs) > 0 {
		// Not all relying parties look at a trust anchor's own limits.
		return nil, errors.New("limits belong into intermediates, not into a root")
	}
	t, err := ca.template(key.Public(), RootLifetime)
	if err != nil {
		return nil, err
	}
	t.IssuingCertificateURL, t.CRLDistributionPoints = nil, nil
	t.AuthorityKeyId = t.SubjectKeyId
	return signCA(t, t, key.Public(), key)
}

// NewIntermediate makes the certificate of an issuing CA, path length 0, under
// a parent. It never outlives the parent. It blocks on the parent's key.
func NewIntermediate(parent *x509.Certificate, parentKey crypto.Signer, pub crypto.PublicKey, ca CA) (*x509.Certificate, error) {
	t, err := ca.template(pub, IntermediateLifetime)
	if err != nil {
		return nil, err
	}
	t.MaxPathLenZero = true
	for _, u := range ca.Usages {
		if _, ok := extKeyUsage[u]; !ok {
			return nil, fmt.Errorf("unknown usage %q", u)
		}
		t.ExtKeyUsage = append(t.ExtKeyUsage, extKeyUsage[u])
	}
	ca.constrain(t)
	return under(parent, parentKey, pub, t)
}

// NewResponder makes the certificate of an OCSP responder to which an issuing
// CA delegates its answers (RFC 6960 section 4.2.2.2): with the one extended
// key usage, and with ocsp-nocheck, since nobody could say that it was
// withdrawn (section 4.2.2.2.1): keep its life short. Of ca, the names, Now and
// Lifetime count; 0 stands for ResponderLifetime. It blocks on the parent's key.
func NewResponder(parent *x509.Certificate, parentKey crypto.Signer, pub crypto.PublicKey, ca CA) (*x509.Certificate, error) {
	t, err := ca.template(pub, ResponderLifetime)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.KeyUsage = false, x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	t.IssuingCertificateURL, t.CRLDistributionPoints = nil, nil
	t.ExtraExtensions = []pkix.Extension{{Id: oidOCSPNoCheck, Value: asn1.NullBytes}}
	return signUnder(parent, parentKey, pub, t)
}

var oidOCSPNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}

// CrossSign makes another certificate for a root's key and name, under another
// root: who trusts only that one then verifies what the first issued (an
// alternate chain). Of ca, Now, Lifetime, IssuerURL and CRLURL count.
func CrossSign(root, by *x509.Certificate, byKey crypto.Signer, ca CA) (*x509.Certificate, error) {
	if bytes.Equal(root.RawSubject, by.RawSubject) {
		// It would look self-issued, and OpenSSL then finds no way up.
		return nil, fmt.Errorf("both roots are called %q; give the new one another name", root.Subject)
	}
	ca.CommonName = root.Subject.CommonName
	t, err := ca.template(root.PublicKey, root.NotAfter.Sub(ca.Now)+caBackdate)
	if err != nil {
		return nil, err
	}
	t.RawSubject, t.SubjectKeyId = root.RawSubject, root.SubjectKeyId
	t.MaxPathLen, t.MaxPathLenZero = root.MaxPathLen, root.MaxPathLenZero
	return under(by, byKey, root.PublicKey, t)
}

// template fills in what all CA certificates have.
func (ca CA) template(pub crypto.PublicKey, lifetime time.Duration) (*x509.Certificate, error) {
	if ca.CommonName == "" || len(ca.CommonName) > maxCommonName || len(ca.Organization) > maxCommonName {
		return nil, fmt.Errorf("a CA needs a common name, and neither it nor the organization over %d characters", maxCommonName)
	}
	if _, err := algorithmFor(pub); err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	if ca.Lifetime > 0 {
		lifetime = ca.Lifetime
	}
	from := ca.Now.UTC().Truncate(time.Second).Add(-caBackdate)
	t := &x509.Certificate{
		SerialNumber: cert.NewSerial().Big(),
		Subject:      pkix.Name{CommonName: ca.CommonName},
		NotBefore:    from,
		NotAfter:     from.Add(lifetime - time.Second).Truncate(time.Second),
		// digitalSignature is for OCSP responses (RFC 6960 section 4.2.2.2).
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          keyID(spki),
	}
	if ca.Organization != "" {
		t.Subject.Organization = []string{ca.Organization}
	}
	if ca.IssuerURL != "" {
		t.IssuingCertificateURL = []string{ca.IssuerURL}
	}
	if ca.CRLURL != "" {
		t.CRLDistributionPoints = []string{ca.CRLURL}
	}
	return t, nil
}

// constrain writes the name constraints.
func (ca CA) constrain(t *x509.Certificate) {
	t.PermittedDNSDomains = ca.PermittedDNS
	for _, p := range ca.PermittedIPs {
		p = p.Masked()
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{
			IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	switch {
	case len(ca.PermittedDNS) > 0 && len(ca.PermittedIPs) == 0:
		t.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	case len(ca.PermittedDNS) == 0 && len(ca.PermittedIPs) > 0:
		t.ExcludedDNSDomains = []string{""} // all names
	}
	t.PermittedDNSDomainsCritical = len(ca.PermittedDNS)+len(ca.PermittedIPs) > 0
}

// under signs a CA certificate with its parent's key.
func under(parent *x509.Certificate, parentKey crypto.Signer, pub crypto.PublicKey, t *x509.Certificate) (*x509.Certificate, error) {
	if parent.MaxPathLenZero {
		return nil, fmt.Errorf("CA certificate %q allows no CA below it", parent.Subject)
	}
	return signUnder(parent, parentKey, pub, t)
}

// signUnder signs a certificate, of a CA or not, with its parent's key.
func signUnder(parent *x509.Certificate, parentKey crypto.Signer, pub crypto.PublicKey, t *x509.Certificate) (*x509.Certificate, error) {
	switch {
	case !parent.IsCA || parent.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%q is not a CA certificate", parent.Subject)
	case !equalKeys(parentKey.Public(), parent.PublicKey):
		return nil, fmt.Errorf("the key is not the one in CA certificate %q", parent.Subject)
	}
	if t.NotBefore.Before(parent.NotBefore) {
		t.NotBefore = parent.NotBefore
	}
	if t.NotAfter.After(parent.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	if !t.NotBefore.Before(t.NotAfter) {
		return nil, fmt.Errorf("CA certificate %q ends on %s: too soon", parent.Subject, stamp(parent.NotAfter))
	}
	return signCA(t, parent, pub, parentKey)
}

func signCA(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign CA certificate %q: %w", t.Subject, err)
	}
	return x509.ParseCertificate(der)
}
