package publish

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// Source is where answers and lists come from: a *responder.Responder, whose
// methods these are; tests have another one.
type Source interface {
	Issuer(q *revocation.OCSPRequest) (issuerKeyID string, nonces, ok bool)
	Answer(ctx context.Context, q *revocation.OCSPRequest) (responder.Answer, error)
	List(issuerKeyID string, shard int) (list *responder.List, known bool)
	Watch(revoked func(issuerKeyID string, serial cert.Serial), intact func(bool))
}

// DefaultCacheSize is for about 50,000 answers of ECDSA keys, which take some
// 1.2 KB each with their headers.
const DefaultCacheSize = 64 << 20

// Options is what a Publisher needs.
type Options struct {
	Source       Source
	Certificates []*x509.Certificate    // issuing certificates and what is above them
	Lists        []*x509.RevocationList // lists made elsewhere, which somebody has checked
	CacheSize    int                    // of OCSP answers, in bytes; 0 means DefaultCacheSize
	Logger       *slog.Logger           // nil: silent
	SSH          *SSH                   // nil: there is no SSH issuer
	Served       func(Request)          // sees each answer; nil: none; must not block
}

// Request is one answered request, for metrics.
type Request struct {
	Resource string // ocsp, crl, ca, ssh, krl or unknown
	Status   int    // of HTTP
	// Outcome is, for OCSP, cached, answered (by the source), unauthorized,
	// try_later, malformed, failed, or refused with an HTTP status; else "".
	Outcome string
	Took    time.Duration // until the last byte was written
}

// Publisher serves. It is safe for concurrent use, starts nothing and needs no
// closing.
type Publisher struct {
	source    Source
	log       *slog.Logger
	served    func(Request)
	documents map[string]*document // by path: certificates, lists made elsewhere; fixed
	ssh       *SSH                 // nil: none
	cache     *cache
	scratches sync.Pool    // of *scratch
	logged    atomic.Int64 // when trouble was last logged, in unix seconds
}

// New makes a Publisher. It fails when a certificate or a list doesn't say
// whose it is, or when two lists would be at one place.
func New(o Options) (*Publisher, error) {
	if o.Source == nil {
		return nil, errors.New("publish: Source is required")
	}
	p := &Publisher{
		source: o.Source, log: o.Logger, served: o.Served, documents: make(map[string]*document),
		scratches: sync.Pool{New: func() any { return new(scratch) }},
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if o.CacheSize <= 0 {
		o.CacheSize = DefaultCacheSize
	}
	p.cache = newCache(o.CacheSize)
	for _, c := range o.Certificates {
		if len(c.SubjectKeyId) == 0 {
			return nil, fmt.Errorf("CA certificate %q has no subject key identifier", c.Subject)
		}
		path := "/ca/" + hex.EncodeToString(c.SubjectKeyId) + ".cer"
		if p.documents[path] == nil { // or another one for the same key: the first is the usual one
			p.documents[path] = certificateDocument(c)
		}
	}
	for _, l := range o.Lists {
		if err := p.addList(l); err != nil {
			return nil, err
		}
	}
	if o.SSH != nil {
		p.addSSH(o.SSH)
	}
	o.Source.Watch(p.cache.drop, p.cache.trust)
	return p, nil
}

// addList adds a list made elsewhere.
func (p *Publisher) addList(l *x509.RevocationList) error {
	if len(l.AuthorityKeyId) == 0 {
		return fmt.Errorf("the CRL of %q doesn't say which key signed it (authority key identifier)", l.Issuer)
	}
	keyID := hex.EncodeToString(l.AuthorityKeyId)
	path := "/crl/" + keyID + ".crl"
	if _, known := p.source.List(keyID, 0); known || p.documents[path] != nil {
		return fmt.Errorf("there are two CRLs of %q for key %s; leave one out", l.Issuer, keyID)
	}
	p.documents[path] = newDocument(l.Raw, "crl", "application/pkix-crl", l.ThisUpdate, l.NextUpdate)
	return nil
}
