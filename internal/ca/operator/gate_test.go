package operator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

var grants = []Grant{
	{"people", "operators", "Alice.People.Internal", Administrator},
	{"people", "operators", "bob", Auditor},
	{"people", "hosts", "web.prod.internal", Reporter},
}

// shown makes a certificate and the record of it, which edit may change.
func (w *world) shown(t *testing.T, edit func(*cert.Certificate)) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := cert.NewSerial()
	template := &x509.Certificate{SerialNumber: serial.Big(), NotBefore: w.now().Add(-time.Hour), NotAfter: w.now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c := cert.Certificate{
		Serial: serial, Format: cert.X509, State: cert.Issued, Issuer: "people", Profile: "operators", DER: der,
		Names:     []protocol.Identifier{{Type: protocol.DNS, Value: "alice.people.internal"}},
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, PlannedAt: w.now(),
	}
	edit(&c)
	err = w.db.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.InsertCertificate(c, time.Time{}); err != nil || c.Revoked.At.IsZero() {
			return err
		}
		_, err := tx.RevokeCertificate(c.Serial, c.Revoked)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// device enrolls one of bob's in a state.
func (w *world) device(t *testing.T, state protocol.DeviceState, names ...string) string {
	t.Helper()
	d := protocol.Device{
		ID: protocol.NewID[protocol.DeviceID](w.now()), Owner: "bob", State: state, Key: []byte{1}, Serial: 4711, Slot: "9" + string(cert.NewSerial()), Identities: named(names...),
		KeyHash: string(cert.NewSerial()) + string(cert.NewSerial()), EnrolledAt: w.now(),
	}
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertDevice(d) }); err != nil {
		t.Fatal(err)
	}
	return d.Subject()
}

// Who holds a certificate is an operator only by the CA's own record of it,
// and is told nothing otherwise.
func TestGate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := NewGate(w.db, w.now)
		const alice = "alice.people.internal"
		active, retired, lost := w.device(t, protocol.DeviceActive, alice), w.device(t, protocol.DeviceRetired, alice), w.device(t, protocol.DeviceLost, alice)
		other, vouches := w.device(t, protocol.DeviceActive, "other.internal"), w.device(t, protocol.DeviceActive)
		if err := w.db.Update(t.Context(), func(tx *store.Tx) error {
			id, _ := protocol.DeviceOf(vouches)
			_, err := tx.SetIdentities(id, protocol.Identities{OtherNames: []string{alice}})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		both := func(typ protocol.IdentifierType, value string) []protocol.Identifier {
			return []protocol.Identifier{{Type: protocol.DNS, Value: "other.internal"}, {Type: typ, Value: value}}
		}
		for _, c := range []struct {
			name string
			edit func(*cert.Certificate)
			role Role   // "": refused
			says string // the caller's name, or what is audited
		}{
			{"an operator", func(c *cert.Certificate) { c.Subject = active }, Administrator, "people/operators/Alice.People.Internal"},
			{"for another key", func(c *cert.Certificate) { c.Subject = vouches }, Administrator, "people/operators/Alice.People.Internal"},
			{"a name beside the device's", func(c *cert.Certificate) { c.Subject, c.Names = other, both(protocol.DNS, alice) }, "", `"Alice.People.Internal" is not a name of the certificate's device`},
			{"a person of that name", func(c *cert.Certificate) { c.Subject, c.Names = active, both(protocol.PermanentIdentifier, alice) }, "", `"Alice.People.Internal" is not a name of the certificate's device`},
			{"a person", func(c *cert.Certificate) { c.Subject, c.Names = active, both(protocol.PermanentIdentifier, "bob") }, Auditor, "people/operators/bob"},
			{"a host", func(c *cert.Certificate) { c.Profile, c.Names = "hosts", both(protocol.DNS, "web.prod.internal") }, Reporter, "people/hosts/web.prod.internal"},
			{"a retired device's", func(c *cert.Certificate) { c.Subject = retired }, Administrator, "people/operators/Alice.People.Internal"},
			{"a lost device's", func(c *cert.Certificate) { c.Subject = lost }, "", "the certificate's device is lost"},
			{"an unknown device's", func(c *cert.Certificate) { c.Subject = "device:nobody" }, "", "the certificate's device is not enrolled"},
			{"a pod's", func(c *cert.Certificate) { c.Subject = "pod:x" }, "", "the certificate was not issued to a security key"},
			{"pre-approved", func(c *cert.Certificate) {}, "", "the certificate was not issued to a security key"},
			{"revoked", func(c *cert.Certificate) { c.Subject, c.Revoked.At = active, w.now() }, "", "the certificate is revoked"},
			{"expired", func(c *cert.Certificate) { c.Subject, c.NotAfter = active, w.now().Add(-time.Second) }, "", "the certificate is not valid now"},
			{"not yet", func(c *cert.Certificate) { c.Subject, c.NotBefore = active, w.now().Add(time.Minute) }, "", "the certificate is not valid now"},
			{"only planned", func(c *cert.Certificate) { c.Subject, c.State = active, cert.Planned }, "", "this CA's record of the serial number is of another certificate"},
			{"another one's serial", func(c *cert.Certificate) { c.Subject, c.DER = active, []byte("other") }, "", "this CA's record of the serial number is of another certificate"},
			{"an SSH certificate's", func(c *cert.Certificate) { c.Subject, c.Format = active, cert.OpenSSH }, "", "this CA's record of the serial number is of another certificate"},
			{"unknown", func(c *cert.Certificate) { c.Serial = cert.NewSerial() }, "", "this CA has no record of the certificate"},
			{"another issuer's", func(c *cert.Certificate) { c.Subject, c.Issuer = active, "servers" }, "", `no operator is configured for issuer "servers", profile "operators" and names ["alice.people.internal"]`},
			{"another profile's", func(c *cert.Certificate) { c.Subject, c.Profile = active, "hosts" }, "", `no operator is configured for issuer "people", profile "hosts" and names ["alice.people.internal"]`},
			{"another name's", func(c *cert.Certificate) { c.Subject, c.Names = active, both(protocol.DNS, "x.alice.people.internal") }, "", `no operator is configured for issuer "people", profile "operators" and names ["other.internal" "x.alice.people.internal"]`},
			{"an address's", func(c *cert.Certificate) { c.Subject, c.Names = active, both(protocol.IP, "bob") }, "", `no operator is configured for issuer "people", profile "operators" and names ["other.internal" "bob"]`},
		} {
			leaf := w.shown(t, c.edit)
			who, err := g.Caller(t.Context(), grants, leaf, "192.0.2.1")
			found := w.entries(t, store.AuditFilter{Object: string(cert.SerialOf(leaf.SerialNumber)), Action: "operator.identify"})
			if c.role != "" {
				if err != nil || who.Role != c.role || who.Name != c.says || who.Certificate != cert.SerialOf(leaf.SerialNumber) || len(found) != 0 {
					t.Errorf("%s: %+v, %v, %d entries", c.name, who, err, len(found))
				}
				continue
			}
			wants(t, err, protocol.Unauthorized, "this certificate is not an operator's")
			if who != (Caller{}) || len(found) != 1 || found[0].Entry.Denied != c.says || found[0].Entry.Peer != "192.0.2.1" {
				t.Errorf("%s: %+v, audited as %+v", c.name, who, found)
			}
		}
	})
}

