package challenge

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// registry is which devices are enrolled, in memory.
type registry struct {
	devices    []protocol.Device
	advisories []protocol.Advisory
	away       bool
}

var errAway = errors.New("the database is away")

func (r *registry) find(is func(protocol.Device) bool) (d protocol.Device, enrolled bool, err error) {
	if r.away {
		return d, false, errAway
	}
	if i := slices.IndexFunc(r.devices, is); i >= 0 {
		return r.devices[i], true, nil
	}
	return d, false, nil
}

func (r *registry) DeviceByKey(_ context.Context, keyHash string) (protocol.Device, bool, error) {
	return r.find(func(d protocol.Device) bool { return d.KeyHash == keyHash })
}

func (r *registry) Device(_ context.Context, id protocol.DeviceID) (protocol.Device, bool, error) {
	return r.find(func(d protocol.Device) bool { return d.ID == id })
}

func (r *registry) Advisories(context.Context) ([]protocol.Advisory, error) {
	return r.advisories, nil
}

// people is a registry with one device in it, and who looks at proofs.
type people struct {
	*registry
	maker *softcard.Maker
	card  *softcard.Card
	key   *softcard.Key
	Devices
}

func newPeople(t testing.TB, algorithm byte) *people {
	t.Helper()
	maker, err := softcard.NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	p := &people{registry: &registry{}, maker: maker}
	p.card = p.newCard(t, 4711)
	p.key = newKeyIn(t, p.card, algorithm, byte(yubikey.PINOnce), byte(yubikey.TouchAlways))
	p.devices = []protocol.Device{enrolled(t, p.key)}
	p.Devices = Devices{
		Registry: p.registry, Issuers: maker.Issuers(), PINPolicies: []string{"once", "always"}, TouchPolicies: []string{"always"},
	}
	return p
}

