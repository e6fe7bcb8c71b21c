package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/status"
)

const (
	// maxChain bounds the certificates a peer may show, maxChainBytes their
	// size. Real chains have two to four of 1 KiB each; post-quantum ones are
	// ten times as large.
	maxChain, maxChainBytes = 8, 128 << 10
	// maxSeen bounds the chains remembered of servers, and of clients: 100
	// bytes each, and their certificates where revocation is looked at.
	maxSeen = 512
	// maxText bounds an error's text: a peer's certificate may be full of names.
	maxText = 1 << 10
	// maxPaths bounds the ways to roots that are remembered of one chain, and
	// tried when one of them is revoked; cross-signed roots make more than one.
	maxPaths = 4
)

// A Refusal is a short, stable word for why a peer isn't believed; for metrics.
type Refusal string

// The refusals.
const (
	RefusedNoCertificate Refusal = "no_certificate"
	RefusedUnknownCA     Refusal = "unknown_ca"
	RefusedExpired       Refusal = "expired"
	RefusedNotYetValid   Refusal = "not_yet_valid"
	RefusedName          Refusal = "wrong_name"
	RefusedUsage         Refusal = "wrong_usage"
	RefusedCAAsLeaf      Refusal = "ca_as_leaf"
	RefusedRevoked       Refusal = "revoked"
	RefusedNoAnswer      Refusal = "no_revocation_answer" // a hard policy found out nothing
	RefusedInvalid       Refusal = "invalid"              // anything else; the text says what
)

// PeerError says why a peer's certificate isn't believed. It is for the log;
// the peer isn't told.
type PeerError struct {
	Reason Refusal
	Peer   string // the first name in its certificate, "" if there is none
	Text   string
	Err    error // of crypto/x509 or the look at revocation, nil if none
}

// Error returns all that an operator needs to act on.
func (e *PeerError) Error() string { return "mtls: " + e.Text }

// Unwrap returns Err.
func (e *PeerError) Unwrap() error { return e.Err }

// chains are the chains that one list's roots were found to certify.
type chains struct {
	mu         sync.RWMutex
	generation uint64                // of the roots
	seen       map[chainKey]verified // at most maxSeen
}

// chainKey is the SHA-256 of the SHA-256s of a chain's certificates, in order.
// Verification depends on nothing else but the usage (each has its own
// memory), the roots (the generation) and the time (see verified).
type chainKey [sha256.Size]byte

// verified is a chain that was. It holds while now lies between the times.
type verified struct {
	notBefore, notAfter time.Time
	paths               [][]*x509.Certificate // leaf to root; nil where nobody looks at revocation
}

// verify checks a peer's chain, leaf first, against today's roots: RFC 5280
// section 6, done by crypto/x509; the leaf is no CA certificate and names the
// usage itself (RFC 5280 section 4.2.1.12 lets us demand it); a server's has
// the name, a dns name or an IP address, among its subject alternative names
// (RFC 9525). Last comes revocation. peer is UsageServer or UsageClient: what
// the peer is. name is "" for clients; for a server anyName leaves the name to
// the caller. staple is the peer's OCSP answer. The error is a *PeerError. Only
// a hard revocation policy may wait for the network, see [Revocation].
func (t *Trust) verify(peer Usage, chain []*x509.Certificate, name string, staple []byte, now time.Time) error {
	if err := checkBounds(peer, chain); err != nil {
		return err
	}
	v, err := t.verifyPaths(peer, chain, now)
	if err != nil {
		return err
	}
	if peer == UsageServer && name != anyName {
		if err := checkName(chain[0], name); err != nil {
			return err
		}
	}
	if v.paths == nil {
		return nil
	}
	err = t.status.Check(v.paths, staple, now)
	if err == nil {
		return nil
	}
	reason := RefusedNoAnswer
	if _, ok := errors.AsType[*status.RevokedError](err); ok {
		reason = RefusedRevoked
	}
	return refusePeer(peer, chain[0], reason, err, "isn't accepted: %v", err)
}

