package issued

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// Credential is one certificate with its key, ready to be served. It never
// changes; an OCSP response makes another.
type Credential struct {
	Chains []*tls.Certificate // of one leaf and key; the first is the default
	Key    crypto.Signer

	CA       int    // number of the CA that gave it
	Account  string // whose it is there, "" for a throwaway account
	Obtained time.Time
	Place    float64 // in [0,1): this certificate's in windows and jitter

	Mourned atomic.Bool // its end was logged

	issuers [][][]byte // of each chain: who signed, as AcceptableCAs name them
	widest  int        // see Widest
}

// Add takes another chain, leaf first, of the same leaf.
func (c *Credential) Add(certs []*x509.Certificate) {
	chain := &tls.Certificate{PrivateKey: c.Key, Leaf: certs[0]}
	if len(c.Chains) > 0 {
		chain.Leaf = c.Leaf()
	}
	var issuers [][]byte
	for _, cert := range certs {
		chain.Certificate = append(chain.Certificate, cert.Raw)
		issuers = append(issuers, cert.RawIssuer)
	}
	c.Chains, c.issuers = append(c.Chains, chain), append(c.issuers, issuers)
	if widest := c.Widest().Certificate; len(chain.Certificate) > len(widest) && slices.EqualFunc(chain.Certificate[:len(widest)], widest, bytes.Equal) {
		c.widest = len(c.Chains) - 1
	}
}

// Widest returns the chain for peers who don't say whom they trust, as clients
// don't (few send the extension of RFC 8446 section 4.2.4, and crypto/tls
// doesn't tell). It is the longest that begins as the default does: while a
// root is replaced, that goes on to the old one, by the new one's cross
// certificate, and so is good for peers who know either.
func (c *Credential) Widest() *tls.Certificate { return c.Chains[c.widest] }

// Leaf is the certificate itself.
func (c *Credential) Leaf() *x509.Certificate { return c.Chains[0].Leaf }

// Accepted returns the first chain that one of the acceptable CAs signed (RFC
// 8446 section 4.2.4), the widest if the peer names none, nil if none fits.
func (c *Credential) Accepted(acceptable [][]byte) *tls.Certificate {
	if len(acceptable) == 0 {
		return c.Widest()
	}
	for i, issuers := range c.issuers {
		for _, issuer := range issuers {
			for _, ca := range acceptable {
				if bytes.Equal(issuer, ca) {
					return c.Chains[i]
				}
			}
		}
	}
	return nil
}

// Stapled returns the same with another OCSP response, nil for none.
func (c *Credential) Stapled(response []byte) *Credential {
	d := &Credential{issuers: c.issuers, Key: c.Key, widest: c.widest, CA: c.CA, Account: c.Account, Obtained: c.Obtained, Place: c.Place}
	for _, chain := range c.Chains {
		other := *chain
		other.OCSPStaple = response
		d.Chains = append(d.Chains, &other)
	}
	return d
}

// soonest bounds how soon a certificate is renewed, whatever its dates say.
const soonest = 10 * time.Second

// RenewAt is when to replace it. Jitter spreads what was started together; it
// is the certificate's own, so that asking again gives the same answer.
func (c *Credential) RenewAt(before time.Duration, window acme.Window) time.Time {
	start, end := c.Leaf().NotBefore, c.Leaf().NotAfter
	life := end.Sub(start)
	at := start.Add(life/3*2 + scale(life/10, c.Place-0.5))
	latest := end.Add(-life / 6)
	if before > 0 { // what the program asked for
		at = end.Add(-before - scale(before/20, c.Place))
		if half := start.Add(life / 2); at.Before(half) {
			at = half
		}
		latest = at
	}
	if !window.Start.IsZero() { // RFC 9773 section 4.2: a random point in it
		at = window.Start.Add(scale(window.End.Sub(window.Start), c.Place))
		if at.After(latest) {
			at = latest
		}
	}
	if first := c.Obtained.Add(soonest); at.Before(first) {
		return first
	}
	return at
}

// Late reports whether it is in the last third of the time between its planned
// renewal and its end.
func (c *Credential) Late(before time.Duration, now time.Time) bool {
	planned, end := c.RenewAt(before, acme.Window{}), c.Leaf().NotAfter
	return end.Sub(now) < end.Sub(planned)/3
}

func scale(d time.Duration, f float64) time.Duration { return time.Duration(float64(d) * f) }
