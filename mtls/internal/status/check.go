package status

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxAnswers bounds the OCSP answers kept, some 500 bytes each.
	maxAnswers = 4096
	// maxLists bounds what lists cost: 1 each, and 1 for every entriesPerCost
	// entries. So 256 parts of lists, or 8 million entries in 64 MB.
	maxLists, entriesPerCost = 256, 1 << 15
	// maxSerial bounds a serial, in octets. RFC 5280 section 4.1.2.2 has 20.
	maxSerial = 32
)

// Source is where a certificate's status is looked for; the other one is used
// where the certificate names only that.
type Source int

// The sources.
const (
	CRL Source = iota
	OCSP
)

// Policy says who is asked and what silence means.
type Policy struct {
	Prefer Source
	Staple bool          // the peer must staple an answer; nobody else is asked about its own certificate
	Hard   bool          // what nothing is known about is refused
	Wait   time.Duration // how long Hard waits for the first word, for a whole chain
}

// Config is what a Checker needs.
type Config struct {
	Policy    Policy
	Now       func() time.Time // by which answers end
	Log       *slog.Logger
	Roots     func() *x509.CertPool // for responders on https; nil: the system's
	Transport http.RoundTripper     // nil: our own
}

// Checker finds out about certificates. Its methods may be called at the same
// time.
type Checker struct {
	cfg     Config
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	reading chan struct{} // holds a place for each list being fetched
	flights sync.WaitGroup

	mu             sync.Mutex // guards what follows; nothing waits or computes at length under it
	answers, lists *cache
	flying         int // fetches under way
	closed         bool
}

// RevokedError says that a certificate was withdrawn.
type RevokedError struct {
	Cert   *x509.Certificate
	Detail string // since when, and who says so
}

func (e *RevokedError) Error() string {
	return fmt.Sprintf("certificate %q (serial %x) %s", e.Cert.Subject, e.Cert.SerialNumber, e.Detail)
}

