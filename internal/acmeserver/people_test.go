package acmeserver

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/cert"
	proofs "github.com/chancery-pki/chancery/internal/challenge"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// people is a directory in which devices prove, with the real validators and
// the devices of the database. No name is allowed: the registry says who has
// which, but for dns names what the directory allows is a bound besides.
func (w *world) people(t testing.TB, like ca.Directory) *ca.Directory {
	t.Helper()
	var err error
	if w.maker, err = softcard.NewMaker(); err != nil {
		t.Fatal(err)
	}
	names, err := policy.NewNameSet("*.people.test")
	if err != nil {
		t.Fatal(err)
	}
	devices := proofs.Devices{
		Registry: device.Registry{DB: func() *store.DB { return w.db }}, Issuers: w.maker.Issuers(),
		PINPolicies: []string{"once", "always"}, TouchPolicies: []string{"always"},
	}
	d := like
	d.Policy.Name, d.Policy.Names = "people", policy.Names{Allow: names}
	d.Policy.Challenges = []protocol.ChallengeType{protocol.HTTP01, protocol.YubiKey01, protocol.YubiKey02, protocol.DeviceAttest01}
	d.ChallengeURL = func(id protocol.AuthorizationID, t protocol.ChallengeType) string {
		return ChallengeURL(base, "people", id, t)
	}
	d.Validators = map[protocol.ChallengeType]ca.Validator{
		protocol.HTTP01:         sees{},
		protocol.YubiKey01:      proofs.YubiKey{Type: protocol.YubiKey01, Devices: devices},
		protocol.YubiKey02:      proofs.YubiKey{Type: protocol.YubiKey02, Devices: devices},
		protocol.DeviceAttest01: proofs.DeviceAttest01{Devices: devices},
	}
	d.Policy.Profiles = nil
	for name, types := range map[string][]protocol.ChallengeType{"client": d.Policy.Challenges[1:], "either": d.Policy.Challenges} {
		p := like.Policy.Profiles[0]
		p.Name, p.Usages, p.Challenges = name, []cert.Usage{cert.Client}, types
		d.Policy.Profiles = append(d.Policy.Profiles, p)
	}
	d.Policy.DefaultProfile = "client"
	return &d
}

// person is a user with a device.
type person struct {
	*user
	card *softcard.Card
	key  *softcard.Key
	id   protocol.DeviceID
}

// person enrolls a device of one, with its names, as an operator does.
func (w *world) person(t testing.TB, owner string, serial uint32, change func(*protocol.Device)) *person {
	t.Helper()
	card, err := softcard.New(softcard.Options{Serial: serial, Maker: w.maker})
	if err != nil {
		t.Fatal(err)
	}
	p := &person{user: w.user(t, "people").register(), card: card, id: protocol.NewID[protocol.DeviceID](time.Now())}
	if p.key, err = card.Make(0x9a, softcard.P256, byte(yubikey.PINOnce), byte(yubikey.TouchAlways)); err != nil {
		t.Fatal(err)
	}
	a, err := yubikey.ParseAttestation(p.key.Statement, p.key.Device)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(p.key.Statement.RawSubjectPublicKeyInfo)
	d := protocol.Device{
		ID: p.id, Owner: owner, State: protocol.DeviceActive, Key: p.key.Statement.RawSubjectPublicKeyInfo, KeyHash: hex.EncodeToString(sum[:]),
		Serial: a.Serial, Slot: a.Slot.String(), Firmware: a.Firmware.String(), FormFactor: byte(a.FormFactor),
		PINPolicy: a.PINPolicy.String(), TouchPolicy: a.TouchPolicy.String(), Attestation: a.PEM(),
		Identities: protocol.Identities{Names: []string{owner + ".people.test"}, OtherNames: []string{owner + "-laptop.people.test"}},
		EnrolledAt: time.Now(), EnrolledBy: "test",
	}
	if change != nil {
		change(&d)
	}
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertDevice(d) }); err != nil {
		t.Fatal(err)
	}
	return p
}

// end ends the device.
func (p *person) end(state protocol.DeviceState) {
	p.t.Helper()
	err := p.db.Update(p.t.Context(), func(tx *store.Tx) error { _, err := tx.EndDevice(p.id, state); return err })
	if err != nil {
		p.t.Fatal(err)
	}
}

