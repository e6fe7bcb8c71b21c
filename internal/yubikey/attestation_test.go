package yubikey_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/yubikey"
)

// published reads a published attestation of a real device: statement, device,
// Yubico's CA.
func published(t *testing.T, name string) (statement, device, issuer *x509.Certificate) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
	}
	if len(certs) != 3 {
		t.Fatalf("%s: %d certificates, want 3", name, len(certs))
	}
	return certs[0], certs[1], certs[2]
}

func TestRealAttestation(t *testing.T) {
	statement, device, issuer := published(t, "yubikey-5.4.3.pem")
	a, err := yubikey.ParseAttestation(statement, device)
	if err != nil {
		t.Fatal(err)
	}
	if a.Serial != 0xf00f14 || a.Firmware != (yubikey.Firmware{Major: 5, Minor: 4, Patch: 3}) || a.Slot != yubikey.Authentication ||
		a.PINPolicy != yubikey.PINOnce || a.TouchPolicy != yubikey.TouchNever || a.FormFactor.String() != "USB-C Nano" {
		t.Errorf("%+v", a)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := a.Verify([]*x509.Certificate{issuer}, now); err != nil {
		t.Error(err)
	}
	if err := a.Verify([]*x509.Certificate{issuer}, now.AddDate(-11, 0, 0)); err == nil {
		t.Error("verified before it was valid")
	}
	if err := a.Verify([]*x509.Certificate{issuer}, now.AddDate(30, 0, 0)); err == nil {
		t.Error("verified after its end")
	}
	// What the client sends as its device must never be believed by itself.
	if err := a.Verify(nil, now); err == nil {
		t.Error("verified without a trusted issuer")
	}

	// The two chains of the two devices, mixed.
	oldStatement, oldDevice, oldIssuer := published(t, "yubikey-4.3.7.pem")
	both := []*x509.Certificate{issuer, oldIssuer}
	for name, mixed := range map[string]yubikey.Attestation{
		"another device's certificate": {Statement: statement, Device: oldDevice},
		"another device's statement":   {Statement: oldStatement, Device: device},
	} {
		if err := mixed.Verify(both, now); err == nil {
			t.Errorf("%s verified", name)
		}
	}
	// A YubiKey 4 below a CA with path length 0, no basic constraints of its
	// own: the chain holds, the content is refused.
	old := yubikey.Attestation{Statement: oldStatement, Device: oldDevice}
	if err := old.Verify(both, now); err != nil {
		t.Error(err)
	}
	if _, err := yubikey.ParseAttestation(oldStatement, oldDevice); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("an attestation without serial number: %v", err)
	}
}

func oid(last ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3}, last...)
}

// extensions are a good statement's, as raw bytes but for the serial number
// (docs.yubico.com: PIV Attestation OID Arc).
func extensions() []pkix.Extension {
	return []pkix.Extension{
		{Id: oid(3), Value: []byte{5, 7, 1}},
		{Id: oid(7), Value: []byte{2, 1, 42}},
		{Id: oid(8), Value: []byte{2, 1}},
		{Id: oid(9), Value: []byte{3}},
	}
}

// stated is a parsed certificate as far as ParseAttestation reads it.
func stated(cn string, ext ...pkix.Extension) *x509.Certificate {
	return &x509.Certificate{
		Subject:    pkix.Name{CommonName: cn, Names: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: cn}}},
		Extensions: ext,
	}
}

const slot9c = "YubiKey PIV Attestation 9c"

