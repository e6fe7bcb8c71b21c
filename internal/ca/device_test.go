package ca

import (
	"context"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// enrolled is a device in the registry.
func (w *world) enrolled(t testing.TB, n int) protocol.Device {
	t.Helper()
	d := storetest.NewDevice(n, "alice", w.Now())
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertDevice(d) }); err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) end(ctx context.Context, d protocol.Device, s protocol.DeviceState) error {
	return w.db.Update(ctx, func(tx *store.Tx) error { return done(tx.EndDevice(d.ID, s)) })
}

// after runs do after each Prepare.
func (k *key) after(do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.planned = do
}

// proven orders a name and proves it by the device.
func (a *account) proven(d protocol.Device, name string) OrderView {
	a.t.Helper()
	o := a.order(name)
	if z, err := a.Respond(a.t.Context(), a.Requester, o.Authorizations[0], device01, []byte(d.Subject())); err != nil || z.Status != protocol.AuthorizationValid {
		a.t.Fatalf("%+v, %v", z, err)
	}
	return a.look(o)
}

// A certificate says on which device it rests, also where it had to be planned
// anew.
func TestSubjectIsRecorded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		d := w.enrolled(t, 1)
		a := w.account(t, "devices")
		_, first := a.fetch(a.finalize(a.proven(d, "a.example")))
		stale := true
		w.key.wait(func(context.Context) error {
			if stale {
				stale = false
				return errStale
			}
			return nil
		})
		_, second := a.fetch(a.finalize(a.proven(d, "b.example")))
		held, err := w.db.Certificates(t.Context(), store.CertificateFilter{Owner: "alice"})
		if err != nil || len(held) != 2 || held[0].Subject != d.Subject() || held[1].Subject != d.Subject() || stale {
			t.Errorf("%+v, %v; want %s and %s", held, err, first, second)
		}
	})
}

// A device that is lost or retired before its key is used gets nothing, nor one
// that is while the issuing key works.
func TestDeviceEndsUnderWay(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "devices")
		refused := func(o OrderView, signatures int) {
			t.Helper()
			if o.Status != protocol.OrderInvalid || o.Certificate != "" || !strings.Contains(o.Error.Detail, "the device it rests on") {
				t.Errorf("%s, %v", o.Status, o.Error)
			}
			if n := len(w.key.signatures()); n != signatures {
				t.Errorf("%d signatures, want %d", n, signatures)
			}
		}
		for n, state := range []protocol.DeviceState{protocol.DeviceLost, protocol.DeviceRetired} {
			before, planned, signed := w.enrolled(t, 3*n), w.enrolled(t, 3*n+1), w.enrolled(t, 3*n+2)
			o := a.proven(before, "a.example")
			if err := w.end(t.Context(), before, state); err != nil {
				t.Fatal(err)
			}
			_, err := a.tryFinalize(o)
			wants(t, err, protocol.Unauthorized, "not enrolled any more")

			o = a.proven(planned, "b.example")
			w.key.after(func() { err = w.end(context.Background(), planned, state) })
			refused(a.finalize(o), n)
			w.key.after(nil)
			if err != nil {
				t.Error(err)
			}

			o = a.proven(signed, "c.example")
			w.key.wait(func(ctx context.Context) error { return w.end(ctx, signed, state) })
			refused(a.finalize(o), n+1)
			w.key.wait(nil)
		}
		if held, err := w.db.Certificates(t.Context(), store.CertificateFilter{Owner: "alice"}); err != nil || len(held) != 0 {
			t.Errorf("%+v, %v", held, err)
		}
	})
}
