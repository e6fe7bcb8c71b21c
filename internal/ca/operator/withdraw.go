package operator

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Withdrawn is what came of withdrawing all that devices hold. Irrevocable are
// certificates that point to no CRL and no OCSP responder: they are recorded
// as revoked, but who relies on them won't learn it before their end.
type Withdrawn struct {
	Devices              []Device // whose state changed
	Revoked, Irrevocable []cert.Certificate
}

// Lost calls a YubiKey lost, with all of its slots that are enrolled, by the ID
// of one or by the serial number, and revokes what they hold. It may be
// repeated, as when an answer didn't arrive.
func (o *Console) Lost(ctx context.Context, who Caller, id string) (Withdrawn, error) {
	return o.withdraw(ctx, who, "device.lost", id, func(tx *store.Tx, e *audit.Entry, w *withdrawal) error {
		all, err := ofSerial(ctx, tx, id)
		if err != nil {
			return err
		}
		if w.devices, err = every(ctx, tx, store.DeviceFilter{Serial: all[0].Serial}); err != nil {
			return err
		}
		w.reason = func(c cert.Certificate, d protocol.Device) cert.Reason {
			if c.KeyHash == d.KeyHash { // whoever finds it may find the PIN
				return cert.KeyCompromise
			}
			return cert.PrivilegeWithdrawn
		}
		for _, d := range w.devices {
			if err := w.end(tx, d, protocol.DeviceLost); err != nil {
				return err
			}
			if err := tx.BlockKey(d.KeyHash, "of a lost device: "+string(d.ID)); err != nil {
				return err
			}
		}
		e.Object, e.Detail["serial"], e.Detail["owner"] = string(all[0].ID), int64(all[0].Serial), all[0].Owner
		return nil
	})
}

// Retire ends a device: it gets no more certificates. Those it has stay as they
// are, unless they are to be revoked too.
func (o *Console) Retire(ctx context.Context, who Caller, id string, revoke bool) (Device, error) {
	var retired protocol.Device
	_, err := o.withdraw(ctx, who, "device.retire", id, func(tx *store.Tx, e *audit.Entry, w *withdrawal) error {
		d, err := find(ctx, tx, id)
		if err != nil {
			return err
		}
		e.Object, e.Detail["serial"], e.Detail["slot"], e.Detail["owner"], e.Detail["revoke"] = string(d.ID), int64(d.Serial), d.Slot, d.Owner, revoke
		if d.State == protocol.DeviceLost {
			return bad("device %s is lost, which is for good", d.ID)
		}
		if err := w.end(tx, d, protocol.DeviceRetired); err != nil {
			return err
		}
		if revoke {
			w.devices = []protocol.Device{d}
			w.reason = func(cert.Certificate, protocol.Device) cert.Reason { return cert.CessationOfOperation }
		}
		retired, err = tx.Device(ctx, d.ID)
		return err
	})
	if err != nil {
		return Device{}, err
	}
	return o.view(ctx, retired)
}

// RevokePerson revokes all that a person's devices hold, of whatever state, and
// ends the orders they have under way. The devices stay as they are, and may
// bring others.
func (o *Console) RevokePerson(ctx context.Context, who Caller, name string, reason cert.Reason) (Withdrawn, error) {
	return o.withdraw(ctx, who, "person.revoke", name, func(tx *store.Tx, e *audit.Entry, w *withdrawal) error {
		owner, err := protocol.ParseOwner(name)
		if err != nil {
			return err
		}
		e.Object, e.Detail["reason"] = owner, int(reason)
		if !reason.Valid() {
			return badReason(reason)
		}
		w.reason = func(cert.Certificate, protocol.Device) cert.Reason { return reason }
		if w.devices, err = every(ctx, tx, store.DeviceFilter{Owner: owner}); err == nil && len(w.devices) == 0 {
			return protocol.NewProblem(protocol.Malformed, "no device of %q is enrolled, nor ever was", owner).WithStatus(404)
		}
		for _, d := range w.devices {
			if err == nil { // what is being recorded is waited for
				_, err = tx.HoldSubject(d.Subject())
			}
		}
		return err
	})
}

// withdrawal revokes what devices hold, a batch at a time.
type withdrawal struct {
	devices []protocol.Device
	reason  func(cert.Certificate, protocol.Device) cert.Reason
	action  string
	actor   Caller
	ended   []protocol.Device // whose state changed
	done    Withdrawn
	at      int         // the device whose turn it is
	after   cert.Serial // the last one of it
}

// batch is how many certificates one transaction revokes: with SQLite all who
// write wait for it.
const batch = 500