func (u *user) thumbprint() string {
	sum := sha256.Sum256(toJSON(u.key.jwk())) // RFC 7638: sorted, no spaces
	return b64(sum[:])
}

// names are identifiers: "alice" a person, "a.test" a dns name.
func names(all ...string) (ids []object) {
	for _, n := range all {
		typ := "permanent-identifier"
		if strings.Contains(n, ".") {
			typ = "dns"
		}
		ids = append(ids, object{"type": typ, "value": n})
	}
	return ids
}

// ordered is an order on its way.
type ordered struct {
	url   string
	order object
}

func (u *user) orders(profile string, identifiers ...string) ordered {
	u.t.Helper()
	a := u.post(u.dir+"new-order", object{"identifiers": names(identifiers...), "profile": profile})
	if a.status != 201 {
		u.t.Fatalf("newOrder: %d %s", a.status, a.body)
	}
	return ordered{a.header.Get("Location"), a.object(u.t)}
}

// asked is the n-th authorization's challenge of a type.
func (u *user) asked(o ordered, n int, typ string) object {
	u.t.Helper()
	a := u.post(o.order["authorizations"].([]any)[n].(string), nil)
	for _, c := range a.object(u.t)["challenges"].([]any) {
		if c := c.(object); c["type"] == typ {
			return c
		}
	}
	u.t.Fatalf("no %s in %s", typ, a.body)
	return nil
}

// answers is what a key and its device answer for an account.
func answers(t testing.TB, c object, thumbprint string, key *softcard.Key) object {
	t.Helper()
	if c["type"] == "device-attest-01" {
		return object{"attObj": b64(attObj(t, c["token"].(string)+"."+thumbprint, key))}
	}
	challenge, err := base64.RawURLEncoding.DecodeString(c["challenge"].(string))
	if err != nil {
		t.Fatal(err)
	}
	m, err := yubikey.ResponseMessage(challenge, thumbprint, c["type"].(string), c["url"].(string))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := yubikey.SignMessage(key, m)
	if err != nil {
		t.Fatal(err)
	}
	return object{"signature": b64(signature), "attestation": b64(key.Statement.Raw), "intermediate": b64(key.Device.Raw)}
}

