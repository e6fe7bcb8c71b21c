package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca/job"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/store"
)

// How a plan waits for its key.
const (
	busyKey   = 100 * time.Millisecond // a longer wait than this makes the order of turns matter
	leastWait = time.Second            // between looks for a key when all are away, doubling
	mostWait  = 15 * time.Second       // and at most
	lookLasts = 5 * time.Second        // after a look at the pod or device that a certificate rests on, there is another once the key has signed
	freePlan  = time.Second            // a plan for others is claimable as of so long ago, whose clocks may be behind
	lookAgain = time.Second            // how often the key of an order that another replica signs is looked at, and each fifth time the order, should a notice be lost
)

// work is one planned certificate on its way to the key.
type work struct {
	*Directory
	certificate cert.Certificate
	prepared    *issuer.Prepared
	replaces    cert.Serial // the certificate that this one replaces; "" for none
	csr         *issuer.CSR // nil after a restart: its bytes may have been signed before
	turn        signer.Request
	who         Requester // the zero value after a restart
	subjects    []string  // that its private proofs rest on, once stillStands has looked
}

// turn says in whose turn an order's certificate is signed: renewals before
// what they replace ends, and each client in its own. Accounts don't count as
// clients, since throwing them away would defeat fairness.
func (a *Authority) turn(ctx context.Context, o protocol.Order, client string) (signer.Request, error) {
	r := signer.Request{Class: schedule.Issuance, Directory: o.Directory, Client: client}
	serial := cert.Replaced(o)
	if serial == "" {
		return r, nil
	}
	replaced, err := a.db.Certificate(ctx, serial)
	if err != nil && !errors.Is(err, store.ErrNotFound) { // or it has ended long ago
		return r, err
	}
	r.Class, r.Ends = schedule.Renewal, replaced.NotAfter
	return r, nil
}

// renews finds out whether an order that doesn't say so renews a certificate:
// one of the same names by the same account. It matters only, and is looked
// up only, where the keys are busy.
func (a *Authority) renews(ctx context.Context, by Issuer, o protocol.Order, turn signer.Request) (signer.Request, error) {
	busy, ok := by.(interface {
		Wait(signer.Request) time.Duration
	})
	if !ok || turn.Class == schedule.Renewal || busy.Wait(turn) <= busyKey {
		return turn, nil
	}
	_, ends, err := a.db.NewestOfNames(ctx, o.Account, o.Identifiers, a.clock())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return turn, nil
	case err == nil:
		turn.Class, turn.Ends = schedule.Renewal, ends
	}
	return turn, err
}

// leavePlan records a plan: ours to sign, or for the replica that holds the
// key, which is told.
func (a *Authority) leavePlan(tx *store.Tx, c cert.Certificate, prepared *issuer.Prepared) error {
	if !prepared.Remote() {
		return tx.InsertCertificate(c, a.clock().Add(planLease))
	}
	if err := tx.InsertCertificate(c, a.clock().Add(-freePlan)); err != nil {
		return err
	}
	return tx.Notify(topicPlanned, c.IssuerKeyID)
}

// startIssuance runs the job that owns the issuance, or joins the one that
// runs; nil when there is no room, and the sweep will do it.
func (a *Authority) startIssuance(ctx context.Context, w work) *job.Job[cert.Serial] {
	client := w.turn.Directory + " " + w.turn.Client
	j := a.issuances.Start(ctx, string(w.certificate.Order), client, w.task(), func(ctx context.Context) (cert.Serial, error) { return a.issue(ctx, w) })
	if j == nil {
		w.prepared.Discard()
	}
	return j
}