// New returns a Checker that has asked nobody anything yet.
func New(cfg Config) *Checker {
	c := &Checker{cfg: cfg, answers: newCache(maxAnswers), lists: newCache(maxLists), reading: make(chan struct{}, maxReading)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends all fetches and waits for them. Check goes on with what is at
// hand.
func (c *Checker) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.flights.Wait()
}

// query is one certificate of a chain under examination.
type query struct {
	cert, issuer *x509.Certificate
	leaf         bool
	serial       []byte        // its magnitude
	about        key           // of OCSP answers about it
	list         key           // of its CRL
	flight       chan struct{} // what to wait for
}

// Check says whether a certificate was withdrawn, given the paths from it to
// roots that the caller has verified, leaf first and root last; one path without
// a withdrawn certificate is enough. Roots aren't asked about. A *RevokedError
// says that one was withdrawn; any other error is for want of an answer, under a
// policy that refuses then. staple is the peer's OCSP answer, nil if there is
// none.
//
// It waits for the network only under Policy.Hard, for what nothing is known
// about, and at most Policy.Wait. A certificate that nobody can be asked about
// passes if it says so itself (noRevAvail, RFC 9608) or is a CA's; a leaf that
// merely names no one is refused under Hard.
func (c *Checker) Check(paths [][]*x509.Certificate, staple []byte, now time.Time) error {
	var first error
	var deadline <-chan time.Time
	for _, path := range paths {
		err := c.check(path, staple, now, &deadline)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// check is Check for one path.
func (c *Checker) check(path []*x509.Certificate, staple []byte, now time.Time, deadline *<-chan time.Time) error {
	var open []query
	for i := range len(path) - 1 {
		if neverRevoked(path[i]) {
			continue
		}
		q, err := newQuery(path[i], path[i+1], i == 0)
		if err != nil {
			return err
		}
		settled, err := c.look(&q, staple, now)
		if err != nil {
			return err
		}
		if !settled {
			open = append(open, q)
		}
	}
	for i := range open {
		if err := c.await(&open[i], deadline); err != nil {
			return err
		}
	}
	return nil
}

func newQuery(cert, issuer *x509.Certificate, leaf bool) (q query, err error) {
	if cert.SerialNumber.BitLen() > 8*maxSerial {
		return q, fmt.Errorf("certificate %q has a serial of more than %d octets", cert.Subject, maxSerial)
	}
	var room [maxSerial]byte
	q = query{cert: cert, issuer: issuer, leaf: leaf}
	q.serial = bytes.TrimLeft(cert.SerialNumber.FillBytes(room[:]), "\x00")
	// An entry is one issuer's, by name and key: what another CA of that name
	// says is kept apart, and so is what its URL brings.
	h := sha256.New()
	h.Write(issuer.RawSubject)
	h.Write(issuer.RawSubjectPublicKeyInfo)
	var by key
	h.Sum(by[:0])
	q.about = sha256.Sum256(append(append(by[:], 0), q.serial...))
	h.Reset()
	h.Write(by[:])
	h.Write([]byte{1, boolByte(cert.IsCA)})
	for _, u := range cert.CRLDistributionPoints {
		h.Write([]byte(u))
		h.Write([]byte{0})
	}
	h.Sum(q.list[:0])
	return q, nil
}

var errNoStaple = errors.New("came without an OCSP answer stapled to it")

// look decides about one certificate by what is at hand, and has more fetched
// where that is due. It reports whether the matter is settled; if not, q.flight
// is to be waited for.
func (c *Checker) look(q *query, staple []byte, now time.Time) (settled bool, err error) {
	stapled := errNoStaple
	if q.leaf && len(staple) > 0 {
		stapled = c.heed(q, staple, now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Whatever says "revoked" is believed, whoever is to be asked.
	for _, e := range []*entry{c.answers.peek(q.about), c.lists.peek(q.list)} {
		if s, detail, ok := e.status(q.serial, now); ok && s == Revoked {
			return false, &RevokedError{q.cert, detail}
		}
	}
	switch {
	case stapled == nil:
		return true, nil
	case q.leaf && c.cfg.Policy.Staple:
		return false, fmt.Errorf("certificate %q %w", q.cert.Subject, stapled)
	}
	e := c.entryOf(q)
	switch {
	case e != nil:
		return c.consult(e, q, now)
	case q.leaf && c.cfg.Policy.Hard:
		return false, fmt.Errorf("certificate %q names neither a CRL nor an OCSP responder, nor says noRevAvail", q.cert.Subject)
	}
	return true, nil
}

// heed verifies what the peer has stapled, and keeps it if it is news. nil: the
// certificate was good.
func (c *Checker) heed(q *query, staple []byte, now time.Time) error {
	sum := sha256.Sum256(staple)
	c.mu.Lock()
	e := c.answers.peek(q.about)
	s, _, ok := e.status(q.serial, now)
	if known, is := e.finding().(*answer); ok && is && known.sum == sum && s == Good {
		c.mu.Unlock()
		return nil // verified before
	}
	c.mu.Unlock()
	a, err := verifyOCSP(staple, q.cert, q.issuer, now)
	if err != nil {
		return fmt.Errorf("came with a staple that doesn't count: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e = c.answers.get(q.about)
	if e.found == nil || a.follows(e.found) == nil {
		c.keep(e, a, now)
	}
	if a.status != Good {
		return errors.New("came with a staple that doesn't call it good")
	}
	return nil
}

// entryOf returns the entry of the source to be asked about q, nil if the
// certificate names none.
func (c *Checker) entryOf(q *query) *entry {
	list, ocsp := slices.IndexFunc(q.cert.CRLDistributionPoints, isHTTP), slices.IndexFunc(q.cert.OCSPServer, isHTTP)
	if ocsp >= 0 && (c.cfg.Policy.Prefer == OCSP || list < 0) {
		e := c.answers.get(q.about)
		e.source, e.url = OCSP, q.cert.OCSPServer[ocsp]
		return e
	}
	if list < 0 {
		return nil
	}
	e := c.lists.get(q.list)
	e.source, e.url = CRL, q.cert.CRLDistributionPoints[list]
	return e
}

// consult decides by one entry.
func (c *Checker) consult(e *entry, q *query, now time.Time) (settled bool, err error) {
	s, _, ok := e.status(q.serial, now)
	if (!ok || !now.Before(e.refreshAt)) && !now.Before(e.retryAt) {
		c.launch(e, q)
	}
	switch {
	case ok && s == Good, !c.cfg.Policy.Hard:
		return true, nil
	case e.flight == nil || ok: // refused as long as the responder doesn't know it
		return false, e.silence(q.cert)
	}
	q.flight = e.flight
	return false, nil
}

// await waits for the first word about a certificate. All waiting of one Check
// has the same deadline, which begins with the first.
func (c *Checker) await(q *query, deadline *<-chan time.Time) error {
	if *deadline == nil {
		*deadline = time.After(c.cfg.Policy.Wait)
	}
	select {
	case <-q.flight:
	case <-*deadline: // which fires once
		over := make(chan time.Time)
		close(over)
		*deadline = over
	case <-c.ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entryOf(q)
	s, detail, ok := e.status(q.serial, c.cfg.Now())
	switch {
	case ok && s == Good:
		return nil
	case ok && s == Revoked:
		return &RevokedError{q.cert, detail}
	}
	return e.silence(q.cert)
}

// silence is the error for want of a good word.
func (e *entry) silence(cert *x509.Certificate) error {
	if e.err != nil {
		return fmt.Errorf("whether certificate %q was revoked can't be found out: %w", cert.Subject, e.err)
	}
	if e.found != nil && e.source == OCSP {
		return fmt.Errorf("the OCSP responder %s doesn't know certificate %q", e.url, cert.Subject)
	}
	return fmt.Errorf("whether certificate %q was revoked isn't known yet; %s has not answered", cert.Subject, e.url)
}

// neverRevoked reports whether a certificate says noRevAvail, and so can't be
// asked about (RFC 9608 section 2). One that names somebody to ask all the same
// contradicts itself, and is asked about.
func neverRevoked(c *x509.Certificate) bool {
	if len(c.CRLDistributionPoints) > 0 || len(c.OCSPServer) > 0 {
		return false
	}
	for i := range c.Extensions {
		if id := c.Extensions[i].Id; len(id) == 4 && id[0] == 2 && id[1] == 5 && id[2] == 29 && id[3] == 56 {
			return true
		}
	}
	return false
}

func isHTTP(u string) bool {
	return strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://")
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
