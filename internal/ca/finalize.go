package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca/certkey"
	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/ca/proof"
	"github.com/chancery-pki/chancery/internal/ca/sshorder"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
)

// Bounds on issuance.
const (
	maxIssuances  = 4096             // orders that wait for their keys in this process; the others do in the database
	maxOfClient   = maxIssuances / 2 // of one client, so that it doesn't keep the others' out
	planLease     = 15 * time.Second // after which another replica may take a plan over
	holdEvery     = 5 * time.Second  // how often those we work on are held
	leastPlanAge  = 5 * time.Minute  // a plan never signed gets fresh dates after this (DESIGN section 4),
	planAgePart   = 24               // or this part of the certificate's life, if that is longer: a new plan is a new turn
	signatureTime = 2 * time.Hour    // 4096 at a key of a signature in a second and a half
)

// FinalizeRequest is finalize's payload: a CSR in DER, or what SSH has in its place.
type FinalizeRequest struct {
	CSR []byte
	SSH sshorder.Request
}

// Finalize asks for the certificate of a ready order (RFC 8555 section 7.4):
// it is planned and recorded, checked once more, signed, recorded, and only
// then shown. Exactly one of any number of calls gets past the plan; the
// others are told orderNotReady. It waits a bounded moment for the signature,
// so that a free key's certificate is in this very answer.
func (a *Authority) Finalize(ctx context.Context, who Requester, id protocol.OrderID, r FinalizeRequest) (OrderView, error) {
	d, err := a.directory(who.Directory)
	if err != nil {
		return OrderView{}, err
	}
	o, authorizations, err := a.db.OrderWithAuthorizations(ctx, id)
	if err := owned(err, o.Account, who, "order"); err != nil {
		return OrderView{}, err
	}
	if err := protocol.CheckReady(protocol.OrderState(o, authorizations, a.clock())); err != nil {
		return OrderView{}, err
	}
	csr, err := a.asked(ctx, who, d, &o, authorizations, r)
	if err != nil {
		return OrderView{}, a.refused(ctx, who, o, authorizations, err)
	}
	if err := a.oneSubject(ctx, who, d, o, authorizations); err != nil {
		return OrderView{}, err
	}
	if csr, err = device.Key(ctx, a.db, authorizations, csr); err != nil {
		return OrderView{}, a.refused(ctx, who, o, nil, err)
	}
	turn, err := a.turn(ctx, o, who.client())
	if err != nil {
		return OrderView{}, err
	}
	c, prepared, err := a.prepare(ctx, d, o, csr, strings.Join(policy.Subjects(authorizations), " "), turn) // one at most (oneSubject)
	if err != nil {
		return OrderView{}, a.refused(ctx, who, o, authorizations, err)
	}
	if err := a.plan(ctx, c, prepared); err != nil {
		prepared.Discard()
		return OrderView{}, err
	}
	w := work{Directory: d, certificate: c, prepared: prepared, replaces: cert.Replaced(o), csr: csr, turn: turn, who: who}
	soon := prepared.Wait() <= a.hold // else nobody is helped by waiting
	if j := a.startIssuance(ctx, w); j != nil && soon && j.Wait(ctx, a.hold) && j.Made != "" {
		o.Status, o.Certificate = protocol.OrderValid, string(j.Made)
		return OrderView{Order: o}, nil
	}
	return a.Order(context.WithoutCancel(ctx), who, id)
}

// asked settles the order's profile, and takes from the payload what counts: of a
// CSR its key and its names (and the usage it asks for).
func (a *Authority) asked(ctx context.Context, who Requester, d *Directory, o *protocol.Order, proofs []protocol.Authorization, r FinalizeRequest) (csr *issuer.CSR, err error) {
	if r.CSR != nil && !r.SSH.Empty() {
		return nil, protocol.NewProblem(protocol.Malformed, "the payload has both csr and sshPublicKey; send what the profile asks for")
	}
	if r.CSR != nil {
		if csr, err = issuer.ParseCSR(r.CSR); err != nil {
			return nil, err
		}
	}
	p, err := a.profileOf(ctx, who, d, *o, csr, proofs)
	switch {
	case err != nil:
		return nil, err
	case (p.Format() == cert.OpenSSH) == (csr != nil):
		return nil, sshorder.WrongPayload(p)
	case csr == nil:
		csr, err = sshorder.Key(ctx, a.db, p, *o, proofs, r.SSH)
	default:
		err = csr.Match(o.Identifiers)
	}
	if err != nil {
		return nil, err
	}
	o.Profile = p.Name
	return csr, certkey.Check(ctx, a.db, a.DirectoryNames(), csr)
}

// profileOf settles the order's profile, now that a CSR may tell the usage, and
// checks that every proof counts for it (DESIGN section 5).
func (a *Authority) profileOf(ctx context.Context, who Requester, d *Directory, o protocol.Order, csr *issuer.CSR, authorizations []protocol.Authorization) (cert.Profile, error) {
	eab, err := a.eabKey(ctx, who)
	if err != nil {
		return cert.Profile{}, err
	}
	var usage *cert.Usage
	if csr != nil && csr.Usage != "" {
		usage = &csr.Usage
	}
	p, err := d.Policy.PickProfile(o.Profile, usage, eab)
	if err != nil {
		return p, err
	}
	return p, policy.CheckProofs(p, authorizations)
}