// A certificate that is refused over and over doesn't fill the log.
func TestGateAuditsOnceAMinute(t *testing.T) {
	w := newWorld(t, "sqlite")
	g := NewGate(w.db, w.now)
	leaf := w.shown(t, func(*cert.Certificate) {})
	for range 5 {
		_, err := g.Caller(t.Context(), grants, leaf, "")
		wants(t, err, protocol.Unauthorized, "not an operator's")
	}
	w.ahead.Add(int64(refusalEvery + time.Second))
	_, err := g.Caller(t.Context(), grants, leaf, "")
	wants(t, err, protocol.Unauthorized, "not an operator's")
	if n := len(w.entries(t, store.AuditFilter{Action: "operator.identify"})); n != 2 {
		t.Errorf("%d entries", n)
	}
	for range refusalsAtMost + 10 { // what is remembered is bounded
		g.due(cert.NewSerial())
	}
	if len(g.refused) > refusalsAtMost {
		t.Errorf("%d are remembered", len(g.refused))
	}
	// What can't be recorded isn't answered either.
	w.db.Close()
	if _, err := g.Caller(t.Context(), grants, leaf, ""); err == nil || protocol.AsProblem(err).Type == protocol.Unauthorized {
		t.Errorf("without a database: %v", err)
	}
}

// What a caller with a certificate does is recorded with it and its address.
func TestCallerIsMarked(t *testing.T) {
	w := newWorld(t, "sqlite")
	who := Caller{Name: "people/operators/bob", Role: Auditor, Certificate: "00ff", Peer: "192.0.2.9"}
	if _, err := w.Status(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	found := w.entries(t, store.AuditFilter{Action: "status.show"})
	if len(found) != 1 || found[0].Entry.Actor != "operator:people/operators/bob" || found[0].Entry.Peer != "192.0.2.9" ||
		found[0].Entry.Detail["operator_certificate"] != "00ff" {
		t.Errorf("%+v", found)
	}
	e := audit.Entry{}
	if Caller.mark(who, &e); e.Detail["operator_certificate"] != "00ff" {
		t.Errorf("%+v", e)
	}
}