// processing estimates when a client should look at its order again. Where
// another replica has the job, or none yet, the estimate is what a newcomer
// would wait at that key, less what the order has waited.
func (a *Authority) processing(ctx context.Context, o protocol.Order) time.Duration {
	left, here := a.issuances.RetryAfter(string(o.ID))
	if here {
		return left
	}
	c, err := a.db.Certificate(ctx, cert.Serial(o.Certificate))
	if err != nil {
		return left
	}
	by, err := a.issuer(c.Issuer)
	waits, ok := by.(interface {
		WaitAt(string, signer.Request) time.Duration
	})
	if err != nil || !ok { // upstream CAs don't say
		return left
	}
	turn := signer.Request{Class: schedule.Issuance, Directory: c.Directory, Client: c.Client}
	return job.Retry(waits.WaitAt(c.IssuerKeyID, turn) - a.clock().Sub(c.PlannedAt))
}

// task describes the work: by the serial of the plan that this process keeps
// its own, "" while another replica signs.
func (w *work) task() job.Task {
	t := job.Task{Left: w.prepared.Wait}
	if !w.prepared.Remote() {
		t.About = string(w.certificate.Serial)
	}
	return t
}

// issue takes a planned certificate to its end: signed and recorded, or the
// order made invalid because something was withdrawn. Where the trouble is
// the server's own, the plan stays and the sweep tries again. It returns the
// serial of the certificate that the order got, "" for none.
func (a *Authority) issue(ctx context.Context, w work) (cert.Serial, error) {
	ctx, cancel := context.WithTimeout(ctx, signatureTime)
	defer cancel()
	defer func() { w.prepared.Discard() }()
	begun := a.clock()
	serial, err := a.sign(ctx, &w)
	if !w.prepared.Remote() { // else the key's holder counts it
		a.observe.Issued(w.certificate.Directory, w.certificate.Profile, a.clock().Sub(begun), err)
	}
	if err == nil {
		return serial, nil
	}
	problem, ok := errors.AsType[*protocol.Problem](err)
	if !ok {
		a.log.Error("certificate not issued; it will be tried again", "order", w.certificate.Order, "serial", w.certificate.Serial, "error", err)
		return "", err
	}
	if err := a.refuse(context.WithoutCancel(ctx), w, problem); err != nil {
		a.log.Error("refusal not recorded", "order", w.certificate.Order, "error", err)
		return "", err
	}
	return "", nil
}

// holdPlans keeps the plans ours whose signatures have waited so long for a
// slow key; a plan nobody works on is taken over soon.
func (a *Authority) holdPlans(ctx context.Context, waited time.Duration) error {
	serials := a.issuances.Longer(waited)
	if len(serials) == 0 {
		return nil
	}
	return a.db.Update(ctx, func(tx *store.Tx) error {
		for _, serial := range serials {
			// One that isn't ours any more is signed twice at worst: the
			// same bytes, of which one is recorded.
			if _, err := tx.HoldPlan(cert.Serial(serial), tx.Now().Add(planLease)); err != nil {
				return err
			}
		}
		return nil
	})
}

// refuse makes the order invalid and forgets the plan: nothing was signed, or
// what was signed was seen by nobody.
func (a *Authority) refuse(ctx context.Context, w work, p *protocol.Problem) error {
	c := w.certificate
	return a.db.Update(ctx, func(tx *store.Tx) error {
		if ok, err := tx.FailOrder(c.Order, p); err != nil || !ok {
			return err
		}
		if _, err := tx.DropPlan(c.Serial); err != nil {
			return err
		}
		if err := a.tellIssued(tx, &w); err != nil {
			return err
		}
		return tx.Audit(audit.Entry{
			Action: "certificate.issue", Actor: "account:" + string(c.Account), Peer: w.who.peer(),
			Directory: c.Directory, Object: string(c.Serial), Denied: p.Error(), Detail: map[string]any{"order": string(c.Order)},
		})
	})
}

// tellIssued tells the replica that took an order of its end. A plan that began
// here has its own request waiting.
func (a *Authority) tellIssued(tx *store.Tx, w *work) error {
	if w.csr != nil {
		return nil
	}
	return tx.Notify(topicIssued, string(w.certificate.Order))
}