func attObj(t testing.TB, keyAuthorization string, key *softcard.Key) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(keyAuthorization))
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err == nil {
		signature, err = cbor.Marshal(signature)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := cbor.Marshal(map[string]any{"fmt": "step", "attStmt": map[string]any{"alg": -7, "sig": signature, "x5c": [][]byte{key.Statement.Raw, key.Device.Raw}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// proves answers all of an order's challenges.
func (p *person) proves(o ordered, typ string) {
	p.t.Helper()
	for n := range o.order["authorizations"].([]any) {
		c := p.asked(o, n, typ)
		if a := p.post(c["url"].(string), answers(p.t, c, p.thumbprint(), p.key)); a.object(p.t)["status"] != "valid" {
			p.t.Fatalf("%s: %d %s", typ, a.status, a.body)
		}
	}
}

// request is a CSR for a key; a person's name is its CommonName.
func requestBy(t testing.TB, key crypto.Signer, names ...string) string {
	t.Helper()
	template := &x509.CertificateRequest{}
	for _, n := range names {
		if strings.Contains(n, ".") {
			template.DNSNames = append(template.DNSNames, n)
		} else {
			template.Subject = pkix.Name{CommonName: n}
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return b64(der)
}

func freshKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (u *user) finalizes(o ordered, csr string) answer {
	u.t.Helper()
	return u.post(o.order["finalize"].(string), object{"csr": csr})
}

// certificate is what an order gave.
func (u *user) certificate(a answer) *x509.Certificate {
	u.t.Helper()
	url, _ := a.object(u.t)["certificate"].(string)
	if a.status != 200 || url == "" {
		u.t.Fatalf("finalize: %d %s", a.status, a.body)
	}
	der := u.post(url, nil).body
	c := chainOf(u.t.(*testing.T), der)[0]
	return c
}

// audited waits until the audit log has entries of an action about an object.
func (w *world) audited(t testing.TB, action, about string, want int) []store.Record {
	t.Helper()
	var all []store.Record
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var err error
		if all, err = w.db.AuditEntries(t.Context(), store.AuditFilter{Action: action, Object: about, Limit: 1000}); err != nil {
			t.Fatal(err)
		}
		if len(all) >= want {
			break
		}
	}
	if len(all) != want {
		t.Errorf("the audit log has %d entries %s about %q, want %d", len(all), action, about, want)
	}
	return all
}

// A person gets a certificate for the device's own key, one for another key
// under another name, and one as who she is.
func TestPersonGetsCertificates(t *testing.T) {
	w := newWorld(t)
	p := w.person(t, "alice", 4711, func(d *protocol.Device) { d.MaxLifetime = 16 * time.Hour })
	laptop := freshKey(t)
	for _, tt := range []struct {
		typ   string
		names []string
		csr   crypto.Signer
		key   crypto.Signer
		cn    string
	}{
		{"yubikey-01", []string{"alice.people.test"}, freshKey(t), p.key, ""}, // its key counts for nothing
		{"yubikey-01", []string{"alice.people.test"}, p.key, p.key, ""},
		{"yubikey-01", []string{"alice.people.test", "alice"}, freshKey(t), p.key, ""},
		{"yubikey-02", []string{"alice-laptop.people.test"}, laptop, laptop, ""},
		{"yubikey-02", []string{"alice"}, laptop, laptop, "alice"},
		{"device-attest-01", []string{"alice.people.test"}, p.key, p.key, ""},
		{"device-attest-01", []string{"4711"}, p.key, p.key, "4711"},
		{"device-attest-01", []string{"alice"}, p.key, p.key, "alice"},
	} {
		o := p.orders("client", tt.names...)
		if expires, err := time.Parse(time.RFC3339, p.post(o.order["authorizations"].([]any)[0].(string), nil).object(t)["expires"].(string)); err != nil || time.Until(expires) > protocol.PrivateLife {
			t.Errorf("the authorization waits until %v", expires)
		}
		c := p.asked(o, 0, tt.typ)
		if text, _ := c["challenge"].(string); (len(text) == base64.RawURLEncoding.EncodedLen(64)) != strings.HasPrefix(tt.typ, "yubikey") {
			t.Errorf("%s: challenge %q", tt.typ, text)
		}
		p.proves(o, tt.typ)
		got := p.certificate(p.finalizes(o, requestBy(t, tt.csr, tt.names...)))
		if !tt.key.Public().(*ecdsa.PublicKey).Equal(got.PublicKey) {
			t.Errorf("%s for %v: it is another key's", tt.typ, tt.names)
		}
		dns := slices.DeleteFunc(slices.Clone(tt.names), func(n string) bool { return !strings.Contains(n, ".") })
		if !slices.Equal(got.DNSNames, dns) || got.Subject.CommonName != tt.cn {
			t.Errorf("%s: %v, subject %q", tt.typ, got.DNSNames, got.Subject)
		}
		if life := got.NotAfter.Sub(got.NotBefore); life > 16*time.Hour || life < 15*time.Hour {
			t.Errorf("it lives %v, on a device that allows 16h", life)
		}
		serial := fmt.Sprintf("%032x", got.SerialNumber)
		for _, r := range w.audited(t, "certificate.issue", serial, 1) {
			if r.Entry.Detail["subject"] != "device:"+string(p.id) {
				t.Errorf("the audit log has %v", r.Entry.Detail)
			}
		}
	}
}

// What is asked for beyond the device's longest lifetime is refused, and why.
func TestDeviceLifetime(t *testing.T) {
	w := newWorld(t)
	p := w.person(t, "alice", 4711, func(d *protocol.Device) { d.MaxLifetime = time.Minute })
	a := p.post(p.dir+"new-order", object{"identifiers": names("alice.people.test"), "notAfter": time.Now().Add(2 * time.Hour).Format(time.RFC3339)})
	o := ordered{a.header.Get("Location"), a.object(t)}
	p.proves(o, "yubikey-01")
	wantProblem(t, p.finalizes(o, requestBy(t, p.key, "alice.people.test")), 400, protocol.Malformed, "this device's certificates live at most 1m0s")

	o = p.orders("client", "alice.people.test") // who asks for nothing gets less
	p.proves(o, "yubikey-01")
	got := p.certificate(p.finalizes(o, requestBy(t, p.key, "alice.people.test")))
	if life := got.NotAfter.Sub(got.NotBefore); life > time.Minute || !got.NotAfter.After(time.Now().Add(10*time.Second)) {
		t.Errorf("from %v to %v", got.NotBefore, got.NotAfter)
	}
}

// Whose key it is decides what may be certified.
func TestWhoseKey(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person(t, "alice", 4711, nil), w.person(t, "bob", 4712, nil)
	gone := w.person(t, "carol", 4713, nil)
	gone.end(protocol.DeviceRetired)
	for name, tt := range map[string]struct {
		typ, name string
		key       crypto.Signer
		says      string
	}{
		"another device's by yubikey-01":     {"yubikey-01", "alice.people.test", bob.key, "another enrolled device"},
		"the device's own by yubikey-02":     {"yubikey-02", "alice-laptop.people.test", alice.key, "that of an enrolled device"},
		"another device's by yubikey-02":     {"yubikey-02", "alice-laptop.people.test", bob.key, "that of an enrolled device"},
		"a retired device's by yubikey-02":   {"yubikey-02", "alice-laptop.people.test", gone.key, "that of an enrolled device"},
		"any key by device-attest-01":        {"device-attest-01", "alice.people.test", freshKey(t), "not the one that the device attested"},
		"another's by device-attest-01":      {"device-attest-01", "alice.people.test", bob.key, "another enrolled device"},
		"the wrong names, by yubikey-01":     {"yubikey-01", "alice.people.test", nil, "must name exactly"},
		"a device's by a proof of no device": {"http-01", "alice.people.test", alice.key, "that of an enrolled device"},
	} {
		profile := map[bool]string{true: "either", false: "client"}[tt.typ == "http-01"]
		o := alice.orders(profile, tt.name)
		if tt.typ == "http-01" {
			alice.prove(o.order)
		} else {
			alice.proves(o, tt.typ)
		}
		csr := requestBy(t, freshKey(t), "bob.people.test")
		if tt.key != nil {
			csr = requestBy(t, tt.key, tt.name)
		}
		t.Run(name, func(t *testing.T) { wantProblem(t, alice.finalizes(o, csr), 400, protocol.BadCSR, tt.says) })
	}
	// One order is for one kind of key.
	o := alice.orders("client", "alice.people.test", "alice-laptop.people.test")
	for n, typ := range []string{"yubikey-01", "yubikey-02"} {
		i := slices.IndexFunc([]int{0, 1}, func(i int) bool {
			value := alice.post(o.order["authorizations"].([]any)[i].(string), nil).object(t)["identifier"].(object)["value"].(string)
			return strings.Contains(value, "laptop") == (n == 1)
		})
		c := alice.asked(o, i, typ)
		if a := alice.post(c["url"].(string), answers(t, c, alice.thumbprint(), alice.key)); a.object(t)["status"] != "valid" {
			t.Fatalf("%s", a.body)
		}
	}
	wantProblem(t, alice.finalizes(o, requestBy(t, alice.key, "alice.people.test", "alice-laptop.people.test")), 403, protocol.Unauthorized, "make an order for each")
}

// outside is what a stranger hears.
const outside = "no enrolled device proved this"

// Every attack is refused, a stranger hears one thing whatever was wrong, and
// the audit log has it all.
func TestAttacksByDevices(t *testing.T) {
	w := newWorld(t)
	alice := w.person(t, "alice", 4711, nil)
	mallory := w.person(t, "mallory", 4712, nil)
	// Enrolled otherwise than the device is, as after a swap.
	other := func(serial uint32, change func(*protocol.Device)) *person {
		return w.person(t, fmt.Sprintf("p%d", serial), serial, change)
	}
	impostors, err := softcard.NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	copied, err := softcard.New(softcard.Options{Serial: 4711, Maker: impostors})
	if err != nil {
		t.Fatal(err)
	}
	vendor, err := copied.Make(0x9a, softcard.P256, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		by     *person
		answer func(c object, p *person) object
		faults []string // in the audit log
		told   string   // to the client
	}{
		"an imported key": {alice, func(c object, p *person) object {
			return answers(t, c, p.thumbprint(), &softcard.Key{Signer: freshKey(t), Statement: p.key.Statement, Device: p.key.Device})
		}, []string{"signature"}, outside},
		"another vendor's chain":   {alice, func(c object, p *person) object { return answers(t, c, p.thumbprint(), vendor) }, []string{"chain", "key"}, outside},
		"somebody else's device":   {mallory, func(c object, p *person) object { return answers(t, c, p.thumbprint(), p.key) }, []string{"identifier"}, "identifier is"},
		"the wrong serial":         {other(5001, func(d *protocol.Device) { d.Serial = 1 }), nil, []string{"serial"}, `serial is "5001", want 1`},
		"the wrong slot":           {other(5002, func(d *protocol.Device) { d.Slot = "9c" }), nil, []string{"slot"}, `slot is "9a", want 9c`},
		"the wrong firmware":       {other(5003, func(d *protocol.Device) { d.Firmware = "5.7.4" }), nil, []string{"firmware"}, "firmware is"},
		"the wrong PIN policy":     {other(5004, func(d *protocol.Device) { d.PINPolicy = "always" }), nil, []string{"PIN policy"}, "PIN policy is"},
		"the wrong touch policy":   {other(5005, func(d *protocol.Device) { d.TouchPolicy = "cached" }), nil, []string{"touch policy", "touch policy"}, "touch policy is"},
		"the wrong form factor":    {other(5006, func(d *protocol.Device) { d.FormFactor = 4 }), nil, []string{"form factor"}, "form factor is"},
		"another certificate":      {other(5007, func(d *protocol.Device) { d.Attestation = nil }), nil, []string{"device certificate"}, "device certificate is"},
		"a retired device":         {other(5008, func(d *protocol.Device) { d.State = protocol.DeviceRetired }), nil, []string{"state"}, "state is"},
		"a lost device":            {other(5009, func(d *protocol.Device) { d.State = protocol.DeviceLost }), nil, []string{"state"}, "state is"},
		"another account's answer": {alice, func(c object, p *person) object { return answers(t, c, mallory.thumbprint(), p.key) }, []string{"signature"}, outside},
		"an answer to other bytes": {alice, func(c object, p *person) object {
			return answers(t, object{"type": c["type"], "url": c["url"], "token": "x", "challenge": b64(yubikey.NewChallenge(c["type"].(string), "x"))}, p.thumbprint(), p.key)
		}, []string{"signature"}, outside},
	} {
		for _, typ := range []string{"yubikey-01", "device-attest-01"} {
			t.Run(name+" by "+typ, func(t *testing.T) {
				p := tt.by
				owned := *p
				owned.user = w.user(t, "people").register() // accounts that fail too often are stopped
				p = &owned
				asksFor := "alice.people.test"
				if tt.by != alice && tt.by != mallory {
					d, err := w.db.Device(t.Context(), tt.by.id)
					if err != nil {
						t.Fatal(err)
					}
					asksFor = d.Names[0]
				}
				o := p.orders("client", asksFor)
				c := p.asked(o, 0, typ)
				do := tt.answer
				if do == nil {
					do = func(c object, p *person) object { return answers(t, c, p.thumbprint(), p.key) }
				}
				a := p.post(c["url"].(string), do(c, p))
				problem, _ := a.object(t)["error"].(object)
				if a.object(t)["status"] != "invalid" || problem == nil || problem["type"] != protocol.ProblemPrefix+"unauthorized" || !strings.Contains(fmt.Sprint(problem["detail"]), tt.told) ||
					tt.told == outside && problem["detail"] != outside {
					t.Errorf("%d %s", a.status, a.body)
				}
				// A replay finds nothing to answer.
				if b := p.post(c["url"].(string), answers(t, c, p.thumbprint(), p.key)); b.object(t)["status"] != "invalid" {
					t.Errorf("the second answer: %s", b.body)
				}
				if got := p.post(o.url, nil).object(t)["status"]; got != "invalid" {
					t.Errorf("the order is %v", got)
				}
				authorization := o.order["authorizations"].([]any)[0].(string)
				id := authorization[strings.LastIndexByte(authorization, '/')+1:]
				w.audited(t, "authorization.invalid", id, 1)
				var found []string
				for _, r := range w.mismatches(t, id, len(tt.faults)) {
					found = append(found, r.Entry.Detail["field"].(string))
					known := !slices.Contains(tt.faults, "key")
					if known != (r.Entry.Object == string(tt.by.id)) || !known && r.Entry.Object != "YubiKey 4711 slot 9a" {
						t.Errorf("it is about %q: %v", r.Entry.Object, r.Entry.Detail)
					}
				}
				slices.Sort(found)
				if want := slices.Sorted(slices.Values(tt.faults)); !slices.Equal(found, want) {
					t.Errorf("the audit log has %q, want %q", found, want)
				}
			})
		}
	}
}

// mismatches waits for the audit entries of one proof.
func (w *world) mismatches(t testing.TB, authorization string, want int) (found []store.Record) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && len(found) < want; time.Sleep(20 * time.Millisecond) {
		all, err := w.db.AuditEntries(t.Context(), store.AuditFilter{Action: "device.mismatch", Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		found = slices.DeleteFunc(all, func(r store.Record) bool { return r.Entry.Detail["authorization"] != authorization })
	}
	return found
}

// A challenge of one type, or of another's authorization, isn't answered by
// what answers the other.
func TestReplays(t *testing.T) {
	w := newWorld(t)
	alice := w.person(t, "alice", 4711, nil)
	first, second := alice.orders("client", "alice"), alice.orders("client", "alice")
	c1, c2 := alice.asked(first, 0, "yubikey-01"), alice.asked(second, 0, "yubikey-01")
	if c1["challenge"] == c2["challenge"] || c1["challenge"] == alice.asked(first, 0, "yubikey-02")["challenge"] {
		t.Error("two challenges are alike")
	}
	good := answers(t, c1, alice.thumbprint(), alice.key)
	if a := alice.post(c2["url"].(string), good); a.object(t)["status"] != "invalid" {
		t.Errorf("another authorization: %s", a.body)
	}
	if a := alice.post(c1["url"].(string), good); a.object(t)["status"] != "valid" {
		t.Errorf("%s", a.body)
	}
	third := alice.orders("client", "alice")
	if a := alice.post(alice.asked(third, 0, "yubikey-02")["url"].(string), answers(t, alice.asked(third, 0, "yubikey-01"), alice.thumbprint(), alice.key)); a.object(t)["status"] != "invalid" {
		t.Errorf("another type: %s", a.body)
	}
}

// What becomes of the device between the proof and the signature counts.
func TestDeviceEndsMeanwhile(t *testing.T) {
	w := newWorld(t)
	for state, typ := range map[protocol.DeviceState]string{protocol.DeviceRetired: "yubikey-02", protocol.DeviceLost: "yubikey-01"} {
		p := w.person(t, string(state), 4711, nil)
		o := p.orders("client", string(state))
		p.proves(o, typ)
		p.end(state)
		a := p.finalizes(o, requestBy(t, freshKey(t), string(state)))
		if a.status == 200 && a.object(t)["certificate"] != nil {
			t.Errorf("%s: %s", state, a.body)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			got := p.post(o.url, nil).object(t)
			if got["certificate"] != nil || time.Now().After(deadline) {
				t.Fatalf("%s: %v", state, got)
			}
			if got["status"] == "invalid" || a.status == 403 {
				break
			}
		}
	}
}

// A person is named only where devices prove, and an EAB key's approval isn't
// enough.
func TestPermanentIdentifier(t *testing.T) {
	w := newWorld(t)
	u := w.user(t, "main").register()
	a := u.post(u.dir+"new-order", object{"identifiers": names("alice")})
	wantProblem(t, a, 400, protocol.RejectedIdentifier, "no challenge of this directory proves")
	p := w.person(t, "alice", 4711, nil)
	for _, bad := range []string{"", "a b", "0", "99999999999"} {
		a := p.post(p.dir+"new-order", object{"identifiers": []object{{"type": "permanent-identifier", "value": bad}}})
		wantProblem(t, a, 400, protocol.Malformed, "")
	}
	o := p.orders("either", "alice")
	all := p.post(o.order["authorizations"].([]any)[0].(string), nil).object(t)["challenges"].([]any)
	if len(all) != 3 {
		t.Errorf("%v", all)
	}
	wantProblem(t, p.post(p.dir+"new-authz", object{"identifier": object{"type": "permanent-identifier", "value": "alice"}}), 403, protocol.Unauthorized, "serves one order only")
}

var _ ca.Validator = proofs.YubiKey{}
var _ interface {
	Recheck(context.Context, protocol.Identifier, string) error
} = proofs.DeviceAttest01{}
