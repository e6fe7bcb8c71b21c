package issuer

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer"
)

// Authority is one signing key with its CA certificate.
type Authority struct {
	// Queue is the key's, where this process holds it; Remote stands for one
	// that another replica holds. With neither the authority is retired: it
	// signs no more, but certificates that it issued still find their chain.
	Queue  *signer.Queue
	Remote *signer.Remote
	// Chains each lead from the issuing certificate, which comes first, to a
	// self-signed root, which comes last. The first chain is the default,
	// the others are alternates (RFC 8555 section 7.4.2): other certificates
	// for the same key and subject, or other ways up, as after the
	// cross-signing of a new root.
	Chains [][]*x509.Certificate
	// IssuerURL is where the issuing certificate can be had (the AIA's
	// caIssuers, RFC 5280 section 4.2.2.1); "" leaves it out.
	IssuerURL string
	// OCSPURL is where the OCSP responder is (the AIA's ocsp); "": there is
	// none.
	OCSPURL string
	// CRLURL says where the CRL that speaks for a certificate can be had, and
	// its shard, 0 being the full list. Both are part of the certificate's
	// record, so that they never change for it. nil: no CRL.
	CRLURL func(cert.Serial) (url string, shard int)
}

// Config says what a local issuer is made of.
type Config struct {
	Name        string // in the configuration; for messages
	Authorities []Authority
	Blocklist   *Blocklist   // nil: none
	Log         *slog.Logger // nil: discard
}

// Local is an issuer whose keys are ours. It is safe for concurrent use and
// doesn't change; it holds nothing that needs closing.
type Local struct {
	name    string
	blocked *Blocklist
	active  []*authority // places as in pool
	byKeyID map[string]*authority
	pool    *signer.Pool
}

// place is where a key signs.
type place struct {
	keyID string           // in records
	queue *signer.Queue    // nil: remote or retired
	key   signer.Candidate // queue or the remote; nil: retired
}

func newPlace(keyID string, queue *signer.Queue, remote *signer.Remote) place {
	switch {
	case queue != nil:
		return place{keyID, queue, queue}
	case remote != nil:
		return place{keyID, nil, remote}
	}
	return place{keyID: keyID}
}

// authority is an Authority that was found to be in order.
type authority struct {
	place
	cert      *x509.Certificate
	algorithm algorithm
	chains    [][]*x509.Certificate
	issuerURL string
	ocspURL   string
	crlURL    func(cert.Serial) (string, int)
	usages    []cert.Usage // that the whole default chain lets it certify
	// A certificate it issues lies within these: nobody up its default chain
	// ends sooner or begins later.
	notBefore, notAfter time.Time
}

