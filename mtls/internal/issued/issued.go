// Package issued checks what a CA gave against what it was asked for, before
// anybody uses it: a CA may be broken, or not the one that was meant. And it
// knows when what was given is to be replaced.
//
// It imports the standard library and package acme, and does no I/O. Sources:
// RFC 5280 (profile and path validation), RFC 8555 section 7.4.2 (what a chain
// is), RFC 9773 (when to renew).
package issued

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Skew is how far a certificate's start may lie ahead of our clock.
const Skew = 5 * time.Minute

// Wanted is what was asked for.
type Wanted struct {
	Names  []string // dns names and IP addresses
	Usages []x509.ExtKeyUsage
	Key    crypto.PublicKey
	// Roots are the pools of which one must know the chain's root.
	Roots []*x509.CertPool
	Now   time.Time
}

// Check returns the chain, leaf first, as it came, or says what is wrong with
// it. A leaf may be good for more usages than were asked for, and may carry
// URIs (SPIFFE IDs), which a CA adds by itself.
func (w Wanted) Check(chain [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("the chain is empty")
	}
	leaf := certs[0]
	if err := w.checkLeaf(leaf); err != nil {
		return nil, err
	}
	return certs, w.verify(leaf, certs[1:])
}

func (w Wanted) checkLeaf(leaf *x509.Certificate) error {
	key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !key.Equal(w.Key):
		return errors.New("the certificate is for another key than ours")
	case leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0:
		return errors.New("the certificate is a CA's, not a leaf")
	case w.Now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate ended already, at %s", leaf.NotAfter.Format(time.RFC3339))
	case leaf.NotBefore.After(w.Now.Add(Skew)):
		return fmt.Errorf("the certificate isn't valid before %s", leaf.NotBefore.Format(time.RFC3339))
	}
	for _, usage := range w.Usages {
		if !Good(leaf, usage) {
			return fmt.Errorf("the certificate is not for %v, which was asked for", usage)
		}
	}
	return sameNames(w.Names, leaf)
}

// Good reports whether a leaf may be used so (RFC 5280 section 4.2.1.12: one
// without the extension may for anything).
func Good(leaf *x509.Certificate, usage x509.ExtKeyUsage) bool {
	return len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, usage) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// sameNames holds a leaf to exactly the names that were asked for.
func sameNames(names []string, leaf *x509.Certificate) error {
	want, got := map[string]bool{}, map[string]bool{}
	for _, name := range names {
		want[canonical(name)] = true
	}
	for _, name := range leaf.DNSNames {
		got[strings.ToLower(name)] = true
	}
	for _, ip := range leaf.IPAddresses {
		got[addr(ip)] = true
	}
	for _, email := range leaf.EmailAddresses {
		got[email] = true
	}
	for name := range want {
		if !got[name] {
			return fmt.Errorf("the certificate lacks the name %s", name)
		}
	}
	for name := range got {
		if !want[name] {
			return fmt.Errorf("the certificate carries the name %q, for which nobody asked", name)
		}
	}
	return nil
}

func canonical(name string) string {
	if a, err := netip.ParseAddr(name); err == nil {
		return a.Unmap().String()
	}
	return strings.ToLower(name)
}

func addr(ip net.IP) string {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap().String()
}

func (w Wanted) verify(leaf *x509.Certificate, between []*x509.Certificate) error {
	now := w.Now
	if leaf.NotBefore.After(now) {
		now = leaf.NotBefore // within Skew
	}
	pool := x509.NewCertPool()
	for _, cert := range between {
		pool.AddCert(cert)
	}
	var first error
	for _, roots := range w.Roots {
		if roots == nil { // Verify would take the system's
			continue
		}
		var err error
		for _, usage := range w.Usages { // Verify is content with one of several
			if _, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				break
			}
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	last := leaf
	if len(between) > 0 {
		last = between[len(between)-1]
	}
	if first == nil {
		first = errors.New("there are no roots")
	}
	return fmt.Errorf("the chain up to %q, issued by %q, leads to no root that is trusted here: %w", last.Subject, last.Issuer, first)
}