// checkBounds refuses what isn't worth a signature check.
func checkBounds(peer Usage, chain []*x509.Certificate) error {
	size := 0
	for _, c := range chain {
		size += len(c.Raw)
	}
	switch {
	case peer != UsageServer && peer != UsageClient:
		return &PeerError{Reason: RefusedInvalid, Text: "verify: a peer is a server or a client"}
	case len(chain) == 0:
		return &PeerError{Reason: RefusedNoCertificate, Text: fmt.Sprintf("the %s showed no certificate", peerWord(peer))}
	case len(chain) > maxChain || size > maxChainBytes:
		return refusePeer(peer, chain[0], RefusedInvalid, nil, "comes in a chain of %d certificates with %d bytes; at most %d with %d are looked at",
			len(chain), size, maxChain, maxChainBytes)
	}
	return nil
}

// verifyPaths finds the paths from the leaf to today's roots, or remembers them.
func (t *Trust) verifyPaths(peer Usage, chain []*x509.Certificate, now time.Time) (v verified, err error) {
	list := listOf(peer)
	today, memory := t.roots.Today(list), &t.checked[list]
	k := keyOf(chain)
	if v, ok := memory.recall(today.Generation, k, now); ok {
		return v, nil
	}
	leaf := chain[0]
	if leaf.IsCA {
		return v, refusePeer(peer, leaf, RefusedCAAsLeaf, nil, "is a CA certificate, which may not speak for itself")
	}
	usage := x509.ExtKeyUsageServerAuth
	if peer == UsageClient {
		usage = x509.ExtKeyUsageClientAuth
	}
	opts := x509.VerifyOptions{Roots: today.Pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	if len(chain) > 1 {
		opts.Intermediates = x509.NewCertPool()
		for _, c := range chain[1:] {
			opts.Intermediates.AddCert(c)
		}
	}
	paths, err := leaf.Verify(opts)
	switch {
	case err != nil:
		return v, explainPeer(peer, leaf, err, now)
	case !slices.Contains(leaf.ExtKeyUsage, usage):
		return v, refusePeer(peer, leaf, RefusedUsage, nil, "doesn't name the extended key usage of a %s", peerWord(peer))
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0: // RFC 8446 section 4.4.2.2
		return v, refusePeer(peer, leaf, RefusedUsage, nil, "may not sign handshakes (its key usage lacks digital signature)")
	}
	v = newVerified(paths, t.revocable)
	memory.remember(today.Generation, k, v)
	return v, nil
}

// newVerified takes what must be kept of verified paths. It ends with the first
// of their certificates.
func newVerified(paths [][]*x509.Certificate, keep bool) verified {
	if !keep {
		paths = paths[:1]
	}
	paths = paths[:min(len(paths), maxPaths)]
	v := verified{notBefore: paths[0][0].NotBefore, notAfter: paths[0][0].NotAfter}
	for _, path := range paths {
		for _, c := range path[1:] {
			if c.NotBefore.After(v.notBefore) {
				v.notBefore = c.NotBefore
			}
			if c.NotAfter.Before(v.notAfter) {
				v.notAfter = c.NotAfter
			}
		}
	}
	if keep {
		v.paths = paths
	}
	return v
}

// recall returns what is remembered of a chain, if that still holds.
func (c *chains) recall(generation uint64, k chainKey, now time.Time) (verified, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.seen[k]
	return v, ok && c.generation == generation && !now.Before(v.notBefore) && !now.After(v.notAfter)
}

// remember keeps a chain. It makes room by forgetting any other: who brings
// many chains makes us verify more, as without a memory, and nothing else.
func (c *chains) remember(generation uint64, k chainKey, v verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.seen == nil || generation > c.generation: // other roots: nothing holds any more
		c.generation, c.seen = generation, make(map[chainKey]verified)
	case generation < c.generation:
		return
	}
	for old := range c.seen {
		if len(c.seen) < maxSeen {
			break
		}
		delete(c.seen, old)
	}
	c.seen[k] = v
}

