package publish

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// DefaultValidity is how long a CRL is good for: a key may be away for most of
// a day before anyone is refused.
const DefaultValidity = 24 * time.Hour

const (
	// pollInterval is how often each list's revision is read: a revocation
	// is public within about two seconds on every replica.
	pollInterval = 2 * time.Second
	// A list that takes long to make is made less often, so that a storm of
	// revocations costs at most one part in restFactor, and waits at most
	// maxRest.
	restFactor = 20
	maxRest    = time.Minute
	// maxRetry bounds the doubling pause after failures.
	maxRetry = time.Minute
	// makeTimeout bounds the making of one list: reading a million entries
	// takes seconds, and CRLs' share of a card that makes two signatures a
	// second lets one through every fifty.
	makeTimeout = 5 * time.Minute
	// backdate is for relying parties whose clocks are late: to them a new
	// list would not be valid yet, and they would refuse everyone.
	backdate = time.Minute
)

// Issuer is one issuing certificate and how to sign with its key.
type Issuer struct {
	Certificate *x509.Certificate
	// Sign has the arguments of crypto.Signer and may wait in the key's queue
	// until ctx ends. nil: no CRL is made here, only the certificate served.
	Sign func(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

// Options is what a Publisher needs. Its functions may be called for several
// issuers at once and stop when their context ends. Revision, Entries and
// NextNumber are required if any issuer signs.
type Options struct {
	Issuers []Issuer
	// Revision returns a number that is another one after each revocation of
	// the issuer's certificates, as soon as that can be read. It is read
	// every two seconds and must be cheap.
	Revision func(ctx context.Context, issuerKeyID string) (int64, error)
	// Entries is store.RevokedCertificates: all withdrawn certificates that
	// end later than after, in the order of their serials' text.
	Entries func(ctx context.Context, issuerKeyID string, after time.Time, yield func(serial cert.Serial, at time.Time, reason cert.Reason, notAfter time.Time) error) error
	// NextNumber is ca.NextCRLNumber.
	NextNumber func(ctx context.Context, issuerKeyID string) (int64, error)
	// Validity is the time from a list's making to its nextUpdate; 0 means
	// DefaultValidity. Withdrawn certificates must stay in the store for at
	// least as long after their end.
	Validity time.Duration
	Previous *Publisher       // its lists are served until there are new ones; nil: none
	Logger   *slog.Logger     // nil: silent
	Made     func(Generation) // sees each try to make a list; nil: none; must not block
	Served   func(Request)    // sees each answer; nil: none; must not block
}

// Generation is one try to make a list, for metrics.
type Generation struct {
	IssuerKeyID string
	Took        time.Duration
	Err         error // nil: the list is being served, and the rest is set
	Number      int64
	Entries     int
	Bytes       int
	NextUpdate  time.Time
}

// Publisher keeps CRLs fresh and serves them.
type Publisher struct {
	o         Options
	resources map[string]*resource // by path; fixed
	lists     []*list              // those that are signed here; fixed
}

// list is the CRL of one issuing certificate.
type list struct {
	Issuer
	keyID   string
	current atomic.Pointer[document] // nil until the first; Run stores, handlers load

	// Only Run's goroutine for this list uses what follows.
	revision int64
	due      time.Time // when the next is made at the latest; zero: at once
	entries  int
	failures int // in a row
}

// New checks that every list can be made; the error says what the CA
// certificate lacks. Nothing is signed before Run.
func New(o Options) (*Publisher, error) {
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	if o.Validity < time.Minute {
		return nil, fmt.Errorf("a CRL that is valid for %v would be out of date on arrival; use a minute or more", o.Validity)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	previous := o.Previous
	o.Previous = nil // not a chain of all there ever were
	p := &Publisher{o: o, resources: map[string]*resource{}}
	for _, is := range o.Issuers {
		if err := p.add(is, previous); err != nil {
			return nil, err
		}
	}
	if len(p.lists) > 0 && (o.Revision == nil || o.Entries == nil || o.NextNumber == nil) {
		return nil, errors.New("publish: Revision, Entries and NextNumber are required where CRLs are made")
	}
	return p, nil
}

func (p *Publisher) add(is Issuer, previous *Publisher) error {
	c := is.Certificate
	if len(c.SubjectKeyId) == 0 {
		return fmt.Errorf("CA certificate %q has no subject key identifier", c.Subject)
	}
	keyID := hex.EncodeToString(c.SubjectKeyId)
	certPath, crlPath := "/ca/"+keyID+".cer", "/crl/"+keyID+".crl"
	if p.resources[certPath] == nil {
		p.resources[certPath] = certificateResource(c)
	}
	if is.Sign == nil || p.resources[crlPath] != nil { // or listed twice
		return nil
	}
	if err := revocation.Check(c); err != nil {
		return err
	}
	l := &list{Issuer: is, keyID: keyID}
	if previous != nil && previous.resources[crlPath] != nil {
		l.current.Store(previous.resources[crlPath].load())
	}
	p.lists = append(p.lists, l)
	p.resources[crlPath] = &resource{name: "crl", load: l.current.Load}
	return nil
}

// Run makes the lists and keeps them fresh until ctx ends; it blocks so long.
// Trouble with one key or the database is logged and tried again, and one
// list's trouble is no other's.
func (p *Publisher) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, l := range p.lists {
		all.Go(func() {
			for wait := p.refresh(ctx, l); sleep(ctx, wait); {
				wait = p.refresh(ctx, l)
			}
		})
	}
	all.Wait()
	<-ctx.Done()
}

// sleep reports false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// refresh makes a new list if one is needed, and says when to look again.
func (p *Publisher) refresh(ctx context.Context, l *list) (wait time.Duration) {
	// Without the monotonic reading, which stands still while a machine
	// sleeps: relying parties go by the wall clock.
	begun := time.Now().Round(0)
	bounded, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	// Read before the entries: what is revoked meanwhile shows next time.
	revision, err := p.o.Revision(bounded, l.keyID)
	if err == nil && revision == l.revision && begun.Before(l.due) {
		l.failures = 0
		return pollInterval
	}
	g := Generation{IssuerKeyID: l.keyID}
	if err == nil {
		err = p.renew(bounded, l, begun, &g)
	}
	if err != nil && ctx.Err() != nil {
		return 0 // we stop; that is no trouble
	}
	g.Took, g.Err = max(time.Since(begun), 0), err
	if err != nil {
		wait = min(pollInterval<<min(l.failures, 5), maxRetry)
		l.failures++
		p.o.Logger.Error("no new CRL could be made; the old one, if any, is still served",
			"issuer", l.Certificate.Subject.String(), "key_id", l.keyID, "error", err, "good_until", l.end(), "retry_in", wait)
	} else {
		wait = max(min(restFactor*g.Took, maxRest), pollInterval)
		l.failures, l.revision = 0, revision
		// After a third of its life: a key may be away for the other two.
		l.due = begun.Add(p.o.Validity / 3)
		p.o.Logger.Info("CRL published", "issuer", l.Certificate.Subject.String(), "key_id", l.keyID,
			"number", g.Number, "entries", g.Entries, "bytes", g.Bytes, "next_update", g.NextUpdate)
	}
	if p.o.Made != nil {
		p.o.Made(g)
	}
	return wait
}

// end is until when the list that is served is good.
func (l *list) end() time.Time {
	if d := l.current.Load(); d != nil {
		return d.expires
	}
	return time.Time{}
}

// renew makes a list and puts it into the place of the old one.
func (p *Publisher) renew(ctx context.Context, l *list, now time.Time, g *Generation) error {
	now = now.UTC().Truncate(time.Second)
	// A certificate stays on the list until one regular list was issued
	// after its end (RFC 5280 section 3.3). Lists are made each third of
	// Validity, so one whole Validity is time enough, and nobody need
	// remember which list was made when.
	after := now.Add(-p.o.Validity)
	if l.due.IsZero() { // the first: count, so that memory is taken once
		l.entries = 0
		err := p.o.Entries(ctx, l.keyID, after, func(cert.Serial, time.Time, cert.Reason, time.Time) error {
			l.entries++
			return nil
		})
		if err != nil {
			return err
		}
	}
	number, err := p.o.NextNumber(ctx, l.keyID)
	if err != nil {
		return err
	}
	g.Number, g.NextUpdate = number, now.Add(p.o.Validity)
	unsigned, err := revocation.Build(revocation.List{
		Issuer: l.Certificate, Number: number, ThisUpdate: now.Add(-backdate), NextUpdate: g.NextUpdate,
		Expect: l.entries + l.entries/16, // some were added since
		Entries: func(yield func(revocation.Entry) error) error {
			return p.o.Entries(ctx, l.keyID, after, func(serial cert.Serial, at time.Time, reason cert.Reason, _ time.Time) error {
				return yield(revocation.Entry{Serial: serial, At: at, Reason: reason})
			})
		},
	})
	if err != nil {
		return err
	}
	der, err := unsigned.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) { return l.Sign(ctx, digest, opts) })
	if err != nil {
		return err
	}
	l.entries, g.Entries, g.Bytes = unsigned.Entries, unsigned.Entries, len(der)
	l.current.Store(newDocument(der, "application/pkix-crl", now, g.NextUpdate))
	return nil
}