// New checks all that could make issued certificates worthless: each key fits
// its CA certificate, every certificate of a chain is a CA's, in its dates,
// signed by the next, within path lengths, up to a self-signed root, and an
// alternate chain is for the same key and subject. Alternates that have
// expired are left out with a warning, so that a server still starts the day
// after. The error names every fault.
func New(c Config, now time.Time) (*Local, error) {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Local{name: c.Name, blocked: c.Blocklist, byKeyID: map[string]*authority{}}
	var faults []error
	var keys []signer.Candidate
	for i, in := range c.Authorities {
		a, err := newAuthority(in, now, log)
		if err != nil {
			faults = append(faults, fmt.Errorf("issuer %s, signer %d: %w", c.Name, i+1, err))
			continue
		}
		if l.byKeyID[a.keyID] != nil {
			faults = append(faults, fmt.Errorf("issuer %s, signer %d: the same key as another signer's; list it once", c.Name, i+1))
			continue
		}
		l.byKeyID[a.keyID] = a
		if a.key != nil {
			l.active = append(l.active, a)
			keys = append(keys, a.key)
		}
	}
	if len(c.Authorities) == 0 {
		faults = append(faults, fmt.Errorf("issuer %s has no signer", c.Name))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	l.pool = signer.NewPool(keys...)
	return l, nil
}

func newAuthority(in Authority, now time.Time, log *slog.Logger) (*authority, error) {
	if len(in.Chains) == 0 || len(in.Chains[0]) == 0 {
		return nil, errors.New("no CA certificate")
	}
	ca := in.Chains[0][0]
	a := &authority{
		place: newPlace(hex.EncodeToString(ca.SubjectKeyId), in.Queue, in.Remote),
		cert:  ca, issuerURL: in.IssuerURL, ocspURL: in.OCSPURL, crlURL: in.CRLURL,
	}
	if len(ca.SubjectKeyId) == 0 {
		return nil, fmt.Errorf("CA certificate %q has no subject key identifier", ca.Subject)
	}
	if in.Queue != nil && !equalKeys(in.Queue.Public(), ca.PublicKey) {
		return nil, fmt.Errorf("the key is not the one in CA certificate %q", ca.Subject)
	}
	var err error
	if a.algorithm, err = algorithmFor(ca.PublicKey); err != nil {
		return nil, fmt.Errorf("CA certificate %q: %w", ca.Subject, err)
	}
	for i, chain := range in.Chains {
		err := checkChain(chain, now, a.key == nil)
		switch {
		case err == nil && !sameCA(chain[0], ca):
			err = fmt.Errorf("alternate chain %d begins with %q, which is not another certificate for the key and subject of %q", i, chain[0].Subject, ca.Subject)
		case errors.Is(err, errExpired) && i > 0:
			log.Warn("alternate chain left out", "issuer", ca.Subject.String(), "chain", i, "reason", err.Error())
			continue
		}
		if err != nil {
			return nil, err
		}
		a.chains = append(a.chains, chain)
	}
	a.limits()
	return a, nil
}

// sameCA reports whether two certificates are for one CA: what the one issued,
// the other verifies.
func sameCA(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.SubjectKeyId, b.SubjectKeyId) &&
		bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

var errExpired = errors.New("not valid now")

// checkChain checks a chain as RFC 5280 section 6 would, but for names. A
// retired authority's chain may have expired.
func checkChain(chain []*x509.Certificate, now time.Time, retired bool) error {
	for i, c := range chain {
		switch {
		case !c.BasicConstraintsValid || !c.IsCA:
			return fmt.Errorf("certificate %q is not a CA's: basicConstraints lacks CA:TRUE", c.Subject)
		case c.KeyUsage&x509.KeyUsageCertSign == 0:
			return fmt.Errorf("CA certificate %q lacks the key usage keyCertSign", c.Subject)
		case len(c.UnhandledCriticalExtensions) > 0:
			return fmt.Errorf("CA certificate %q has a critical extension unknown here: %v", c.Subject, c.UnhandledCriticalExtensions)
		case (c.MaxPathLen > 0 || c.MaxPathLenZero) && c.MaxPathLen < i:
			return fmt.Errorf("CA certificate %q allows %d CAs below it, and the chain has %d", c.Subject, c.MaxPathLen, i)
		case !retired && (now.Before(c.NotBefore) || now.After(c.NotAfter)):
			return fmt.Errorf("CA certificate %q is valid from %s to %s: %w", c.Subject, stamp(c.NotBefore), stamp(c.NotAfter), errExpired)
		}
		parent := c // the last signs itself
		if i+1 < len(chain) {
			parent = chain[i+1]
		}
		if !bytes.Equal(c.RawIssuer, parent.RawSubject) {
			return fmt.Errorf("CA certificate %q was issued by %q, but %q comes next in the chain; chains end with a self-signed root", c.Subject, c.Issuer, parent.Subject)
		}
		if len(c.AuthorityKeyId) > 0 && len(parent.SubjectKeyId) > 0 && !bytes.Equal(c.AuthorityKeyId, parent.SubjectKeyId) {
			return fmt.Errorf("CA certificate %q has another authority key identifier than %q's subject key identifier", c.Subject, parent.Subject)
		}
		if err := c.CheckSignatureFrom(parent); err != nil {
			return fmt.Errorf("CA certificate %q is not signed by %q: %w", c.Subject, parent.Subject, err)
		}
	}
	return nil
}

// limits works out what the default chain allows.
func (a *authority) limits() {
	a.usages = []cert.Usage{cert.Server, cert.Client}
	for i, c := range a.chains[0] {
		if i == 0 || c.NotBefore.After(a.notBefore) {
			a.notBefore = c.NotBefore.UTC()
		}
		if i == 0 || c.NotAfter.Before(a.notAfter) {
			a.notAfter = c.NotAfter.UTC()
		}
		// Relying parties take a CA's extended key usage as a limit on all
		// below it; none, or any, is no limit.
		if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			continue
		}
		a.usages = slices.DeleteFunc(a.usages, func(u cert.Usage) bool { return !slices.Contains(c.ExtKeyUsage, extKeyUsage[u]) })
	}
}