func keyOf(chain []*x509.Certificate) chainKey {
	var sums [maxChain * sha256.Size]byte
	for i, c := range chain {
		sum := sha256.Sum256(c.Raw)
		copy(sums[i*sha256.Size:], sum[:])
	}
	return sha256.Sum256(sums[:len(chain)*sha256.Size])
}

// checkName holds a server's certificate against the name that was asked for.
func checkName(leaf *x509.Certificate, name string) error {
	if ip, zone, ok := strings.Cut(name, "%"); ok && zone != "" { // a certificate has no zones
		if _, err := netip.ParseAddr(ip); err == nil {
			name = ip
		}
	}
	if name == "" {
		return refusePeer(UsageServer, leaf, RefusedName, nil, "can't be held against an empty name; set the tls.Config's ServerName")
	}
	err := leaf.VerifyHostname(name)
	if err == nil {
		return nil
	}
	has := namesOf(leaf)
	if len(has) == 0 {
		return refusePeer(UsageServer, leaf, RefusedName, err, "isn't for %q: it has no subject alternative names, and its subject %q doesn't count (RFC 9525)", name, leaf.Subject)
	}
	return refusePeer(UsageServer, leaf, RefusedName, err, "isn't for %q but for %q", name, has[:min(len(has), 10)])
}

// explainPeer says in an operator's words what crypto/x509 found.
func explainPeer(peer Usage, leaf *x509.Certificate, err error, now time.Time) error {
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		c := unknown.Cert
		if c == nil || c.Equal(leaf) && leaf.Subject.String() == leaf.Issuer.String() {
			return refusePeer(peer, leaf, RefusedUnknownCA, err, "is its own issuer's, which isn't trusted for %ss", peerWord(peer))
		}
		return refusePeer(peer, leaf, RefusedUnknownCA, err, "is of a CA that isn't trusted for %ss: %q (%v)", peerWord(peer), c.Issuer, err)
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok {
		return refusePeer(peer, leaf, RefusedInvalid, err, "isn't valid: %v", err)
	}
	whose := ""
	if c := invalid.Cert; c != nil && !c.Equal(leaf) {
		whose = fmt.Sprintf("is of CA %q, whose certificate ", c.Subject)
	}
	switch {
	case invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return refusePeer(peer, leaf, RefusedNotYetValid, err, "%sisn't valid before %s; it is %s here", whose, timestamp(invalid.Cert.NotBefore), timestamp(now))
	case invalid.Reason == x509.Expired:
		return refusePeer(peer, leaf, RefusedExpired, err, "%sexpired at %s", whose, timestamp(invalid.Cert.NotAfter))
	case invalid.Reason == x509.IncompatibleUsage:
		return refusePeer(peer, leaf, RefusedUsage, err, "isn't for a %s: it, or a CA above it, has other extended key usages", peerWord(peer))
	}
	return refusePeer(peer, leaf, RefusedInvalid, err, "isn't valid: %v", err)
}

// refusePeer makes the error about a peer's certificate.
func refusePeer(peer Usage, leaf *x509.Certificate, reason Refusal, err error, format string, args ...any) error {
	e := &PeerError{Reason: reason, Err: err}
	who := leaf.Subject.String()
	if names := namesOf(leaf); len(names) > 0 {
		e.Peer = names[0][:min(len(names[0]), maxText)]
		who = e.Peer
	}
	text := fmt.Sprintf("the %s's certificate (%.253q, serial %x) ", peerWord(peer), who, leaf.SerialNumber) + fmt.Sprintf(format, args...)
	e.Text = strings.ToValidUTF8(text[:min(len(text), maxText)], "")
	return e
}

// namesOf lists the subject alternative names of a certificate.
func namesOf(c *x509.Certificate) (names []string) {
	names = append(names, c.DNSNames...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func peerWord(peer Usage) string {
	if peer == UsageClient {
		return "client"
	}
	return "server"
}
