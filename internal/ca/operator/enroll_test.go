package operator

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

func TestEnroll(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m := w.trusting(t)
		s := m.stick(4711)
		d := w.enroll(t, s, "alice", protocol.Identities{
			Names: []string{"Alice.People.Example"}, OtherNames: []string{"ci.alice.example"}, Principals: []string{"alice", "root"}, MaxLifetime: time.Hour,
		})
		if d.Serial != 4711 || d.Slot != "9a" || d.Firmware != "5.7.4" || d.PINPolicy != "once" || d.TouchPolicy != "always" || d.KeyType != cert.P256 ||
			d.Names[0] != "alice.people.example" || d.State != protocol.DeviceActive || d.EnrolledBy != "uid:0" {
			t.Errorf("%+v", d)
		}
		kept, err := w.ShowDevice(t.Context(), auditor, string(d.ID))
		if err != nil || kept.KeyHash != d.KeyHash || kept.MaxLifetime != time.Hour || !bytes.Equal(kept.Attestation, d.Attestation) || kept.KeyType != cert.P256 {
			t.Errorf("%+v, %v", kept, err)
		}
		if kept.KeyHash != hashOf(t, s.key) {
			t.Error("another key was kept")
		}
		all := w.entries(t, store.AuditFilter{Action: "device.enroll", Object: string(d.ID)})
		if len(all) != 1 || all[0].Entry.Detail["owner"] != "alice" || fmt.Sprint(all[0].Entry.Detail["serial"]) != "4711" || all[0].Entry.Detail["key"] != d.KeyHash {
			t.Errorf("%+v", all)
		}
		// Other kinds of keys, for the enroller too.
		for n, kind := range []string{"ed25519", "rsa"} {
			s := m.stick(int64(n + 1))
			s.key = generate(t, kind)
			if _, err := w.Enroll(t.Context(), Caller{Name: "x", Role: Enroller}, s.request("alice", w.now(), named("alice.people.example"))); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	})
}

