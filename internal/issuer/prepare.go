package issuer

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// Request is what shall be certified, after policy has agreed to it.
type Request struct {
	Profile   cert.Profile
	Names     []protocol.Identifier // canonical, each once
	PublicKey crypto.PublicKey
	NotBefore time.Time // as policy decided; both belong to the validity
	NotAfter  time.Time
	// The client asked for just this notBefore or notAfter. What it didn't
	// ask for is moved where the issuing chain begins later or ends sooner.
	ExactStart, ExactEnd bool
	Now                  time.Time
	// Signature says in whose turn the key signs.
	Signature signer.Request
	// SSH is, for an SSH certificate, the rest; zero for others.
	SSH SSHSubject
}

// Prepared is a token for one signature: the certificate is decided, and its
// bytes won't change. The exported fields are for the record.
type Prepared struct {
	Serial      cert.Serial
	TBS         []byte // the TBSCertificate in DER, or what is signed of an SSH certificate
	NotBefore   time.Time
	NotAfter    time.Time
	IssuerKeyID string // hex of the issuing certificate's SubjectKeyId, or sshca.Authority.ID
	KeyHash     string // hex SHA-256 of the SubjectPublicKeyInfo
	CRLShard    int    // of the list that speaks for it; 0: the full one, or none
	// KeyID and Principals are an SSH certificate's.
	KeyID      string
	Principals []string

	tbs  []byte          // what is signed, whatever became of TBS
	ssh  *sshca.Prepared // in place of tbs
	at   *place
	turn signer.Request
	used atomic.Bool
}

// Errors that callers tell apart. ErrUsed and ErrWrongIssuer are bugs in the
// caller; the others an operator must see.
var (
	// ErrUsed is Issue's answer to a token that it has seen before.
	ErrUsed = errors.New("this prepared certificate was issued, or tried, already; resume it from its bytes")
	// ErrWrongIssuer is the answer to another issuer's token or bytes.
	ErrWrongIssuer = errors.New("this certificate was prepared by another issuer")
	// ErrExpired is Prepare's answer when no issuing certificate is valid.
	ErrExpired = errors.New("no issuing certificate is valid now; make a new one")
	// ErrRemote is Issue's answer when another replica holds the key.
	ErrRemote = errors.New("another replica holds the signing key")
	// ErrBadSignature means that the key's signature doesn't verify: the key
	// or its hardware is faulty, and what it signed was thrown away.
	ErrBadSignature = errors.New("the signing key made a signature that doesn't verify")
)

// maxCommonName is RFC 5280 appendix A's ub-common-name.
const maxCommonName = 64

// Prepare decides a certificate: which key signs it, its serial, its dates, its
// bytes, all of it read back and checked. It signs nothing and takes some tens
// of microseconds. Problems are the client's to solve: badCSR (the key),
// malformed (the dates), rejectedIdentifier (outside the CA's name
// constraints); other errors, ErrExpired among them, are the operator's.
func (l *Local) Prepare(ctx context.Context, r Request) (*Prepared, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	valid := -1
	place, reserved := l.pool.Choose(r.Signature, func(i int) bool {
		a := l.active[i]
		inDates := !r.Now.Before(a.notBefore) && r.Now.Before(a.notAfter)
		if inDates {
			valid = i
		}
		return inDates
	})
	switch {
	case valid < 0:
		return nil, fmt.Errorf("issuer %s: %w", l.name, ErrExpired)
	case place < 0:
		place = valid // all are away: the plan waits for one, as Usable tells
	}
	p, err := l.prepare(l.active[place], r)
	if err != nil {
		reserved.Cancel()
		return nil, err
	}
	p.turn.Reservation = reserved
	return p, nil
}

// prepare decides a certificate of one authority.
func (l *Local) prepare(a *authority, r Request) (*Prepared, error) {
	t, err := l.template(a, r)
	if err != nil {
		return nil, err
	}
	tbs, err := buildTBS(a, t)
	if err != nil {
		return nil, fmt.Errorf("encode certificate %s: %w", t.serial, err)
	}
	parsed, err := parseTBS(tbs)
	if err == nil {
		err = t.check(parsed)
	}
	var p *Prepared
	if err == nil {
		p, err = a.token(tbs, parsed)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %s for profile %s: %w", t.serial, r.Profile.Name, err)
	}
	p.turn, p.CRLShard = r.Signature, t.crlShard
	return p, nil
}