// sign rechecks, signs and records, by whatever key can; it returns the serial
// of what was recorded, "" where another had recorded.
func (a *Authority) sign(ctx context.Context, w *work) (cert.Serial, error) {
	for {
		if w.prepared.Remote() {
			if serial, over, err := a.await(ctx, w); over || err != nil {
				return serial, err
			}
		}
		if err := a.stillStands(ctx, w); err != nil {
			return "", err
		}
		looked := a.clock()
		der, err := a.useKey(ctx, w)
		switch {
		case errors.Is(err, errStale):
			_, err = a.replan(ctx, w, false)
		case errors.Is(err, signer.ErrAway):
			err = a.move(ctx, w)
		case errors.Is(err, issuer.ErrWrongIssuer): // the configuration was read anew
			err = a.adopt(ctx, w)
		case err != nil:
			err = fmt.Errorf("signing: %w", err)
		case len(w.subjects) == 0 || a.clock().Sub(looked) <= lookLasts:
			return a.record(ctx, w, der)
		default: // it waited for its turn, or the key was slow; the database is looked at by record
			if err := a.stillStands(ctx, w); err != nil {
				return "", err
			}
			return a.record(ctx, w, der)
		}
		if err != nil {
			return "", err
		}
	}
}

// errStale says that a plan waited too long for its key, which never saw it.
var errStale = errors.New("the plan grew old in the key's queue")

// errTaken says that a plan isn't there any more.
var errTaken = errors.New("the plan was taken over by another replica")

// useKey waits in the key's queue and signs. A plan that was surely never
// signed leaves the queue when it is too old.
func (a *Authority) useKey(ctx context.Context, w *work) ([]byte, error) {
	by, err := a.issuer(w.certificate.Issuer)
	if err != nil {
		return nil, err
	}
	if w.prepared.Used() { // its first try failed: the same bytes again
		if w.prepared, err = by.Resume(w.prepared.TBS, w.turn); err != nil {
			return nil, err
		}
	}
	if w.csr == nil {
		return by.Issue(ctx, w.prepared)
	}
	queued, cancel := context.WithTimeout(ctx, a.fresh(w.certificate)-a.clock().Sub(w.certificate.PlannedAt))
	defer cancel()
	der, err := by.Issue(queued, w.prepared)
	if err != nil && ctx.Err() == nil && queued.Err() != nil && errors.Is(err, queued.Err()) {
		return nil, errStale // its context's own error: Issue was still waiting
	}
	return der, err
}

// fresh is how old a plan may get before its dates are made anew.
func (a *Authority) fresh(c cert.Certificate) time.Duration {
	if a.planAge > 0 {
		return a.planAge
	}
	return max(leastPlanAge, c.NotAfter.Sub(c.NotBefore)/planAgePart)
}

// adopt takes a plan over into the configuration that was read meanwhile, under
// another key where its own is gone from it.
func (a *Authority) adopt(ctx context.Context, w *work) error {
	by, err := a.issuer(w.certificate.Issuer)
	if err != nil {
		return err
	}
	prepared, err := by.Resume(w.prepared.TBS, w.turn)
	if errors.Is(err, issuer.ErrWrongIssuer) {
		_, err = a.replan(ctx, w, false)
		return err
	}
	if err == nil {
		w.prepared.Discard()
		w.prepared = prepared
	}
	return err
}

// move waits until a key is at hand for a plan whose own went away. What that
// one signed, if anything, was seen by nobody.
func (a *Authority) move(ctx context.Context, w *work) error {
	for wait := leastWait; ; wait = min(2*wait, mostWait) {
		if w.prepared.Usable() {
			return nil // it came back
		}
		if moved, err := a.replan(ctx, w, true); moved || err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("no signing key was at hand: %w", ctx.Err())
		}
	}
}