func TestParseAttestation(t *testing.T) {
	device := &x509.Certificate{}
	ext := slices.Concat([]pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 14}, Value: []byte{1}}}, extensions(), []pkix.Extension{{Id: oid(10)}, {Id: oid(3, 1)}})
	a, err := yubikey.ParseAttestation(stated(slot9c, ext...), device)
	if err != nil {
		t.Fatal(err)
	}
	if a.Serial != 42 || a.Firmware.String() != "5.7.1" || a.Slot != yubikey.Signature || a.PINPolicy != yubikey.PINOnce || a.TouchPolicy != yubikey.TouchNever || a.FormFactor != 3 {
		t.Errorf("%+v", a)
	}

	change := func(n int, value ...byte) []pkix.Extension {
		all := extensions()
		i := slices.IndexFunc(all, func(e pkix.Extension) bool { return e.Id.Equal(oid(n)) })
		all[i].Value = value
		return all
	}
	without := func(n int) []pkix.Extension {
		return slices.DeleteFunc(extensions(), func(e pkix.Extension) bool { return e.Id.Equal(oid(n)) })
	}
	twice := func(n int, value ...byte) []pkix.Extension {
		return append(extensions(), pkix.Extension{Id: oid(n), Value: value})
	}
	for name, c := range map[string]*x509.Certificate{
		"no firmware":                    stated(slot9c, without(3)...),
		"no serial":                      stated(slot9c, without(7)...),
		"no policies":                    stated(slot9c, without(8)...),
		"no form factor":                 stated(slot9c, without(9)...),
		"two firmwares":                  stated(slot9c, twice(3, 5, 7, 1)...),
		"two serials":                    stated(slot9c, twice(7, 2, 1, 43)...),
		"two policies":                   stated(slot9c, twice(8, 3, 2)...),
		"two form factors":               stated(slot9c, twice(9, 3)...),
		"empty firmware":                 stated(slot9c, change(3)...),
		"firmware in DER":                stated(slot9c, change(3, 4, 3, 5, 7, 1)...),
		"empty serial":                   stated(slot9c, change(7)...),
		"raw serial":                     stated(slot9c, change(7, 0, 0, 0, 42)...),
		"serial 0":                       stated(slot9c, change(7, 2, 1, 0)...),
		"negative serial":                stated(slot9c, change(7, 2, 1, 0x80)...),
		"serial above 32 bits":           stated(slot9c, change(7, 2, 5, 1, 0, 0, 0, 0)...),
		"serial not minimal":             stated(slot9c, change(7, 2, 2, 0, 42)...),
		"serial and more":                stated(slot9c, change(7, 2, 1, 42, 0)...),
		"one policy":                     stated(slot9c, change(8, 2)...),
		"three policies":                 stated(slot9c, change(8, 2, 1, 1)...),
		"PIN policy 0":                   stated(slot9c, change(8, 0, 1)...),
		"PIN policy 6":                   stated(slot9c, change(8, 6, 1)...),
		"touch policy 0":                 stated(slot9c, change(8, 2, 0)...),
		"touch policy 4":                 stated(slot9c, change(8, 2, 4)...),
		"empty form factor":              stated(slot9c, change(9)...),
		"no slot":                        stated("YubiKey PIV Attestation ", extensions()...),
		"slot of the attestation key":    stated("YubiKey PIV Attestation f9", extensions()...),
		"slot in capitals":               stated("YubiKey PIV Attestation 9C", extensions()...),
		"something after the slot":       stated("YubiKey PIV Attestation 9c ", extensions()...),
		"another subject":                stated("9c", extensions()...),
		"no subject":                     {Extensions: extensions()},
		"the CN in another attribute":    {Subject: pkix.Name{CommonName: slot9c, Names: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: slot9c}}}, Extensions: extensions()},
		"two CNs, of which Go takes one": {Subject: pkix.Name{CommonName: slot9c, Names: slices.Repeat(stated(slot9c).Subject.Names, 2)}, Extensions: extensions()},
	} {
		if a, err := yubikey.ParseAttestation(c, device); err == nil {
			t.Errorf("%s: taken as %+v", name, a)
		}
	}
	if _, err := yubikey.ParseAttestation(nil, device); err == nil {
		t.Error("no statement was taken")
	}
	if _, err := yubikey.ParseAttestation(stated(slot9c, extensions()...), nil); err == nil {
		t.Error("no device certificate was taken")
	}
}

// identity is a certificate and its key.
type identity struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func issue(t *testing.T, template *x509.Certificate, by *identity, key crypto.Signer) *identity {
	t.Helper()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := &identity{template, key}
	if by != nil {
		parent = by
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{c, key}
}

func ecKey(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ca(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
}

func statementOf(more ...pkix.Extension) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: slot9c}, ExtraExtensions: append(extensions(), more...)}
}