// template checks a request and decides what the certificate says.
func (l *Local) template(a *authority, r Request) (*template, error) {
	if err := a.supports(r.Profile); err != nil {
		return nil, fmt.Errorf("profile %s, issuer %s: %w", r.Profile.Name, l.name, err)
	}
	if err := checkNames(r.Names); err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(r.PublicKey)
	if err != nil {
		return nil, protocol.NewProblem(protocol.BadCSR, "this kind of public key is not supported; use one of %v", r.Profile.KeyTypes)
	}
	if err := checkKey(r.PublicKey, sha256.Sum256(spki), r.Profile.KeyTypes, l.blocked); err != nil {
		return nil, err
	}
	from, to, err := a.dates(r)
	if err != nil {
		return nil, err
	}
	for _, chain := range a.chains {
		for _, ca := range chain {
			if err := checkConstraints(ca, r.Names); err != nil {
				return nil, err
			}
		}
	}
	_, isRSA := r.PublicKey.(*rsa.PublicKey)
	t := &template{
		serial: cert.NewSerial(), notBefore: from, notAfter: to, spki: spki,
		usages: r.Profile.Usages, names: r.Names,
		// RSA key transport is gone from TLS 1.3; servers of older TLS want it.
		encipher:   isRSA && slices.Contains(r.Profile.Usages, cert.Server),
		noRevAvail: r.Profile.Revocation == cert.RevocationNone,
	}
	if r.Profile.CommonName || onlyPermanent(r.Names) {
		t.commonName = commonName(r.Names)
	}
	if r.Profile.Revocation.CRL() {
		t.crlURL, t.crlShard = a.crlURL(t.serial)
	}
	if r.Profile.Revocation.OCSP() {
		t.ocspURL = a.ocspURL
	}
	return t, nil
}

// checkNames makes sure that the names are what the caller promises: policy
// looked at them in canonical form.
func checkNames(names []protocol.Identifier) error {
	if len(names) == 0 {
		return errors.New("a certificate without names")
	}
	for i, id := range names {
		if canon, err := protocol.ParseIdentifier(string(id.Type), id.Value); err != nil || canon != id {
			return fmt.Errorf("the name %q is not in canonical form", id)
		}
		if slices.Contains(names[:i], id) {
			return fmt.Errorf("the name %q comes twice", id)
		}
	}
	return nil
}

// commonName is the first dns name that fits; "" if none does. What names only
// people and devices has the first of these.
func commonName(names []protocol.Identifier) string {
	for _, id := range names {
		if (id.Type == protocol.DNS || onlyPermanent(names)) && len(id.Value) <= maxCommonName {
			return id.Value
		}
	}
	return ""
}

// onlyPermanent reports whether nothing is named but people and devices. Such a
// certificate needs a subject: without one its subjectAltName would be critical
// (RFC 5280 section 4.2.1.6), which relying parties that don't know otherNames,
// Go's among them, refuse.
func onlyPermanent(names []protocol.Identifier) bool {
	return !slices.ContainsFunc(names, func(id protocol.Identifier) bool { return id.Type != protocol.PermanentIdentifier })
}

// Resume makes a token again of the bytes that an earlier Prepare gave, after a
// crash or a failed Issue. They are checked anew: bytes that name another
// issuer get ErrWrongIssuer, and none that Prepare wouldn't make get a token.
// Whether the plan is still fresh and the certificate still wanted is for the
// caller to say. turn says in whose turn the key signs.
func (l *Local) Resume(tbs []byte, turn signer.Request) (*Prepared, error) {
	parsed, err := parseTBS(tbs)
	if err != nil {
		return nil, fmt.Errorf("a planned certificate is damaged: %w", err)
	}
	a := l.byKeyID[hex.EncodeToString(parsed.AuthorityKeyId)]
	if a == nil || a.key == nil {
		return nil, fmt.Errorf("issuer %s: key %x: %w", l.name, parsed.AuthorityKeyId, ErrWrongIssuer)
	}
	p, err := a.token(tbs, parsed)
	if err != nil {
		return nil, fmt.Errorf("a planned certificate: %w", err)
	}
	p.turn = turn
	return p, nil
}

