package storetest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// NewDevice makes up the n-th device, of a YubiKey of its own.
func NewDevice(n int, owner string, now time.Time) protocol.Device {
	key := fmt.Appendf(nil, "key %d of %s", n, owner)
	hash := sha256.Sum256(key)
	return protocol.Device{
		ID: protocol.NewID[protocol.DeviceID](now), Owner: owner, State: protocol.DeviceActive, Key: key, KeyHash: hex.EncodeToString(hash[:]),
		Serial: 1000 + uint32(n), Slot: "9a", Firmware: "5.7.1", FormFactor: 0x83, PINPolicy: "once", TouchPolicy: "always", Attestation: []byte("PEM"),
		EnrolledAt: now, EnrolledBy: "uid:0",
	}
}

func (f *fixture) device(n int, owner string) protocol.Device {
	f.t.Helper()
	f.Add(time.Millisecond)
	d := NewDevice(n, owner, f.Now())
	d.Names = []string{fmt.Sprintf("%s-%d.people.example", owner, n)}
	f.update(func(tx *store.Tx) error { return tx.InsertDevice(d) })
	return d
}

func testDevices(t *testing.T, f *fixture) {
	ctx := t.Context()
	d := NewDevice(1, "alice", f.Now())
	d.Serial, d.MaxLifetime = 1<<32-1, 90*time.Minute
	d.Names, d.OtherNames, d.Principals = []string{"a.example", "b.example"}, []string{"c.example"}, []string{"alice", "root"}
	f.update(func(tx *store.Tx) error { return tx.InsertDevice(d) })
	equal(t, must(f.db.Device(ctx, d.ID)).or(t), d)
	equal(t, must(f.db.DeviceByKey(ctx, d.KeyHash)).or(t), d)
	_, err := f.db.Device(ctx, "none")
	wantError(t, err, store.ErrNotFound)

	insert := func(d protocol.Device) error {
		return f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertDevice(d) })
	}
	same, slot := NewDevice(2, "bob", f.Now()), NewDevice(3, "bob", f.Now())
	same.KeyHash = d.KeyHash
	wantError(t, insert(same), store.ErrConflict)
	slot.Serial = d.Serial
	wantError(t, insert(slot), store.ErrConflict)

	d.Names, d.OtherNames, d.Principals, d.MaxLifetime = nil, []string{"d.example"}, []string{awkward}, 0
	set := func(tx *store.Tx) (bool, error) { return tx.SetIdentities(d.ID, d.Identities) }
	f.changed(true, set)
	equal(t, must(f.db.Device(ctx, d.ID)).or(t), d)

	hold := func(tx *store.Tx) (bool, error) { return tx.HoldSubject(d.Subject()) }
	end := func(s protocol.DeviceState) func(tx *store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.EndDevice(d.ID, s) }
	}
	f.changed(true, hold)
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.HoldSubject("pod:something") })
	f.changed(true, end(protocol.DeviceRetired))
	f.changed(false, end(protocol.DeviceRetired))
	f.changed(false, set)
	f.changed(false, hold)
	if err := insert(slot); err != nil {
		t.Fatal("a slot whose key was retired takes no other:", err)
	}
	wantError(t, insert(same), store.ErrConflict) // in whatever state
	f.changed(true, end(protocol.DeviceLost))
	f.changed(false, end(protocol.DeviceRetired))
	if d := must(f.db.Device(ctx, d.ID)).or(t); d.State != protocol.DeviceLost || d.EndedAt.IsZero() {
		t.Fatalf("%+v", d)
	}
}