func (p *people) newCard(t testing.TB, serial uint32) *softcard.Card {
	t.Helper()
	c, err := softcard.New(softcard.Options{Serial: serial, Maker: p.maker})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKeyIn(t testing.TB, c *softcard.Card, algorithm, pin, touch byte) *softcard.Key {
	t.Helper()
	k, err := c.Make(0x9a, algorithm, pin, touch)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func hashOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// enrolled is the registry's record of a key.
func enrolled(t testing.TB, k *softcard.Key) protocol.Device {
	t.Helper()
	a, err := yubikey.ParseAttestation(k.Statement, k.Device)
	if err != nil {
		t.Fatal(err)
	}
	return protocol.Device{
		ID: "dev1", Owner: "alice", State: protocol.DeviceActive, Key: k.Statement.RawSubjectPublicKeyInfo, KeyHash: hashOf(k.Statement),
		Serial: a.Serial, Slot: a.Slot.String(), Firmware: a.Firmware.String(), FormFactor: byte(a.FormFactor),
		PINPolicy: a.PINPolicy.String(), TouchPolicy: a.TouchPolicy.String(), Attestation: a.PEM(),
		Identities: protocol.Identities{Names: []string{"alice.example"}, OtherNames: []string{"laptop.example"}},
	}
}

// asks is a challenge of a type, just made.
func asks(t protocol.ChallengeType) protocol.Validation {
	v := testValidation()
	v.Type, v.URL, v.CreatedAt = t, "https://ca.example/challenge/1/"+string(t), time.Now()
	v.Identifier.Value = "alice.example"
	if t == protocol.YubiKey02 {
		v.Identifier.Value = "laptop.example"
	}
	return v
}

// answered is the response of a key to a challenge, as that key's device gives it.
func answered(t testing.TB, v protocol.Validation, k *softcard.Key) []byte {
	t.Helper()
	var payload any
	if v.Type == protocol.DeviceAttest01 {
		payload = map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(attestationObject(t, v, k, nil))}
	} else {
		m, err := yubikey.ResponseMessage(yubikey.NewChallenge(string(v.Type), v.Token), v.Thumbprint, string(v.Type), v.URL)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := yubikey.SignMessage(k, m)
		if err != nil {
			t.Fatal(err)
		}
		payload = yubikey.NewResponse(&yubikey.Attestation{Statement: k.Statement, Device: k.Device}, signature)
	}
	text, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// deviceProof is a validator of devices.
type deviceProof interface {
	Validate(context.Context, protocol.Validation) (protocol.Evidence, error)
	Recheck(context.Context, protocol.Identifier, string) error
}

func (p *people) by(t protocol.ChallengeType) deviceProof {
	if t == protocol.DeviceAttest01 {
		return DeviceAttest01{p.Devices}
	}
	return YubiKey{t, p.Devices}
}

var deviceTypes = []protocol.ChallengeType{protocol.YubiKey01, protocol.YubiKey02, protocol.DeviceAttest01}

func TestDeviceProves(t *testing.T) {
	for algorithm, name := range map[byte]string{softcard.P256: "P-256", softcard.P384: "P-384", softcard.RSA2048: "RSA", softcard.Ed25519: "Ed25519"} {
		p := newPeople(t, algorithm)
		for _, typ := range deviceTypes {
			if typ == protocol.DeviceAttest01 && algorithm == softcard.P384 {
				continue // the step CLI doesn't
			}
			v := asks(typ)
			v.Response = answered(t, v, p.key)
			seen, err := p.by(typ).Validate(t.Context(), v)
			if err != nil || seen.Subject != "device:dev1" || seen.Type != typ || seen.Target != "YubiKey 4711 slot 9a" || seen.SeenAt.IsZero() || seen.Faults != nil {
				t.Errorf("%s, %s: %+v, %v", typ, name, seen, err)
			}
			if err := p.by(typ).Recheck(t.Context(), v.Identifier, seen.Subject); err != nil {
				t.Errorf("%s again: %v", typ, err)
			}
			v.Identifier = protocol.Identifier{Type: protocol.PermanentIdentifier, Value: "alice"}
			if _, err := p.by(typ).Validate(t.Context(), v); err != nil {
				t.Errorf("%s for the person: %v", typ, err)
			}
		}
	}
}

// outside is what a stranger hears, whatever the reason.
const outside = "no enrolled device proved this"

// fields are the faults that were found.
func fields(e protocol.Evidence) string {
	var all []string
	for _, f := range e.Faults {
		all = append(all, f.Field)
	}
	return strings.Join(all, ", ")
}

// refusedAs checks a no: what the audit log gets, and what the client.
func refusedAs(t *testing.T, name string, seen protocol.Evidence, err error, faults string, told bool) {
	t.Helper()
	why, ok := errors.AsType[*protocol.ValidationError](err)
	switch {
	case err == nil:
		t.Errorf("%s: proven", name)
	case !ok || why.Problem.Type != protocol.Unauthorized || why.Retryable:
		t.Errorf("%s: %v", name, err)
	case !told && why.Problem.Detail != outside:
		t.Errorf("%s: a stranger hears %q", name, why.Problem.Detail)
	case told && (why.Problem.Detail == outside || !strings.Contains(why.Problem.Detail, seen.Faults[0].Field)):
		t.Errorf("%s: the holder hears only %q", name, why.Problem.Detail)
	}
	if fields(seen) != faults {
		t.Errorf("%s: the audit log has %q, want %q", name, fields(seen), faults)
	}
	for _, f := range seen.Faults {
		if len(f.Got) > maxFault+len("…") || len(f.Want) > 300 {
			t.Errorf("%s: %+v is too long", name, f)
		}
	}
}

// What is otherwise than enrolled is refused; who holds the key is told.
func TestDeviceMismatches(t *testing.T) {
	p := newPeople(t, softcard.P256)
	good := p.devices[0]
	other := newKeyIn(t, p.newCard(t, 4712), softcard.P256, 2, 2)
	for name, c := range map[string]struct {
		change func(d *protocol.Device)
		faults string
	}{
		"another serial":             {func(d *protocol.Device) { d.Serial++ }, "serial"},
		"another slot":               {func(d *protocol.Device) { d.Slot = "9c" }, "slot"},
		"another firmware":           {func(d *protocol.Device) { d.Firmware = "5.7.2" }, "firmware"},
		"another form factor":        {func(d *protocol.Device) { d.FormFactor++ }, "form factor"},
		"another PIN policy":         {func(d *protocol.Device) { d.PINPolicy = "always" }, "PIN policy"},
		"another touch policy":       {func(d *protocol.Device) { d.TouchPolicy = "cached" }, "touch policy, touch policy"},
		"another device certificate": {func(d *protocol.Device) { d.Attestation = pemOf(p.key.Statement, other.Device) }, "device certificate"},
		"no device certificate":      {func(d *protocol.Device) { d.Attestation = nil }, "device certificate"},
		"retired":                    {func(d *protocol.Device) { d.State = protocol.DeviceRetired }, "state"},
		"lost":                       {func(d *protocol.Device) { d.State = protocol.DeviceLost }, "state"},
		"in no state":                {func(d *protocol.Device) { d.State = "" }, "state"},
		"all of it":                  {func(d *protocol.Device) { *d = protocol.Device{ID: d.ID, Key: d.Key, KeyHash: d.KeyHash} }, "serial, slot, firmware, form factor, PIN policy, touch policy, device certificate, state, PIN policy, touch policy, identifier"},
	} {
		p.devices[0] = good
		c.change(&p.devices[0])
		for _, typ := range deviceTypes {
			v := asks(typ)
			v.Response = answered(t, v, p.key)
			seen, err := p.by(typ).Validate(t.Context(), v)
			refusedAs(t, name+" by "+string(typ), seen, err, c.faults, true)
			if seen.Subject != "device:dev1" {
				t.Errorf("%s: the audit log doesn't name the device", name)
			}
		}
	}
}

func pemOf(all ...*x509.Certificate) (text []byte) {
	for _, c := range all {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// A name of one type is no other's, nor anybody else's.
func TestDeviceNames(t *testing.T) {
	p := newPeople(t, softcard.P256)
	for _, typ := range deviceTypes {
		for _, id := range []protocol.Identifier{
			{Type: protocol.DNS, Value: "bob.example"}, {Type: protocol.DNS, Value: "alice"}, {Type: protocol.DNS, Value: "sub.alice.example"},
			{Type: protocol.PermanentIdentifier, Value: "bob"}, {Type: protocol.PermanentIdentifier, Value: "4712"}, {Type: protocol.IP, Value: "192.0.2.1"},
			{Type: protocol.DNS, Value: map[bool]string{true: "alice.example", false: "laptop.example"}[typ == protocol.YubiKey02]},
		} {
			v := asks(typ)
			v.Identifier = id
			v.Response = answered(t, v, p.key)
			seen, err := p.by(typ).Validate(t.Context(), v)
			refusedAs(t, string(typ)+" "+id.String(), seen, err, "identifier", true)
			if p.by(typ).Recheck(t.Context(), id, "device:dev1") == nil {
				t.Errorf("%s: %s passed the second look", typ, id)
			}
		}
		v := asks(typ)
		v.Wildcard = true
		v.Response = answered(t, v, p.key)
		seen, err := p.by(typ).Validate(t.Context(), v)
		refusedAs(t, "a wildcard", seen, err, "identifier", true)
	}
}

// PIN never and touch other than always are for directories that say so.
func TestDevicePolicies(t *testing.T) {
	p := newPeople(t, softcard.P256)
	for _, c := range []struct {
		pin    yubikey.PINPolicy
		touch  yubikey.TouchPolicy
		faults string
	}{
		{yubikey.PINNever, yubikey.TouchAlways, "PIN policy"},
		{yubikey.PINOnce, yubikey.TouchNever, "touch policy"},
		{yubikey.PINOnce, yubikey.TouchCached, "touch policy"},
		{yubikey.PINNever, yubikey.TouchNever, "PIN policy, touch policy"},
	} {
		key := newKeyIn(t, p.card, softcard.P256, byte(c.pin), byte(c.touch))
		p.devices[0] = enrolled(t, key)
		for _, typ := range deviceTypes {
			v := asks(typ)
			v.Response = answered(t, v, key)
			seen, err := p.by(typ).Validate(t.Context(), v)
			refusedAs(t, string(typ), seen, err, c.faults, true)
			lax := *p
			lax.PINPolicies, lax.TouchPolicies = append(slices.Clone(p.PINPolicies), "never"), []string{"always", "never", "cached"}
			if _, err := lax.by(typ).Validate(t.Context(), v); err != nil {
				t.Errorf("%s with %s, %s, where both are taken: %v", typ, c.pin, c.touch, err)
			}
		}
	}
}

// Who doesn't hold an enrolled key hears one thing only.
func TestStrangers(t *testing.T) {
	p := newPeople(t, softcard.P256)
	impostors, err := softcard.NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := softcard.New(softcard.Options{Serial: 4711, Maker: impostors})
	if err != nil {
		t.Fatal(err)
	}
	stranger := newKeyIn(t, p.newCard(t, 4712), softcard.P256, 2, 2)
	vendor := newKeyIn(t, forged, softcard.P256, 2, 2)
	imported, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range deviceTypes {
		otherAccount, otherURL, otherType, otherToken := asks(typ), asks(typ), asks(typ), asks(typ)
		otherAccount.Thumbprint = "AzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
		otherURL.URL += "2"
		otherToken.Token = "another"
		otherType.Type = map[bool]protocol.ChallengeType{true: protocol.YubiKey02, false: protocol.YubiKey01}[typ == protocol.YubiKey01]
		for name, c := range map[string]struct {
			response []byte
			faults   string
		}{
			"another device":              {answered(t, asks(typ), stranger), "key"},
			"another vendor's chain":      {answered(t, asks(typ), vendor), "chain, key"},
			"an imported key":             {answered(t, asks(typ), &softcard.Key{Signer: imported, Statement: p.key.Statement, Device: p.key.Device}), "signature"},
			"an imported key, self-made":  {answered(t, asks(typ), selfMade(t, imported)), "chain, key"},
			"another device's f9":         {answered(t, asks(typ), &softcard.Key{Signer: p.key, Statement: p.key.Statement, Device: stranger.Device}), "chain, device certificate"},
			"the device for a statement":  {answered(t, asks(typ), &softcard.Key{Signer: p.key, Statement: p.key.Device, Device: p.maker.Issuers()[1]}), "attestation, signature, key"},
			"a key under an attested one": {answered(t, asks(typ), below(t, p.key)), "chain, key"},
			"for another account":         {answered(t, otherAccount, p.key), "signature"},
			"for another challenge":       {answered(t, otherToken, p.key), "signature"},
		} {
			v := asks(typ)
			v.Response = c.response
			seen, err := p.by(typ).Validate(t.Context(), v)
			refusedAs(t, name+" by "+string(typ), seen, err, c.faults, false)
		}
		if typ == protocol.DeviceAttest01 {
			continue // the draft binds token and account, no more
		}
		for name, other := range map[string]protocol.Validation{"another URL": otherURL, "another type": otherType} {
			v := asks(typ)
			v.Response = answered(t, other, p.key)
			seen, err := p.by(typ).Validate(t.Context(), v)
			refusedAs(t, "for "+name, seen, err, "signature", false)
		}
	}
}

// selfMade is a key with certificates that its holder made.
func selfMade(t *testing.T, key crypto.Signer) *softcard.Key {
	t.Helper()
	root := signed(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true}, nil, key, key)
	return &softcard.Key{Signer: key, Statement: signed(t, &x509.Certificate{}, root, key, key), Device: root}
}

// below is a key that the holder of an attested one says something of.
func below(t *testing.T, attested *softcard.Key) *softcard.Key {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &softcard.Key{Signer: key, Statement: signed(t, &x509.Certificate{}, attested.Statement, key, attested), Device: attested.Statement}
}

// signed is a certificate with all that a statement has.
func signed(t *testing.T, c, by *x509.Certificate, key, byKey crypto.Signer) *x509.Certificate {
	t.Helper()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	statement := newKeyIn(t, newPeople(t, softcard.P256).card, softcard.P256, 2, 2).Statement
	c.Subject = statement.Subject
	c.ExtraExtensions = statement.Extensions[len(statement.Extensions)-4:]
	if by == nil {
		by = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// A challenge is answered within ten minutes.
func TestDeviceIsInTime(t *testing.T) {
	p := newPeople(t, softcard.P256)
	for _, typ := range deviceTypes {
		v := asks(typ)
		v.Response = answered(t, v, p.key)
		p.Clock = func() time.Time { return v.CreatedAt.Add(protocol.PrivateLife) }
		if _, err := p.by(typ).Validate(t.Context(), v); err != nil {
			t.Errorf("at the end: %v", err)
		}
		for _, after := range []time.Duration{protocol.PrivateLife + 1, 24 * time.Hour, -time.Hour} {
			p.Clock = func() time.Time { return v.CreatedAt.Add(after) }
			seen, err := p.by(typ).Validate(t.Context(), v)
			refusedAs(t, "after "+after.String(), seen, err, "challenge", true)
		}
		p.Clock = nil
	}
}

func TestAdvisories(t *testing.T) {
	p := newPeople(t, softcard.P256) // 5.7.1
	for _, c := range []struct {
		first, last string
		refused     bool
	}{
		{"5.7.1", "5.7.1", true}, {"5.0.0", "5.7.1", true}, {"5.7.1", "9.0.0", true}, {"0.0.0", "255.255.255", true},
		{"5.0.0", "5.7.0", false}, {"5.7.2", "5.8.0", false}, {"5.7.2", "5.7.0", false},
		{"", "5.8.0", true}, {"5.0", "5.1", true}, // can't be read: refused
	} {
		p.advisories = []protocol.Advisory{{ID: "other", First: "1.0.0", Last: "1.0.1"}, {ID: "YSA-1", First: c.first, Last: c.last}}
		v := asks(protocol.YubiKey01)
		v.Response = answered(t, v, p.key)
		seen, err := p.by(v.Type).Validate(t.Context(), v)
		again := p.by(v.Type).Recheck(t.Context(), v.Identifier, "device:dev1")
		if !c.refused {
			if err != nil || again != nil {
				t.Errorf("%s to %s: %v, %v", c.first, c.last, err, again)
			}
			continue
		}
		refusedAs(t, c.first+" to "+c.last, seen, err, "firmware", true)
		refusedAs(t, c.first+" to "+c.last+" again", seen, again, "firmware", true)
	}
}

// What SSH signs alike can't be had through a forwarded agent.
func TestSSHAlike(t *testing.T) {
	for algorithm, refusedBy := range map[byte][]protocol.ChallengeType{
		softcard.P256: {protocol.DeviceAttest01}, softcard.RSA2048: {protocol.DeviceAttest01}, softcard.Ed25519: deviceTypes,
	} {
		p := newPeople(t, algorithm)
		p.devices[0].Principals = []string{"alice", "root"}
		for _, typ := range deviceTypes {
			v := asks(typ)
			v.Response = answered(t, v, p.key)
			seen, err := p.by(typ).Validate(t.Context(), v)
			if slices.Contains(refusedBy, typ) {
				refusedAs(t, string(typ), seen, err, "principals", true)
				refusedAs(t, string(typ)+" again", seen, p.by(typ).Recheck(t.Context(), v.Identifier, seen.Subject), "principals", true)
			} else if err != nil {
				t.Errorf("%s: %v", typ, err)
			}
		}
	}
}

// A database that doesn't answer is neither a yes nor a no.
func TestRegistryAway(t *testing.T) {
	p := newPeople(t, softcard.P256)
	for _, typ := range deviceTypes {
		v := asks(typ)
		v.Response = answered(t, v, p.key)
		p.away = true
		_, err := p.by(typ).Validate(t.Context(), v)
		again := p.by(typ).Recheck(t.Context(), v.Identifier, "device:dev1")
		p.away = false
		if !errors.Is(err, errAway) || !errors.Is(again, errAway) {
			t.Errorf("%v, %v", err, again)
		}
	}
}

// Before the key signs, what became of the device counts.
func TestDeviceRecheck(t *testing.T) {
	p := newPeople(t, softcard.P256)
	good := p.devices[0]
	id := asks(protocol.YubiKey01).Identifier
	for name, change := range map[string]func(d *protocol.Device){
		"retired":       func(d *protocol.Device) { d.State = protocol.DeviceRetired },
		"lost":          func(d *protocol.Device) { d.State = protocol.DeviceLost },
		"other names":   func(d *protocol.Device) { d.Names = []string{"bob.example"} },
		"gone":          func(d *protocol.Device) { d.ID = "dev2" },
		"touch refused": func(d *protocol.Device) { d.TouchPolicy = "never" },
	} {
		p.devices[0] = good
		change(&p.devices[0])
		if err := p.by(protocol.YubiKey01).Recheck(t.Context(), id, "device:dev1"); protocol.AsProblem(err).Type != protocol.Unauthorized {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.devices[0] = good
	for _, subject := range []string{"", "dev1", "web-1", "device:", "device:dev2"} {
		if err := p.by(protocol.YubiKey01).Recheck(t.Context(), id, subject); protocol.AsProblem(err).Type != protocol.Unauthorized {
			t.Errorf("subject %q: %v", subject, err)
		}
	}
}

// As real devices are: all RSA-2048 but the slot's key.
func BenchmarkYubiKey(b *testing.B) {
	for name, algorithm := range map[string]byte{"P-256": softcard.P256, "RSA-2048": softcard.RSA2048} {
		b.Run(name, func(b *testing.B) {
			p := newPeople(b, algorithm)
			published, err := os.ReadFile("../yubikey/testdata/yubikey-5.7.4-touch.pem")
			if err != nil {
				b.Fatal(err)
			}
			// A real device's chain costs what it costs; the signature is the
			// soft card's.
			var chain []*x509.Certificate
			for block, rest := pem.Decode(published); block != nil; block, rest = pem.Decode(rest) {
				c, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					b.Fatal(err)
				}
				chain = append(chain, c)
			}
			v := asks(protocol.YubiKey01)
			v.Response = answered(b, v, &softcard.Key{Signer: p.key, Statement: chain[0], Device: chain[1]})
			signature, _, err := yubikey.ParseResponse(v.Response)
			if err != nil {
				b.Fatal(err)
			}
			message, err := yubikey.ResponseMessage(yubikey.NewChallenge(string(v.Type), v.Token), v.Thumbprint, string(v.Type), v.URL)
			if err != nil {
				b.Fatal(err)
			}
			p.Issuers = yubikey.Issuers()
			p.devices[0] = enrolled(b, &softcard.Key{Signer: p.key, Statement: chain[0], Device: chain[1]})
			b.ResetTimer()
			for range b.N {
				_, err := p.by(v.Type).Validate(b.Context(), v)
				if p := protocol.AsProblem(err); p.Detail != outside { // the real key is its owner's
					b.Fatal(err)
				}
				if yubikey.VerifyMessage(p.key.Public(), message, signature) != nil {
					b.Fatal("the signature isn't good")
				}
			}
		})
	}
}