// token makes a token of bytes that hold what every certificate must.
func (a *authority) token(tbs []byte, parsed *x509.Certificate) (*Prepared, error) {
	if err := a.lint(parsed); err != nil {
		return nil, err
	}
	hash := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	return &Prepared{
		Serial: cert.SerialOf(parsed.SerialNumber), TBS: tbs,
		NotBefore: parsed.NotBefore, NotAfter: parsed.NotAfter,
		IssuerKeyID: a.keyID, KeyHash: hex.EncodeToString(hash[:]),
		tbs: parsed.RawTBSCertificate, at: &a.place, // a copy of tbs
	}, nil
}

// Wait estimates how long Issue would take if it were called now, or, while it
// waits, how long it still takes.
func (p *Prepared) Wait() time.Duration {
	if p.turn.Reservation != nil {
		return p.turn.Reservation.Wait()
	}
	return p.at.key.Wait(p.turn)
}

// Remote reports whether another replica holds the key: then Issue can't be
// called here.
func (p *Prepared) Remote() bool { return p.at.queue == nil }

// Used reports whether Issue has seen the token.
func (p *Prepared) Used() bool { return p.used.Load() }

// Usable reports whether the key is at hand, here or at another replica.
func (p *Prepared) Usable() bool { return p.at.key.Usable() }

// Discard gives back the place at the key that Prepare reserved, of a token
// that is not going to be issued, or that another replica has issued. It may be
// called after Issue, too.
func (p *Prepared) Discard() { p.turn.Reservation.Cancel() }

// Asked returns the key that a planned certificate is for, as a CSR would ask
// for it, so that it can be prepared anew, under another issuing key.
func Asked(plan cert.Certificate) (*CSR, error) {
	if plan.Format == cert.OpenSSH {
		return askedSSH(plan.DER)
	}
	parsed, err := parseTBS(plan.DER)
	if err != nil {
		return nil, fmt.Errorf("a planned certificate is damaged: %w", err)
	}
	hash := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	return &CSR{PublicKey: parsed.PublicKey, KeyHash: hex.EncodeToString(hash[:])}, nil
}

// Issue signs a prepared certificate, once, in its turn at the key's queue,
// verifies the signature with the CA's public key (a fault in a computation
// could give away the key) and returns the certificate in DER. Whatever comes
// of it, the token is used: resume it from its bytes to try again. Errors are
// ErrUsed, ErrWrongIssuer, ErrRemote, ErrBadSignature, signer.ErrFull,
// signer.ErrAway, the context's and the key's.
func (l *Local) Issue(ctx context.Context, p *Prepared) ([]byte, error) {
	if p == nil || p.at == nil {
		return nil, ErrWrongIssuer
	}
	a := l.byKeyID[p.at.keyID]
	if a == nil || &a.place != p.at {
		return nil, ErrWrongIssuer
	}
	if a.queue == nil {
		return nil, fmt.Errorf("issuer %s: certificate %s: %w", l.name, p.Serial, ErrRemote)
	}
	if p.used.Swap(true) {
		return nil, ErrUsed
	}
	digest := a.algorithm.digest(p.tbs)
	signature, err := a.queue.Sign(ctx, p.turn, digest, a.algorithm.hash)
	if err != nil {
		return nil, fmt.Errorf("issuer %s: sign certificate %s: %w", l.name, p.Serial, err)
	}
	if !a.algorithm.verify(a.cert.PublicKey, digest, signature) {
		return nil, fmt.Errorf("issuer %s: certificate %s: %w", l.name, p.Serial, ErrBadSignature)
	}
	return assemble(p.tbs, a.algorithm.der, signature)
}