var extKeyUsage = map[cert.Usage]x509.ExtKeyUsage{cert.Server: x509.ExtKeyUsageServerAuth, cert.Client: x509.ExtKeyUsageClientAuth}

// Supports checks at start that the issuer can issue what a profile says. The
// error tells an operator what to change.
func (l *Local) Supports(p cert.Profile) error {
	if len(l.active) == 0 {
		return fmt.Errorf("profile %s: every signer of issuer %s is retired", p.Name, l.name)
	}
	for _, a := range l.active {
		if err := a.supports(p); err != nil {
			return fmt.Errorf("profile %s, issuer %s: %w", p.Name, l.name, err)
		}
	}
	return nil
}

func (a *authority) supports(p cert.Profile) error {
	switch {
	case len(p.Usages) == 0:
		return errors.New("no usages; want server, client or both")
	case p.Lifetime <= 0 || p.Lifetime > p.MaxLifetime:
		return fmt.Errorf("a lifetime of %v, with at most %v", p.Lifetime, p.MaxLifetime)
	case p.Backdate < 0 || p.Backdate >= p.Lifetime:
		return fmt.Errorf("backdate %v doesn't fit into a lifetime of %v", p.Backdate, p.Lifetime)
	case len(p.KeyTypes) == 0:
		return errors.New("no key types")
	case p.Revocation != cert.RevocationNone && !p.Revocation.CRL() && !p.Revocation.OCSP():
		return fmt.Errorf("unknown revocation %q", p.Revocation)
	case p.Revocation.CRL() && a.crlURL == nil:
		return errors.New("revocation by CRL, but the issuer has no CRL URL")
	case p.Revocation.OCSP() && a.ocspURL == "":
		return errors.New("revocation by OCSP, but the issuer has no OCSP URL")
	}
	for i, u := range p.Usages {
		if !slices.Contains(a.usages, u) || slices.Contains(p.Usages[:i], u) {
			return fmt.Errorf("usage %q: CA certificate %q may issue for %v, each once", u, a.cert.Subject, a.usages)
		}
	}
	if !mldsaBuilt {
		for _, t := range p.KeyTypes {
			if t == cert.MLDSA44 || t == cert.MLDSA65 || t == cert.MLDSA87 {
				return fmt.Errorf("key type %s needs a server built with Go 1.27 or later", t)
			}
		}
	}
	return nil
}

// ErrUnknownKeyID is Chain's answer to a key that isn't the issuer's (any more).
var ErrUnknownKeyID = errors.New("no CA certificate with this key identifier")

// Chain returns the CA certificates that follow a leaf issued under a key (hex
// of its identifier), in DER: the issuing one first, the root left out (RFC
// 8555 section 7.4.2 and what clients expect). Alternate 0 is the default
// chain; count says how many there are. The slices are shared: don't write.
func (l *Local) Chain(keyID string, alternate int) (chain [][]byte, count int, err error) {
	a := l.byKeyID[keyID]
	if a == nil {
		return nil, 0, fmt.Errorf("%w: %s", ErrUnknownKeyID, keyID)
	}
	if alternate < 0 || alternate >= len(a.chains) {
		return nil, len(a.chains), fmt.Errorf("no chain %d: there are %d", alternate, len(a.chains))
	}
	whole := a.chains[alternate]
	for _, c := range whole[:len(whole)-1] {
		chain = append(chain, c.Raw)
	}
	return chain, len(a.chains), nil
}

// Wait estimates how long a certificate would take that is asked for now, by
// the key that is free soonest; see signer.Queue.Wait.
func (l *Local) Wait(r signer.Request) time.Duration { return l.pool.Wait(r) }

// WaitAt is Wait at one key (hex of its ID), 0 for one that doesn't sign.
func (l *Local) WaitAt(keyID string, r signer.Request) time.Duration {
	if a := l.byKeyID[keyID]; a != nil && a.key != nil {
		return a.key.Wait(r)
	}
	return 0
}

// Rate is how many certificates a second its keys make at most, as measured.
func (l *Local) Rate() float64 { return l.pool.Rate() }