func testDeviceSearch(t *testing.T, f *fixture) {
	ctx := t.Context()
	a, b, c := f.device(1, "alice"), f.device(2, "alice"), f.device(3, "bob")
	f.update(func(tx *store.Tx) error {
		_, err := tx.EndDevice(b.ID, protocol.DeviceLost)
		_, name := tx.SetIdentities(c.ID, protocol.Identities{OtherNames: []string{"ci.bob.example"}, Principals: []string{"deploy", "bob"}})
		return errors.Join(err, name)
	})
	for name, test := range map[string]struct {
		filter store.DeviceFilter
		want   []protocol.DeviceID
	}{
		"all":           {store.DeviceFilter{}, []protocol.DeviceID{a.ID, b.ID, c.ID}},
		"page":          {store.DeviceFilter{After: a.ID, Limit: 1}, []protocol.DeviceID{b.ID}},
		"owner":         {store.DeviceFilter{Owner: "alice"}, []protocol.DeviceID{a.ID, b.ID}},
		"state":         {store.DeviceFilter{State: protocol.DeviceActive}, []protocol.DeviceID{a.ID, c.ID}},
		"name":          {store.DeviceFilter{Name: a.Names[0]}, []protocol.DeviceID{a.ID}},
		"other name":    {store.DeviceFilter{Name: "ci.bob.example"}, []protocol.DeviceID{c.ID}},
		"principal":     {store.DeviceFilter{Name: "deploy"}, []protocol.DeviceID{c.ID}},
		"part":          {store.DeviceFilter{Name: "bob.example"}, nil},
		"serial":        {store.DeviceFilter{Serial: b.Serial}, []protocol.DeviceID{b.ID}},
		"owner, serial": {store.DeviceFilter{Owner: "bob", Serial: b.Serial}, nil},
	} {
		var got []protocol.DeviceID
		for _, d := range must(f.db.Devices(ctx, test.filter)).or(t) {
			got = append(got, d.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	var lost []string
	if err := f.db.LostKeys(ctx, func(d protocol.Device) error { lost = append(lost, d.KeyHash); return nil }); err != nil {
		t.Fatal(err)
	}
	equal(t, lost, []string{b.KeyHash})
	enough := errors.New("enough")
	wantError(t, f.db.LostKeys(ctx, func(protocol.Device) error { return enough }), enough)

	// What rests on devices.
	x, y, z := f.certificate("x.example"), f.certificate("y.example"), f.certificate("z.example")
	x.Serial, y.Serial, z.Serial = "01", "02", "03"
	x.Subject, y.Subject, z.Subject, y.Format = a.Subject(), b.Subject(), "pod:z", cert.OpenSSH
	for _, c := range []cert.Certificate{x, y, z, f.certificate("other.example")} {
		f.insertCertificate(c)
	}
	equal(t, f.serials(store.CertificateFilter{Subject: a.Subject()}), []cert.Serial{"01"})
	equal(t, f.serials(store.CertificateFilter{Subject: "pod:z"}), []cert.Serial{"03"})
	equal(t, f.serials(store.CertificateFilter{Owner: "alice"}), []cert.Serial{"01", "02"})
	equal(t, f.serials(store.CertificateFilter{Owner: "bob"}), nil)
	equal(t, f.serials(store.CertificateFilter{Format: cert.OpenSSH}), []cert.Serial{"02"})
}

func testDeviceNames(t *testing.T, f *fixture) {
	take := func(name, owner, proof, wantOwner, wantProof string) {
		t.Helper()
		f.update(func(tx *store.Tx) error {
			o, p, err := tx.TakeName(name, owner, proof)
			equal(t, []string{o, p}, []string{wantOwner, wantProof})
			return err
		})
	}
	take("a.example", "alice", store.OwnKey, "alice", store.OwnKey)
	take("a.example", "bob", store.OwnKey, "alice", store.OwnKey)
	take("a.example", "alice", store.OtherKey, "alice", store.OwnKey)
	take("b.example", "bob", store.OtherKey, "bob", store.OtherKey)
	gone := errors.New("gone")
	wantError(t, f.db.Update(t.Context(), func(tx *store.Tx) error {
		_, _, err := tx.TakeName("c.example", "alice", store.OwnKey)
		return errors.Join(err, gone)
	}), gone)
	take("c.example", "bob", store.OwnKey, "bob", store.OwnKey)
}

func testAdvisories(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := protocol.Advisory{ID: "YSA-2024-03", First: "5.0.0", Last: "5.6.9", CreatedAt: f.Now()}
	k := protocol.WatchedKey{Fingerprint: "SHA256:abc", Label: awkward, CreatedAt: f.Now()}
	f.update(func(tx *store.Tx) error { return errors.Join(tx.InsertAdvisory(a), tx.InsertWatchedKey(k)) })
	equal(t, must(f.db.Advisories(ctx)).or(t), []protocol.Advisory{a})
	equal(t, must(f.db.WatchedKeys(ctx)).or(t), []protocol.WatchedKey{k})
	equal(t, must(f.db.WatchedKey(ctx, k.Fingerprint)).or(t), k)
	wantError(t, f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertAdvisory(a) }), store.ErrConflict)
	wantError(t, f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertWatchedKey(k) }), store.ErrConflict)
	for _, want := range []bool{true, false} {
		f.changed(want, func(tx *store.Tx) (bool, error) { return tx.DeleteAdvisory(a.ID) })
		f.changed(want, func(tx *store.Tx) (bool, error) { return tx.DeleteWatchedKey(k.Fingerprint) })
	}
	_, err := f.db.WatchedKey(ctx, k.Fingerprint)
	wantError(t, err, store.ErrNotFound)
}