// replan gives a plan that was never signed, as far as anybody can see, fresh
// dates, a fresh serial and the key that is free soonest. False: usable was
// asked for, and all keys are away.
func (a *Authority) replan(ctx context.Context, w *work, usable bool) (bool, error) {
	o, err := a.db.Order(ctx, w.certificate.Order)
	if err != nil {
		return false, err
	}
	asked := w.csr
	if asked == nil {
		if asked, err = issuer.Asked(w.certificate); err != nil {
			return false, err
		}
	}
	c, prepared, err := a.prepare(ctx, w.Directory, o, asked, w.certificate.Subject, w.turn)
	if err != nil {
		return false, err
	}
	if usable && !prepared.Usable() {
		prepared.Discard()
		return false, nil
	}
	until := a.clock().Add(planLease)
	if prepared.Remote() {
		until = a.clock().Add(-freePlan)
	}
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		ok, err := tx.ReplanCertificate(w.certificate.Serial, c, until)
		if err == nil && !ok {
			err = errTaken
		}
		if err == nil && prepared.Remote() {
			err = tx.Notify(topicPlanned, c.IssuerKeyID)
		}
		return err
	})
	if err != nil {
		prepared.Discard()
		return false, err
	}
	if w.prepared != nil {
		w.prepared.Discard()
	}
	w.certificate, w.prepared = c, prepared
	a.issuances.Describe(string(c.Order), w.task())
	return true, nil
}

// await waits until the replica that holds the key has brought the order to
// its end: over, with the serial it got or "". Where that key goes away, the
// plan is given to another; if that one is ours, it isn't over.
func (a *Authority) await(ctx context.Context, w *work) (serial cert.Serial, over bool, err error) {
	told, forget := a.issued.Wait(string(w.certificate.Order))
	defer forget()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	news, pause, replanAt := false, leastWait, time.Time{}
	for n := 0; ; n++ {
		if n%5 == 0 || news {
			if serial, over, err = a.follow(ctx, w); over || err != nil {
				return serial, over, err
			}
			if !w.prepared.Remote() {
				return "", false, nil
			}
			news = false
		}
		if !w.prepared.Usable() && !time.Now().Before(replanAt) {
			moved, err := a.replan(ctx, w, true)
			switch {
			case errors.Is(err, errTaken): // its holder gave it to yet another, and goes on
				news = true
			case err != nil:
				return "", false, err
			case moved && !w.prepared.Remote():
				return "", false, nil
			}
			replanAt, pause = time.Now().Add(pause), min(2*pause, mostWait)
		}
		select {
		case <-told:
			news = true
		case <-tick.C:
		case <-ctx.Done():
			return "", true, ctx.Err()
		}
	}
}

// follow looks how an order stands that another replica signs: over, with the
// serial it got or "", or else with the plan that it has by now. A reading of
// the configuration may have made its key ours.
func (a *Authority) follow(ctx context.Context, w *work) (serial cert.Serial, over bool, err error) {
	o, err := a.db.Order(ctx, w.certificate.Order)
	switch {
	case err != nil:
		return "", false, err
	case o.Status == protocol.OrderValid:
		return cert.Serial(o.Certificate), true, nil
	case o.Status != protocol.OrderProcessing:
		return "", true, nil
	}
	plan := w.certificate
	if planned := cert.Serial(o.Certificate); planned != plan.Serial {
		plan, err = a.db.Certificate(ctx, planned)
		if errors.Is(err, store.ErrNotFound) || err == nil && plan.State != cert.Planned { // it is changing just now
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
	}
	by, err := a.issuer(plan.Issuer)
	if err != nil {
		return "", false, err
	}
	prepared, err := by.Resume(plan.DER, w.turn)
	if errors.Is(err, issuer.ErrWrongIssuer) { // we don't know its key: its holder does
		return "", false, nil
	}
	if err == nil && (plan.Serial != w.certificate.Serial || !prepared.Remote()) {
		w.prepared.Discard()
		w.certificate, w.prepared = plan, prepared
		a.issuances.Describe(string(plan.Order), w.task())
	}
	return "", false, err
}