// prepare has the issuer build and check the certificate. subject is what the
// order's private proofs rest on, "" for none.
func (a *Authority) prepare(ctx context.Context, d *Directory, o protocol.Order, csr *issuer.CSR, subject string, turn signer.Request) (cert.Certificate, *issuer.Prepared, error) {
	i := slices.IndexFunc(d.Policy.Profiles, func(p cert.Profile) bool { return p.Name == o.Profile })
	if i < 0 {
		return cert.Certificate{}, nil, protocol.NewProblem(protocol.InvalidProfile, "profile %q is not offered any more", o.Profile)
	}
	p, err := device.Narrow(ctx, a.db, subject, d.Policy.Profiles[i])
	if err != nil {
		return cert.Certificate{}, nil, err
	}
	by, err := a.issuer(p.Issuer)
	if err != nil {
		return cert.Certificate{}, nil, err
	}
	var named issuer.SSHSubject
	if csr.SSH != nil {
		if named, err = sshorder.Subject(ctx, a.db, p, o, subject, csr.SSH); err != nil {
			return cert.Certificate{}, nil, err
		}
	}
	now := a.clock()
	from, to, err := policy.Dates(p, o, now)
	if err != nil {
		return cert.Certificate{}, nil, device.TooLong(err, p.MaxLifetime, d.Policy.Profiles[i].MaxLifetime)
	}
	if turn, err = a.renews(ctx, by, o, turn); err != nil {
		return cert.Certificate{}, nil, err
	}
	prepared, err := by.Prepare(ctx, issuer.Request{
		Profile: p, Names: o.Identifiers, PublicKey: csr.PublicKey, Now: now,
		NotBefore: from, NotAfter: to, ExactStart: !o.NotBefore.IsZero(), ExactEnd: !o.NotAfter.IsZero(),
		Signature: turn, SSH: named,
	})
	if err != nil {
		return cert.Certificate{}, nil, err
	}
	return cert.Certificate{
		Serial: prepared.Serial, Format: p.Format(), State: cert.Planned, Order: o.ID, Account: o.Account, Directory: o.Directory,
		Profile: p.Name, Issuer: p.Issuer, IssuerKeyID: prepared.IssuerKeyID, Names: o.Identifiers, DER: prepared.TBS,
		KeyHash: prepared.KeyHash, NotBefore: prepared.NotBefore, NotAfter: prepared.NotAfter, PlannedAt: now,
		CRLShard: prepared.CRLShard, Client: turn.Client, Subject: subject,
	}, prepared, nil
}

// plan makes durable what is about to be signed. The compare-and-swap on the
// order lets one caller through, however many ask at once. A plan for a key
// that another replica holds is that one's to sign.
func (a *Authority) plan(ctx context.Context, c cert.Certificate, prepared *issuer.Prepared) error {
	return a.db.Update(ctx, func(tx *store.Tx) error {
		ok, err := tx.PlanOrder(c.Order, c.Serial, c.Profile)
		if err != nil {
			return err
		}
		if !ok {
			return protocol.CheckReady(protocol.OrderProcessing)
		}
		return a.leavePlan(tx, c, prepared)
	})
}

// stillStands looks, immediately before the key is used, whether everything
// the certificate rests on is still so, and asks again about pods and devices,
// and CAA (RFC 8659 section 3 lets records change at any time). An error that
// isn't a problem says that it isn't known.
func (a *Authority) stillStands(ctx context.Context, w *work) error {
	c, d := w.certificate, w.Directory
	standing, err := a.db.StillStands(ctx, c.Order, a.clock())
	if err := withdrawn(standing, err); err != nil || d.CAA == nil && standing.Private == 0 {
		return err
	}
	o, authorizations, err := a.db.OrderWithAuthorizations(ctx, c.Order)
	if err != nil {
		return err
	}
	w.subjects = policy.Subjects(authorizations)
	if err := a.recheck(ctx, o, authorizations); err != nil || d.CAA == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, proof.Most)
	defer cancel()
	for _, z := range authorizations {
		if err := d.CAA.Check(ctx, z.Identifier, z.Wildcard, d.AccountURL(z.Account), z.Attempt.Type); err != nil {
			return protocol.AsProblem(err).For(z.Identifier)
		}
	}
	return nil
}

// withdrawn turns a standing that isn't good into a problem.
func withdrawn(s store.Standing, err error) error {
	if err == nil && !s.OK() {
		err = protocol.NewProblem(protocol.Unauthorized,
			"the account, its external account key, an authorization or the device it rests on was withdrawn or ended while the certificate was being issued")
	}
	return err
}