// testDeviceStands: what rests on a device doesn't stand once that has ended.
func testDeviceStands(t *testing.T, f *fixture) {
	account := f.insertAccount(f.account("people", "thumb"))
	d := f.device(1, "alice")
	o, list := f.order(account.ID, dns("a.example"), dns("b.example"))
	f.insertOrder(o)
	for _, z := range list {
		z.Status, z.Attempt.Type, z.Subject = protocol.AuthorizationValid, protocol.YubiKey01, d.Subject()
		f.changed(true, func(tx *store.Tx) (bool, error) { return tx.FinishValidation(z) })
	}
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.PlanOrder(o.ID, cert.NewSerial(), "person") })
	stands := func() store.Standing { return must(f.db.StillStands(t.Context(), o.ID, f.Now())).or(t) }
	if s := stands(); !s.OK() || s.Private != 2 {
		t.Fatalf("%+v", s)
	}
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.EndDevice(d.ID, protocol.DeviceRetired) })
	if s := stands(); s.OK() || s.Lost != 2 {
		t.Fatalf("%+v", s)
	}
}

// testDeviceRaces: of many who enroll a key, or end a device, one does; and a
// certificate that is recorded while its device is being lost is seen by who
// loses it, or not recorded.
func testDeviceRaces(t *testing.T, f *fixture) {
	ctx := t.Context()
	d := NewDevice(1, "alice", f.Now())
	for name, test := range map[string]func(int) error{
		"key": func(int) error {
			other := d
			other.ID = protocol.NewID[protocol.DeviceID](f.Now())
			return f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertDevice(other) })
		},
		"slot": func(n int) error {
			other := NewDevice(100+n, "alice", f.Now())
			other.Serial = 7
			return f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertDevice(other) })
		},
		"name": func(n int) error {
			return f.db.Update(ctx, func(tx *store.Tx) error {
				owner, _, err := tx.TakeName("a.example", fmt.Sprint("person", n), store.OwnKey)
				if err == nil && owner != fmt.Sprint("person", n) {
					err = store.ErrConflict
				}
				return err
			})
		},
	} {
		wins := race(func(n int) bool {
			err := test(n)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				t.Error(name, err)
			}
			return err == nil
		})
		if wins != 1 {
			t.Errorf("%s: %d won, want 1", name, wins)
		}
	}
	lost := must(f.db.DeviceByKey(ctx, d.KeyHash)).or(t)
	if wins := race(func(int) (won bool) {
		err := f.db.Update(ctx, func(tx *store.Tx) (err error) { won, err = tx.EndDevice(lost.ID, protocol.DeviceLost); return err })
		return err == nil && won
	}); wins != 1 {
		t.Errorf("%d called the device lost, want 1", wins)
	}
	var all sync.WaitGroup
	for n := range racers {
		d, c := f.device(200+n, "bob"), f.certificate("bob.example")
		c.Subject = d.Subject()
		f.insertCertificate(c)
		recorded, once := make(chan struct{}), sync.Once{}
		pause := func() {
			once.Do(func() { close(recorded) })
			if n == 0 { // so that who loses it surely comes before the commit
				time.Sleep(100 * time.Millisecond)
			}
		}
		all.Go(func() { f.recordCertificate(t, c, pause) })
		all.Go(func() {
			if n == 0 {
				<-recorded
			}
			f.lose(t, d)
		})
	}
	all.Wait()
	for _, c := range must(f.db.Certificates(ctx, store.CertificateFilter{Owner: "bob"})).or(t) {
		if c.State == cert.Issued && c.Revoked.At.IsZero() {
			t.Errorf("certificate %s of a lost device was recorded, and not revoked", c.Serial)
		}
	}
}

// recordCertificate does so as the authority does, with a pause before it is
// committed.
func (f *fixture) recordCertificate(t *testing.T, c cert.Certificate, pause func()) {
	if err := f.db.Update(t.Context(), func(tx *store.Tx) error {
		if ok, err := tx.HoldSubject(c.Subject); err != nil || !ok {
			return err
		}
		_, err := tx.IssueCertificate(c.Serial, []byte("signed"))
		pause()
		return err
	}); err != nil {
		t.Error(err)
	}
}

// lose ends a device and revokes what was issued for it.
func (f *fixture) lose(t *testing.T, d protocol.Device) {
	if err := f.db.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.EndDevice(d.ID, protocol.DeviceLost); err != nil {
			return err
		}
		list, err := tx.Certificates(t.Context(), store.CertificateFilter{Subject: d.Subject()})
		for _, c := range list {
			if c.State == cert.Issued && err == nil {
				_, err = tx.RevokeCertificate(c.Serial, cert.Revoked{At: tx.Now()})
			}
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