// withdraw is a call whose first transaction says what is to go, and revokes
// the first batch. Those of the others follow in their own: none comes in
// between, since the devices are ended already, but for a person's. The answer
// is whole, or an error that says to call again.
func (o *Console) withdraw(ctx context.Context, who Caller, action, object string, begin func(*store.Tx, *audit.Entry, *withdrawal) error) (Withdrawn, error) {
	var w withdrawal
	err := o.operate(ctx, who, action, object, func(tx *store.Tx, e *audit.Entry) error {
		w = withdrawal{action: action, actor: who} // it may run again
		if err := begin(tx, e, &w); err != nil {
			return err
		}
		return w.step(ctx, o, tx)
	})
	if err != nil {
		return Withdrawn{}, err
	}
	for w.at < len(w.devices) {
		var next withdrawal
		err := o.db.Update(ctx, func(tx *store.Tx) error {
			next = w
			return next.step(ctx, o, tx)
		})
		if err != nil {
			return Withdrawn{}, protocol.NewProblem(protocol.ServerInternal, "%d certificates are revoked, and others are not yet: do it again (%v)", len(w.done.Revoked), err)
		}
		w = next
	}
	w.done.Devices, err = o.views(ctx, w.ended)
	return w.done, err
}

// end ends a device, if it hasn't been.
func (w *withdrawal) end(tx *store.Tx, d protocol.Device, state protocol.DeviceState) error {
	changed, err := tx.EndDevice(d.ID, state)
	if changed {
		d.State, d.EndedAt = state, tx.Now()
		w.ended = append(w.ended, d)
	}
	return err
}

// step takes the next batch.
func (w *withdrawal) step(ctx context.Context, o *Console, tx *store.Tx) error {
	for taken := 0; w.at < len(w.devices); w.at, w.after = w.at+1, "" {
		d := w.devices[w.at]
		list, err := tx.Certificates(ctx, store.CertificateFilter{Subject: d.Subject(), NotAfterFrom: tx.Now(), After: w.after, Limit: batch})
		if err != nil {
			return err
		}
		for _, c := range list {
			if err := w.take(o, tx, c, d); err != nil {
				return err
			}
			w.after = c.Serial
		}
		if taken += len(list); taken >= batch {
			return nil // the rest, if there is any, later
		}
	}
	return nil
}

// take revokes one certificate; one that is only planned never will be one.
func (w *withdrawal) take(o *Console, tx *store.Tx, c cert.Certificate, d protocol.Device) error {
	reason := w.reason(c, d)
	e := audit.Entry{
		Action: "certificate.revoke", Actor: "operator:" + w.actor.Name, Directory: c.Directory, Object: string(c.Serial),
		Detail: map[string]any{"reason": int(reason), "names": protocol.Values(c.Names), "subject": c.Subject, "by": w.action},
	}
	w.actor.mark(&e)
	if c.State != cert.Issued {
		p := protocol.NewProblem(protocol.Unauthorized, "the certificates of the device it rests on were withdrawn")
		if ok, err := tx.FailOrder(c.Order, p); err != nil || !ok {
			return err
		}
		if _, err := tx.DropPlan(c.Serial); err != nil {
			return err
		}
		e.Action, e.Denied = "certificate.issue", p.Error()
		return tx.Audit(e)
	}
	revocable := c.Format == cert.OpenSSH || revocableX509(c.DER)
	if !revocable {
		w.done.Irrevocable = append(w.done.Irrevocable, c)
	}
	if !c.Revoked.At.IsZero() {
		return nil
	}
	err := o.authority.Withdraw(tx, c, reason)
	if p, ok := errors.AsType[*protocol.Problem](err); ok && p.Type == protocol.AlreadyRevoked {
		return nil // by somebody else, since it was read
	}
	if err != nil {
		return err
	}
	if revocable {
		c.Revoked = cert.Revoked{At: tx.Now(), Reason: reason}
		w.done.Revoked = append(w.done.Revoked, c)
	}
	return tx.Audit(e)
}

// revocableX509 reports whether who relies on a certificate can learn that it
// was revoked: by what it says itself, whatever the profile says by now.
func revocableX509(der []byte) bool {
	c, err := x509.ParseCertificate(der)
	return err == nil && (len(c.CRLDistributionPoints) > 0 || len(c.OCSPServer) > 0)
}

func badReason(r cert.Reason) error {
	return protocol.NewProblem(protocol.BadRevocationReason, "reason %d may not be given; use 0, 1, 3, 4, 5 or 9", int(r))
}