// The chain is statement, device, pinned issuer, and nothing else.
func TestVerifyChain(t *testing.T) {
	root := issue(t, ca("Root"), nil, ecKey(t))
	piv := issue(t, ca("PIV CA"), root, ecKey(t))
	impostor := issue(t, ca("PIV CA"), nil, ecKey(t)) // same name, own key
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	device := issue(t, ca("Device"), piv, rsaKey)
	noCA := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Device"}, BasicConstraintsValid: true}, piv, ecKey(t))
	forged := issue(t, ca("Device"), impostor, ecKey(t))
	selfMade := issue(t, ca("Device"), nil, ecKey(t))
	statement := issue(t, statementOf(), device, ecKey(t))
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	// A certificate below an attested key, which its holder can sign.
	below := issue(t, statementOf(), statement, ecKey(t))
	changed := issue(t, statementOf(), device, ecKey(t))
	changed.cert.RawTBSCertificate = bytes.Replace(changed.cert.RawTBSCertificate, []byte{5, 7, 1}, []byte{5, 7, 2}, 1)
	now := time.Now()
	pinned := []*x509.Certificate{root.cert, piv.cert}

	good := yubikey.Attestation{Statement: statement.cert, Device: device.cert}
	if err := good.Verify(pinned, now); err != nil {
		t.Errorf("the right chain: %v", err)
	}
	if err := good.Verify([]*x509.Certificate{impostor.cert, piv.cert}, now); err != nil {
		t.Errorf("two issuers of one name: %v", err)
	}
	for name, c := range map[string]struct {
		statement, device *identity
		issuers           []*x509.Certificate
	}{
		"only the root pinned":              {statement, device, []*x509.Certificate{root.cert}},
		"the wrong issuer of that name":     {statement, device, []*x509.Certificate{impostor.cert}},
		"device by an impostor":             {issue(t, statementOf(), forged, ecKey(t)), forged, pinned},
		"device that signed itself":         {issue(t, statementOf(), selfMade, ecKey(t)), selfMade, pinned},
		"device that is no CA":              {issue(t, statementOf(), noCA, ecKey(t)), noCA, pinned},
		"an attested key as device":         {below, statement, pinned},
		"a changed statement":               {changed, device, pinned},
		"statement of a device of the name": {issue(t, statementOf(), selfMade, ecKey(t)), device, pinned},
		"a critical extension":              {issue(t, statementOf(critical), device, ecKey(t)), device, pinned},
		"the device as its own statement":   {device, device, pinned},
	} {
		a := yubikey.Attestation{Statement: c.statement.cert, Device: c.device.cert}
		if err := a.Verify(c.issuers, now); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestAttestationPEM(t *testing.T) {
	statement, device, _ := published(t, "yubikey-5.4.3.pem")
	a, err := yubikey.ParseAttestation(statement, device)
	if err != nil {
		t.Fatal(err)
	}
	first, rest := pem.Decode(a.PEM())
	second, rest := pem.Decode(rest)
	if first == nil || second == nil || len(rest) != 0 || !bytes.Equal(first.Bytes, statement.Raw) || !bytes.Equal(second.Bytes, device.Raw) {
		t.Errorf("%s", a.PEM())
	}
}

func FuzzParseAttestation(f *testing.F) {
	f.Add([]byte{5, 7, 1}, []byte{2, 1, 42}, []byte{2, 1}, []byte{3}, slot9c, false)
	f.Add([]byte{5, 7, 1}, []byte{2, 4, 0, 0xf0, 0x0f, 0x14}, []byte{5, 3}, []byte{0x83}, "YubiKey PIV Attestation 82", false)
	f.Add([]byte{5}, []byte{2, 0}, []byte{}, []byte{3, 3}, "", true)
	f.Fuzz(func(t *testing.T, firmware, serial, policies, form []byte, cn string, double bool) {
		ext := []pkix.Extension{{Id: oid(3), Value: firmware}, {Id: oid(7), Value: serial}, {Id: oid(8), Value: policies}, {Id: oid(9), Value: form}}
		if double {
			ext = append(ext, ext[1])
		}
		a, err := yubikey.ParseAttestation(stated(cn, ext...), &x509.Certificate{})
		if err != nil {
			return
		}
		// What was taken is all that was there.
		again, err := asn1.Marshal(int64(a.Serial))
		if err != nil || double || !bytes.Equal(again, serial) || cn != "YubiKey PIV Attestation "+a.Slot.String() ||
			!bytes.Equal(firmware, []byte{a.Firmware.Major, a.Firmware.Minor, a.Firmware.Patch}) ||
			!bytes.Equal(policies, []byte{byte(a.PINPolicy), byte(a.TouchPolicy)}) || !bytes.Equal(form, []byte{byte(a.FormFactor)}) {
			t.Errorf("%x %x %x %x %q was taken as %+v", firmware, serial, policies, form, cn, a)
		}
	})
}
