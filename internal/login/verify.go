package login

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// skew is how far this machine's clock may be behind the CA's.
const skew = 5 * time.Minute

// sshType is the content type of SSH certificates (DESIGN section 6).
const sshType = "application/vnd.chancery.ssh-certificate"

// verifyTLS checks that a chain is what was ordered: for the key, for the names
// and no others, for the time, and from the CA.
func (a *attempt) verifyTLS(c acme.Chain, public crypto.PublicKey) (issued, error) {
	if len(c.DER) == 0 {
		return issued{}, fmt.Errorf("it is %.80q, not a certificate", c.ContentType)
	}
	var chain []*x509.Certificate
	for _, der := range c.DER {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return issued{}, err
		}
		chain = append(chain, parsed)
	}
	leaf := chain[0]
	var names []string
	for _, id := range a.want.ids {
		names = append(names, id.Value)
	}
	if key, ok := public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(leaf.PublicKey) {
		return issued{}, errors.New("the certificate is for another key")
	}
	if !sameNames(names, leaf.DNSNames) || len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.URIs) > 0 || leaf.IsCA {
		return issued{}, fmt.Errorf("the certificate is for other names: %.200q", leaf.DNSNames)
	}
	if err := a.dates(leaf.NotBefore, leaf.NotAfter); err != nil {
		return issued{}, err
	}
	if err := a.ca.signed(chain); err != nil {
		return issued{}, err
	}
	return issued{
		chain: c.DER, serial: string(cert.SerialOf(leaf.SerialNumber)),
		notBefore: leaf.NotBefore, notAfter: leaf.NotAfter,
	}, nil
}

// signed checks a chain up to the CA's roots. Where the settings name none, the
// system's are for the CA's web server, not for what it issues: then only that
// each certificate is signed by the next.
func (a *authority) signed(chain []*x509.Certificate) error {
	if a.roots == nil {
		for i, c := range chain[1:] {
			if err := chain[i].CheckSignatureFrom(c); err != nil {
				return err
			}
		}
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	now := time.Now()
	if now.Before(chain[0].NotBefore) { // by no more than skew
		now = chain[0].NotBefore
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// dates checks that it is good now, and for no longer than was asked.
func (a *attempt) dates(from, to time.Time) error {
	now := time.Now()
	switch {
	case from.After(now.Add(skew)):
		return fmt.Errorf("it begins only at %s: is this machine's clock right?", clock(from))
	case !to.After(now):
		return fmt.Errorf("it ended at %s: is this machine's clock right?", clock(to))
	case a.want.asked && to.After(now.Add(a.want.life+skew)):
		return fmt.Errorf("it ends at %s, later than was asked for", clock(to))
	}
	return nil
}

// verifySSH checks that a certificate is for the key and the person, for the
// time, and from one of the keys that the directory named.
func (a *attempt) verifySSH(c acme.Chain, public crypto.PublicKey) (issued, error) {
	if c.ContentType != sshType {
		return issued{}, fmt.Errorf("it is %.80q, not an SSH certificate", c.ContentType)
	}
	parsed, _, options, rest, err := ssh.ParseAuthorizedKey(c.PEM)
	if err != nil || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return issued{}, errors.New("it isn't one line with an SSH certificate")
	}
	got, ok := parsed.(*ssh.Certificate)
	if !ok || got.CertType != ssh.UserCert {
		return issued{}, errors.New("it isn't an SSH user certificate")
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return issued{}, err
	}
	if !bytes.Equal(got.Key.Marshal(), key.Marshal()) {
		return issued{}, errors.New("the certificate is for another key")
	}
	if !slices.ContainsFunc(a.ca.users, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), got.SignatureKey.Marshal()) }) {
		return issued{}, errors.New("the certificate is signed by a key that the CA's directory doesn't name")
	}
	person, _, err := sshca.ParseKeyID(got.KeyId)
	if err != nil || person != a.want.ids[0].Value {
		return issued{}, fmt.Errorf("the certificate is for another person: %.200q", got.KeyId)
	}
	if err := checkSSH(got); err != nil {
		return issued{}, err
	}
	from, to := sshTime(got.ValidAfter), sshTime(got.ValidBefore)
	wire := got.Marshal()
	line, err := sshca.CertificateLine(wire)
	if err != nil {
		return issued{}, err
	}
	return issued{wire: wire, line: line, serial: fmt.Sprintf("%016x", got.Serial), notBefore: from, notAfter: to}, a.dates(from, to)
}

// checkSSH verifies the signature, and that somebody is named: a certificate
// without principals is good for everybody (PROTOCOL.certkeys).
func checkSSH(c *ssh.Certificate) error {
	if len(c.ValidPrincipals) == 0 || slices.ContainsFunc(c.ValidPrincipals, func(p string) bool { return p == "" || strings.ContainsAny(p, "*?") }) {
		return errors.New("the certificate names no principals, or wildcards")
	}
	// Whether it is good now is looked at apart, with patience for clocks.
	checker := ssh.CertChecker{Clock: func() time.Time { return sshTime(c.ValidAfter) }}
	for option := range c.CriticalOptions {
		checker.SupportedCriticalOptions = append(checker.SupportedCriticalOptions, option)
	}
	return checker.CheckCert(c.ValidPrincipals[0], c)
}

// sshTime reads a certificate's time; "forever" is the last that Go's can do.
func sshTime(t uint64) time.Time { return time.Unix(int64(min(t, 1<<40)), 0) }

// sameNames compares lists as sets.
func sameNames(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Clone(b)
	for i := range b {
		b[i] = strings.ToLower(b[i])
	}
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// clock is a time as people at this machine say it.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