// Each thing that isn't as it should be is refused, and the log says which.
func TestEnrollRefuses(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m := w.trusting(t)
		taken := w.enroll(t, m.stick(1), "bob", protocol.Identities{Names: []string{"bob.example"}, OtherNames: []string{"ci.bob.example"}})
		if _, err := w.AddAdvisory(t.Context(), administrator, protocol.Advisory{ID: "YSA-1", First: "5.0.0", Last: "5.6.255"}); err != nil {
			t.Fatal(err)
		}
		lost := m.stick(3)
		if d := w.enroll(t, lost, "bob", named("bob.example")); true {
			if _, err := w.Lost(t.Context(), administrator, string(d.ID)); err != nil {
				t.Fatal(err)
			}
		}
		blocked := m.stick(5)
		good := func(*stick) {}
		with := func(change func(*NewDevice)) func(*NewDevice) { return change }
		two := func(a, b []byte) []byte { return append(append([]byte{}, a...), b...) }
		for name, test := range map[string]struct {
			make func(*stick)
			ask  func(*NewDevice)
			says string
		}{
			"another maker":          {func(s *stick) { s.by = newMaker(t) }, nil, "isn't signed by a trusted issuer"},
			"no attestation":         {good, with(func(n *NewDevice) { n.Attestation = nil }), "there are 0"},
			"one certificate":        {good, with(func(n *NewDevice) { n.Attestation = n.Attestation[:bytes.Index(n.Attestation, []byte("-----END"))+25] }), "there are 1"},
			"three certificates":     {good, with(func(n *NewDevice) { n.Attestation = two(n.Attestation, n.Attestation) }), "there are 3"},
			"text before":            {good, with(func(n *NewDevice) { n.Attestation = two([]byte("hello\n"), n.Attestation) }), "nothing else"},
			"no PEM":                 {good, with(func(n *NewDevice) { n.Attestation = []byte("hello") }), "in PEM and nothing else"},
			"too long":               {good, with(func(n *NewDevice) { n.Attestation = make([]byte, maxAttestation+1) }), "longer than"},
			"certificates swapped":   {good, with(func(n *NewDevice) { n.Attestation = swapped(n.Attestation) }), "missing"},
			"another's statement":    {good, with(func(n *NewDevice) { n.Attestation = mixed(n.Attestation, m.stick(99).attestation()) }), "isn't the device's"},
			"PIN never":              {func(s *stick) { s.pin = 1 }, nil, "PIN policy is \"never\""},
			"touch never":            {func(s *stick) { s.touch = 1 }, nil, "touch policy is \"never\""},
			"touch cached":           {func(s *stick) { s.touch = 3 }, nil, "touch policy is \"cached\""},
			"P-521":                  {nil, nil, "not allowed"},
			"firmware":               {func(s *stick) { s.firmware = []byte{5, 6, 0} }, nil, "YSA-1 refuses firmware 5.6.0"},
			"imposter":               {good, with(func(n *NewDevice) { n.Possession = sign(m.stick(1).key, n, "alice") }), "isn't the key's"},
			"for another person":     {good, with(func(n *NewDevice) { n.Owner = "mallory" }), "isn't the key's"},
			"for another time":       {good, with(func(n *NewDevice) { n.MadeAt = n.MadeAt.Add(-time.Minute) }), "isn't the key's"},
			"no signature":           {good, with(func(n *NewDevice) { n.Possession = nil }), "isn't the key's"},
			"old signature":          {good, with(func(n *NewDevice) { n.MadeAt = n.MadeAt.Add(-8 * 24 * time.Hour) }), "more than 7 days"},
			"signature to come":      {good, with(func(n *NewDevice) { n.MadeAt = n.MadeAt.Add(6 * time.Minute) }), "set the clock"},
			"no owner":               {good, with(func(n *NewDevice) { n.Owner = "Alice Smith" }), "not a person's name"},
			"a wildcard":             {good, with(func(n *NewDevice) { n.Names = []string{"*.example"} }), "wildcard"},
			"no name":                {good, with(func(n *NewDevice) { n.Names = []string{"a..b"} }), "a..b"},
			"a name twice":           {good, with(func(n *NewDevice) { n.Names = []string{"a.example", "A.example"} }), "twice"},
			"a name of both kinds":   {good, with(func(n *NewDevice) { n.OtherNames = n.Names }), "both"},
			"another person's name":  {good, with(func(n *NewDevice) { n.Names = []string{"bob.example"} }), "belongs to bob"},
			"a pattern as principal": {good, with(func(n *NewDevice) { n.Principals = []string{"*"} }), "principal"},
			"a principal twice":      {good, with(func(n *NewDevice) { n.Principals = []string{"a", "a"} }), "twice"},
			"a long life":            {good, with(func(n *NewDevice) { n.MaxLifetime = maxLifetime + 1 }), "lifetime"},
			"a moment's life":        {good, with(func(n *NewDevice) { n.MaxLifetime = time.Second / 2 }), "lifetime"},
			"a negative life":        {good, with(func(n *NewDevice) { n.MaxLifetime = -1 }), "lifetime"},
			"many names":             {good, with(func(n *NewDevice) { n.Names = make([]string, maxNames+1) }), "at most 100"},
			"many principals":        {good, with(func(n *NewDevice) { n.Principals = make([]string, maxNames+1) }), "at most 100"},
			"its slot is taken":      {func(s *stick) { s.serial = 1 }, nil, "retire that device first"},
			"a lost key":             {func(s *stick) { s.key = lost.key; s.serial = 3 }, nil, "which is lost"},
			"a blocked key":          {func(s *stick) { s.key = blocked.key }, nil, "compromised"},
			"an ed25519 for SSH":     {nil, with(func(n *NewDevice) { n.Principals = []string{"alice"} }), "Ed25519"},
		} {
			t.Run(name, func(t *testing.T) {
				s := m.stick(2)
				switch name {
				case "P-521":
					s.key = generate(t, "p521")
				case "an ed25519 for SSH":
					s.key = generate(t, "ed25519")
				case "a blocked key":
					err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.BlockKey(hashOf(t, blocked.key), "stolen") })
					if err != nil {
						t.Fatal(err)
					}
				}
				if test.make != nil {
					test.make(s)
				}
				var n NewDevice
				if name == "P-521" { // which can't sign a message of ours
					n = NewDevice{Owner: "alice", Attestation: s.attestation().PEM(), MadeAt: w.now(), Possession: []byte{1}}
				} else {
					n = s.request("alice", w.now(), named("alice.example"))
				}
				if test.ask != nil {
					test.ask(&n)
				}
				before := len(w.entries(t, store.AuditFilter{Action: "device.enroll"}))
				_, err := w.Enroll(t.Context(), administrator, n)
				wants(t, err, protocol.Malformed, test.says)
				all := w.entries(t, store.AuditFilter{Action: "device.enroll"})
				if len(all) != before+1 || all[before].Entry.Denied != err.Error() || all[before].Entry.Actor != "operator:uid:0" {
					t.Errorf("%d entries, the last %+v", len(all)-before, all[len(all)-1])
				}
			})
		}
		for name, i := range map[string]protocol.Identities{
			"own for other": {OtherNames: []string{"bob.example"}}, "other for own": {Names: []string{"ci.bob.example"}},
		} {
			_, err := w.Enroll(t.Context(), administrator, m.stick(6).request("bob", w.now(), i))
			t.Log(name)
			wants(t, err, protocol.Malformed, "is a name for")
		}
		if list, err := w.Devices(t.Context(), auditor, store.DeviceFilter{}); err != nil || len(list) != 2 || list[0].ID != taken.ID {
			t.Errorf("%+v, %v", list, err)
		}
		// Without makers nothing is taken.
		w.rules.Issuers = nil
		_, err := w.Enroll(t.Context(), administrator, m.stick(7).request("alice", w.now(), named("alice.example")))
		wants(t, err, protocol.Malformed, "trusted issuer")
	})
}

func swapped(pem []byte) []byte {
	end := bytes.Index(pem[1:], []byte("-----BEGIN")) + 1
	return append(append([]byte{}, pem[end:]...), pem[:end]...)
}