// record makes the certificate durable, and with it that the order is valid:
// from here on it may be seen. What was withdrawn while the key worked is
// found here, and the signature forgotten.
func (a *Authority) record(ctx context.Context, w *work, der []byte) (recorded cert.Serial, err error) {
	c := w.certificate
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		recorded = "" // PostgreSQL may run this again
		standing, err := tx.StillStands(ctx, c.Order, tx.Now())
		if err != nil || standing.Order != protocol.OrderProcessing {
			return err // another replica was quicker
		}
		if err := withdrawn(standing, nil); err != nil {
			return err
		}
		if err := device.Hold(ctx, tx, c, w.prepared.Principals); err != nil { // changed between the two looks
			return err
		}
		if ok, err := tx.IssueCertificate(c.Serial, der); err != nil || !ok {
			return err // likewise, with another plan
		}
		if _, err := tx.CompleteOrder(c.Order); err != nil {
			return err
		}
		keep := tx.Now().Add(w.Lifetimes.IdleAccount)
		if c.NotAfter.After(keep) {
			keep = c.NotAfter
		}
		if err := tx.KeepAccount(c.Account, keep); err != nil {
			return err
		}
		if w.replaces != "" {
			if _, err := tx.ReplaceCertificate(w.replaces, c.Order); err != nil {
				return err
			}
		}
		if err := a.tellIssued(tx, w); err != nil {
			return err
		}
		recorded = c.Serial
		return tx.Audit(w.issued())
	})
	return recorded, err
}

// issued is the audit entry of its certificate.
func (w *work) issued() audit.Entry {
	c := w.certificate
	e := audit.Entry{
		Action: "certificate.issue", Actor: "account:" + string(c.Account), Peer: w.who.peer(), Directory: c.Directory,
		Object: string(c.Serial), Detail: map[string]any{
			"order": string(c.Order), "names": protocol.Values(c.Names), "profile": c.Profile, "until": c.NotAfter.Unix(), "key": c.KeyHash,
		},
	}
	if len(w.subjects) > 0 {
		e.Detail["subject"] = w.subjects[0] // there is one (oneSubject)
	}
	if c.Format == cert.OpenSSH {
		e.Detail["key_id"], e.Detail["principals"] = w.prepared.KeyID, w.prepared.Principals
	}
	return e
}

// resumeIssuance goes on with a plan that a stopped process left: the same
// bytes are signed, so that one serial means one certificate.
func (a *Authority) resumeIssuance(ctx context.Context, c cert.Certificate) error {
	if c.Order == "" { // a server's own
		return a.resumeOwn(ctx, c)
	}
	if !a.clock().Before(c.NotAfter) {
		return a.refuse(ctx, work{certificate: c}, protocol.NewProblem(protocol.ServerInternal,
			"the certificate could not be issued before its planned end; make a new order"))
	}
	d, err := a.directory(c.Directory)
	if err != nil {
		return fmt.Errorf("order %s: directory %q isn't there any more", c.Order, c.Directory)
	}
	by, err := a.issuer(c.Issuer)
	if err != nil {
		return err
	}
	o, err := a.db.Order(ctx, c.Order)
	if err != nil {
		return err
	}
	w := work{Directory: d, certificate: c, replaces: cert.Replaced(o)}
	if w.turn, err = a.turn(ctx, o, c.Client); err != nil {
		return err
	}
	if w.turn, err = a.renews(ctx, by, o, w.turn); err != nil {
		return err
	}
	w.prepared, err = by.Resume(c.DER, w.turn)
	if errors.Is(err, issuer.ErrWrongIssuer) { // its key was taken out of the configuration
		_, err = a.replan(ctx, &w, false)
	}
	if err != nil {
		return fmt.Errorf("order %s: %w", c.Order, err)
	}
	a.startIssuance(ctx, w)
	return nil
}

// ChainView is a certificate with what a client needs to use it.
type ChainView struct {
	Format       cert.Format
	Certificates [][]byte // leaf first, then the issuing certificates, no root; or an SSH certificate alone
	Alternates   int      // how many other chains there are (RFC 8555 section 7.4.2)
}

// Certificate returns the account's own certificate under the chain with
// that number, 0 being the default.
func (a *Authority) Certificate(ctx context.Context, who Requester, serial cert.Serial, alternate int) (ChainView, error) {
	c, err := a.db.Certificate(ctx, serial)
	if err == nil && c.State != cert.Issued {
		err = store.ErrNotFound
	}
	if err := owned(err, c.Account, who, "certificate"); err != nil {
		return ChainView{}, err
	}
	return a.Chain(c, alternate)
}

// Chain returns an issued certificate under the chain with that number, 0
// being the default, whosever it is.
func (a *Authority) Chain(c cert.Certificate, alternate int) (ChainView, error) {
	by, err := a.issuer(c.Issuer)
	if err != nil {
		return ChainView{}, err
	}
	above, count, err := by.Chain(c.IssuerKeyID, alternate)
	switch {
	case count > 0 && (alternate < 0 || alternate >= count):
		return ChainView{}, errNoSuch("alternate chain")
	case err != nil:
		return ChainView{}, err
	}
	return ChainView{Format: c.Format, Certificates: append([][]byte{c.DER}, above...), Alternates: count - 1}, nil
}