func mixed(pem []byte, other *yubikey.Attestation) []byte {
	end := bytes.Index(pem[1:], []byte("-----BEGIN")) + 1
	with := other.PEM()
	return append(append([]byte{}, with[:bytes.Index(with[1:], []byte("-----BEGIN"))+1]...), pem[end:]...)
}

func FuzzReadAttestation(f *testing.F) {
	s := newMaker(f).stick(7)
	f.Add(s.attestation().PEM())
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := readAttestation(text)
		if err != nil {
			return
		}
		again, err := readAttestation(a.PEM())
		if err != nil || again.Serial != a.Serial || again.Slot != a.Slot {
			t.Errorf("%+v comes back as %+v, %v", a, again, err)
		}
	})
}

// What the server was told to take, it takes.
func TestOtherPolicies(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m := w.trusting(t)
		w.rules.PINPolicies, w.rules.TouchPolicies = []string{"never"}, []string{"cached", "never"}
		s := m.stick(1)
		s.pin, s.touch = 1, 3
		w.enroll(t, s, "alice", named("alice.example"))
		_, err := w.Enroll(t.Context(), administrator, m.stick(2).request("alice", w.now(), named("alice.example")))
		wants(t, err, protocol.Malformed, "PIN policy")
	})
}

// An enroller can't enroll a device of its own for an operator's name.
func TestReservedNames(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m := w.trusting(t)
		w.rules.Reserved = func(name string) bool { return name == "root.example" || name == "root" }
		enroller := Caller{Name: "e", Role: Enroller}
		for owner, i := range map[string]protocol.Identities{
			"mallory": named("mallory.example", "root.example"), "eve": {OtherNames: []string{"root.example"}}, "root": named("mine.example"),
		} {
			_, err := w.Enroll(t.Context(), enroller, m.stick(1).request(owner, w.now(), i))
			wants(t, err, protocol.Unauthorized, "an operator's name")
		}
		w.enroll(t, m.stick(1), "root", named("root.example"))
	})
}

func TestSetIdentities(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m, ctx := w.trusting(t), t.Context()
		d := w.enroll(t, m.stick(77), "alice", named("alice.example"))
		w.enroll(t, m.stick(78), "bob", named("bob.example"))
		got, err := w.SetIdentities(ctx, administrator, "77", protocol.Identities{OtherNames: []string{"CI.alice.example"}, Principals: []string{"alice"}})
		if err != nil || got.ID != d.ID || len(got.Names) != 0 || got.OtherNames[0] != "ci.alice.example" || got.KeyType != cert.P256 {
			t.Errorf("%+v, %v", got, err)
		}
		if kept, err := w.db.Device(ctx, d.ID); err != nil || len(kept.Names) != 0 || kept.Principals[0] != "alice" {
			t.Errorf("%+v, %v", kept, err)
		}
		all := w.entries(t, store.AuditFilter{Action: "device.identities"})
		if len(all) != 1 || all[0].Entry.Object != string(d.ID) || !strings.Contains(fmt.Sprint(all[0].Entry.Detail["before"]), "alice.example") {
			t.Errorf("%+v", all)
		}
		// The name stays alice's.
		_, err = w.SetIdentities(ctx, administrator, "78", named("alice.example"))
		wants(t, err, protocol.Malformed, "belongs to alice")
		if _, err = w.SetIdentities(ctx, administrator, "77", named("alice.example")); err != nil {
			t.Error(err)
		}
		_, err = w.SetIdentities(ctx, administrator, "nope", named("alice.example"))
		wants(t, err, protocol.Malformed, "no such device")
		ed := m.stick(79)
		ed.key = generate(t, "ed25519")
		w.enroll(t, ed, "bob", named("bob.example"))
		_, err = w.SetIdentities(ctx, administrator, "79", protocol.Identities{Principals: []string{"bob"}})
		wants(t, err, protocol.Malformed, "Ed25519")
		if _, err := w.Retire(ctx, administrator, "79", false); err != nil {
			t.Fatal(err)
		}
		_, err = w.SetIdentities(ctx, administrator, "79", named("bob.example"))
		wants(t, err, protocol.Malformed, "retired")
	})
}

// Of many replicas that enroll one key, or one name for several persons, one
// does.
func TestEnrollRaces(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m := w.trusting(t)
		race := func(n int, request func(n int) NewDevice) {
			t.Helper()
			var wins atomic.Int64
			var all sync.WaitGroup
			for i := range n {
				r := request(i)
				all.Go(func() {
					_, err := New(w.authority, w.db, w.now).trust(w.rules).Enroll(t.Context(), administrator, r)
					if err == nil {
						wins.Add(1)
					} else if protocol.AsProblem(err).Type != protocol.Malformed {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if wins.Load() != 1 {
				t.Errorf("%d won", wins.Load())
			}
		}
		s := m.stick(1)
		race(8, func(int) NewDevice { return s.request("alice", w.now(), named("alice.example")) })
		race(8, func(n int) NewDevice {
			return m.stick(int64(10+n)).request(fmt.Sprint("person", n), w.now(), named("b.example", "a.example"))
		})
	})
}

func (o *Console) trust(e Enrolment) *Console {
	o.Enrolment = func() Enrolment { return e }
	return o
}
