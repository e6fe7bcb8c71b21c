package softcard

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"
)

func newTestCard(t testing.TB, o Options) *Card {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends APDUs in hex and returns the last response in hex.
func send(t testing.TB, c *Card, apdus ...string) string {
	t.Helper()
	var last []byte
	for _, a := range apdus {
		b, err := hex.DecodeString(strings.ReplaceAll(a, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		last, _ = c.Transmit(b)
	}
	return hex.EncodeToString(last)
}

const (
	selectPIV = "00a40400 05 a000000308"
	rightPIN  = "00200080 08 313233343536ffff"
	wrongPIN  = "00200080 08 313131313131ffff"
	tellTries = "00200080"
)

// manage shows the management key, the host's side only (SP 800-73-4 part 2
// appendix A.1).
func manage(t testing.TB, c *Card) {
	t.Helper()
	alg := byte(tripleDES)
	if c.since(5, 7, 0) {
		alg = aes192
	}
	r, _ := c.Transmit([]byte{0, 0x87, alg, 0x9b, 4, 0x7c, 2, 0x81, 0})
	m := managementKey{alg, defaultManagementKey}
	answer := tlv(0x7c, tlv(0x82, m.encrypt(r[4:len(r)-2])...)...)
	r, _ = c.Transmit(append([]byte{0, 0x87, alg, 0x9b, byte(len(answer))}, answer...))
	if !bytes.Equal(r, []byte{0x90, 0}) {
		t.Fatalf("management key: %x", r)
	}
}

// ISO/IEC 7816-4 section 5.1: the forms of a command.
func TestParseAPDU(t *testing.T) {
	for _, c := range []struct {
		apdu, data string
		expect     int
	}{
		{"00cb3fff", "", 256},                    // case 1
		{"00cb3fff 00", "", 256},                 // case 2, and Lc 0 without Le
		{"00cb3fff 05", "", 256},                 // case 2
		{"00cb3fff 02 abcd", "abcd", 256},        // case 3
		{"00cb3fff 02 abcd 00", "abcd", 256},     // case 4
		{"00cb3fff 00 0000", "", 65536},          // case 2 extended
		{"00cb3fff 00 0002 abcd", "abcd", 65536}, // case 3 extended
		{"00cb3fff 00 0002 abcd 0000", "abcd", 65536},
	} {
		b, _ := hex.DecodeString(strings.ReplaceAll(c.apdu, " ", ""))
		got := parse(b)
		if !got.wellFormed || hex.EncodeToString(got.data) != c.data || got.expect != c.expect || got.ins != 0xcb {
			t.Errorf("%s: %+v", c.apdu, got)
		}
	}
	card := newTestCard(t, Options{})
	for _, bad := range []string{"", "00", "00cb3f", "80cb3fff", "04cb3fff", "00cb3fff 02 ab", "00cb3fff 02 abcd 00 00", "00cb3fff 00 00", "00cb3fff 00 0002 ab", "00cb3fff 00 0002 abcd 00"} {
		if got := send(t, card, bad); got != "6700" {
			t.Errorf("%q: %s, want 6700", bad, got)
		}
	}
}

// SP 800-73-4 part 2 section 3.1.1, and who else is there.
func TestSelect(t *testing.T) {
	c := newTestCard(t, Options{Serial: 0x01020304, Firmware: [3]byte{5, 4, 3}, FormFactor: 4})
	for _, r := range []struct{ apdu, want string }{
		{"00fd0000", "6d00"}, // nothing is selected
		{selectPIV, "61114f0600001000010079074f05a0000003089000"},
		{"00a40400 0b a0000003080000100001 00", "61114f0600001000010079074f05a0000003089000"},
		{"00a40400 04 a0000003", "6a82"},
		{"00a40400 05 a000000397", "6a82"},
		{"00a40000 02 3f00", "6a82"},
		{selectPIV, "61114f0600001000010079074f05a0000003089000"},
		{"00fd0000", "0504039000"},
		{"00f80000", "010203049000"},
		{"00a40400 08 a000000527471117", "0504039000"},
		{"00fd0000", "6d00"},
		{"00a40400 08 a000000527200101", "0504039000"},
		{"00011000", "010203049000"},
	} {
		if got := send(t, c, r.apdu); got != r.want {
			t.Errorf("%s: %s, want %s", r.apdu, got, r.want)
		}
	}
	if got := send(t, c, "00a40400 08 a000000527471117", "001d0000"); !strings.Contains(got, "020401020304") || !strings.Contains(got, "040104") || !strings.Contains(got, "0503050403") {
		t.Errorf("device configuration: %s", got)
	}
	if old := newTestCard(t, Options{Firmware: [3]byte{4, 3, 5}}); send(t, old, selectPIV, "00f80000") != "6d00" || send(t, old, "00f7009b") != "6d00" {
		t.Error("firmware 4 knows commands of 5")
	}
	if _, err := New(Options{Firmware: [3]byte{4, 2, 9}}); err == nil {
		t.Error("a card that can't attest was made")
	}
}

// SP 800-73-4 part 2 sections 3.2.1 to 3.2.3: tries are counted, and come back
// with the right one.
func TestPINTries(t *testing.T) {
	c := newTestCard(t, Options{})
	send(t, c, selectPIV)
	for i, r := range []struct{ apdu, want string }{
		{tellTries, "63c3"},
		{wrongPIN, "63c2"},
		{tellTries, "63c2"},
		{rightPIN, "9000"},
		{tellTries, "9000"},  // verified
		{"0020ff80", "9000"}, // no more
		{tellTries, "63c3"},
		{rightPIN, "9000"},
		{wrongPIN, "63c2"}, // which also takes the right away
		{tellTries, "63c2"},
		{"00200080 06 313233343536", "6a80"},     // not filled up: no try
		{"00200081 08 3132333435363738", "6a88"}, // the PUK isn't verified
		{wrongPIN, "63c1"},
		{wrongPIN, "6983"},
		{rightPIN, "6983"}, // too late
		{"00240080 10 313233343536ffff 363534333231ffff", "6983"},
		{"002c0080 10 3131313131313131 363534333231ffff", "63c2"},
		{"002c0080 10 3132333435363738 363534333231ffff", "9000"}, // unblocked, with a new PIN
		{tellTries, "63c3"},
		{rightPIN, "63c2"},
		{"00200080 08 363534333231ffff", "9000"},
		{"00240080 10 363534333231ffff 313233343536ffff", "9000"},
		{rightPIN, "9000"},
		{"00240081 10 3132333435363738 3837363534333231", "9000"},
		{"00240081 10 3132333435363738 3837363534333231", "63c2"},
		{"00240082 10 3132333435363738 3837363534333231", "6a88"},
		{"00240080 0f 313233343536ffff 363534333231ff", "6a80"},
	} {
		if got := send(t, c, r.apdu); got != r.want {
			t.Fatalf("%d: %s: %s, want %s", i, r.apdu, got, r.want)
		}
	}
	if c.Tries() != 3 {
		t.Errorf("%d tries", c.Tries())
	}
}

// What is lost with power and by selecting anew is the session, nothing else.
func TestSessionEnds(t *testing.T) {
	c := newTestCard(t, Options{})
	for name, end := range map[string]func(){
		"power":  c.Reset,
		"select": func() { send(t, c, selectPIV) },
		"forget": c.Forget,
	} {
		send(t, c, selectPIV, rightPIN)
		manage(t, c)
		if got := send(t, c, "00db3fff 08 5c035fc102 5301 aa"); got != "9000" {
			t.Fatalf("%s: writing with the management key: %s", name, got)
		}
		end()
		if name == "power" {
			send(t, c, selectPIV)
		}
		if got := send(t, c, tellTries); got != "63c3" {
			t.Errorf("%s: the PIN is still verified: %s", name, got)
		}
		if got := send(t, c, "00db3fff 08 5c035fc102 5301 aa"); got != "6982" {
			t.Errorf("%s: still managed: %s", name, got)
		}
	}
}

// Objects: written whole and in chains, read in pages, deleted, protected.
func TestObjects(t *testing.T) {
	c := newTestCard(t, Options{})
	send(t, c, selectPIV)
	if got := send(t, c, "00cb3fff 03 5c017e"); got != "7e124f0ba0000003080000100001005f2f0240009000" {
		t.Errorf("discovery: %s", got)
	}
	if got := send(t, c, "00cb3fff 05 5c035fc102"); got != "6a82" {
		t.Errorf("an empty object: %s", got)
	}
	manage(t, c)
	big := bytes.Repeat([]byte{0xab}, 700)
	object := append([]byte{0x5c, 3, 0x5f, 0xc1, 2}, tlv(0x53, big...)...)
	for part := range slices.Chunk(object, 255) {
		cla := byte(0x10)
		if &part[len(part)-1] == &object[len(object)-1] {
			cla = 0
		}
		r, _ := c.Transmit(append([]byte{cla, 0xdb, 0x3f, 0xff, byte(len(part))}, part...))
		if !bytes.Equal(r, []byte{0x90, 0}) {
			t.Fatalf("writing: %x", r)
		}
	}
	read, _ := hex.DecodeString("00cb3fff055c035fc102")
	var got []byte
	r, _ := c.Transmit(read)
	pages := 1
	for ; r[len(r)-2] == 0x61; pages++ {
		got = append(got, r[:len(r)-2]...)
		r, _ = c.Transmit([]byte{0, 0xc0, 0, 0, 0})
	}
	got = append(got, r[:len(r)-2]...)
	if !bytes.Equal(got, object[5:]) || pages != 3 {
		t.Errorf("read %d bytes in %d pages, want %d in 3", len(got), pages, len(object)-5)
	}
	if sw := send(t, c, "00c00000 00"); sw != "6985" {
		t.Errorf("a response nobody waits for: %s", sw)
	}
	// In one piece for who can take it.
	if whole := send(t, c, "00cb3fff 000005 5c035fc102 0000"); len(whole) != 2*(len(object)-5+2) {
		t.Errorf("extended: %d bytes", len(whole)/2)
	}
	for _, r := range []struct{ apdu, want string }{
		{"00db3fff 07 5c035fc102 5300", "9000"}, // deleted
		{"00cb3fff 05 5c035fc102", "6a82"},
		{"00cb3fff 05 5c035fc109", "6982"}, // wants the PIN
		{rightPIN, "9000"},
		{"00cb3fff 05 5c035fc109", "6a82"},
		{"00cb0000 05 5c035fc102", "6a86"},
		{"00cb3fff 02 5300", "6a80"},
		{"10db3fff 03 5c035f", "9000"}, // a chain that another command breaks
		{"00fd0000", "6883"},
		{"00fd0000", "0507019000"},
	} {
		if got := send(t, c, r.apdu); got != r.want {
			t.Errorf("%s: %s, want %s", r.apdu, got, r.want)
		}
	}
	for range 3072 / 255 {
		c.Transmit(append([]byte{0x10, 0xdb, 0x3f, 0xff, 255}, make([]byte, 255)...))
	}
	if got := send(t, c, "10db3fff ff"+strings.Repeat("00", 255)); got != "6a84" {
		t.Errorf("a chain without end: %s", got)
	}
}

// signs reports whether the key signs now.
func signs(t *testing.T, c *Card, slot byte, public *ecdsa.PublicKey) string {
	t.Helper()
	digest := sha256.Sum256([]byte("message"))
	in := tlv(0x7c, append([]byte{0x82, 0}, tlv(0x81, digest[:]...)...)...)
	r, _ := c.Transmit(append([]byte{0, 0x87, algP256, slot, byte(len(in))}, in...))
	sw := binary.BigEndian.Uint16(r[len(r)-2:])
	if sw != swOK {
		return hex.EncodeToString(r)
	}
	f, ok := template(0x7c, r[:len(r)-2])
	if !ok || !ecdsa.VerifyASN1(public, digest[:], f[0x82]) {
		t.Fatalf("%x is no signature", r)
	}
	return "9000"
}

// makeKey makes a key and returns it.
func makeKey(t *testing.T, c *Card, slot byte, policies ...byte) *ecdsa.PublicKey {
	t.Helper()
	manage(t, c)
	in := tlv(0xac, append([]byte{0x80, 1, algP256}, policies...)...)
	r, _ := c.Transmit(append([]byte{0, 0x47, 0, slot, byte(len(in))}, in...))
	if len(r) != 72 || !bytes.HasPrefix(r, []byte{0x7f, 0x49, 67, 0x86, 65, 4}) {
		t.Fatalf("generate: %x", r)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), r[5:70])
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// The policies, and what a slot's are if nobody says (Yubico's PIV extensions).
func TestPolicies(t *testing.T) {
	c := newTestCard(t, Options{})
	send(t, c, selectPIV)
	for _, k := range []struct {
		slot     byte
		policies []byte
		want     string // the metadata's
	}{
		{0x9a, nil, "02020201"}, // once, never
		{0x9c, nil, "02020301"}, // always
		{0x9e, nil, "02020101"}, // never
		{0x82, []byte{0xaa, 1, 0, 0xab, 1, 0}, "02020201"},
		{0x83, []byte{0xaa, 1, 3, 0xab, 1, 3}, "02020303"},
	} {
		makeKey(t, c, k.slot, k.policies...)
		if got := send(t, c, "00f700"+hex.EncodeToString([]byte{k.slot})); !strings.HasPrefix(got, "010111"+k.want+"030101") {
			t.Errorf("%02x: %s", k.slot, got)
		}
	}
	once, always, never := makeKey(t, c, 0x9a), makeKey(t, c, 0x9c), makeKey(t, c, 0x9e)
	touch := makeKey(t, c, 0x9d, 0xaa, 1, 1, 0xab, 1, 2)
	send(t, c, selectPIV)
	expect := func(when string, slot byte, key *ecdsa.PublicKey, want string) {
		t.Helper()
		if got := signs(t, c, slot, key); got != want {
			t.Errorf("%s, slot %02x: %s, want %s", when, slot, got, want)
		}
	}
	expect("no PIN", 0x9a, once, "6982")
	expect("no PIN", 0x9c, always, "6982")
	expect("no PIN", 0x9e, never, "9000")
	send(t, c, rightPIN)
	expect("PIN", 0x9a, once, "9000")
	expect("PIN a while ago", 0x9c, always, "6982")
	send(t, c, rightPIN)
	expect("PIN", 0x9c, always, "9000")
	expect("PIN, used up", 0x9c, always, "6982")
	expect("PIN", 0x9a, once, "9000")
	expect("touched", 0x9d, touch, "9000")
	c.SetTouched(false)
	expect("untouched", 0x9d, touch, "6982")
	expect("an empty slot", 0x84, once, "6a80")
	if c.Signatures() != 5 {
		t.Errorf("%d signatures counted, want 5", c.Signatures())
	}
}

// Who may make keys, and which.
func TestGenerateRefuses(t *testing.T) {
	c := newTestCard(t, Options{Firmware: [3]byte{5, 4, 3}})
	send(t, c, selectPIV, rightPIN)
	if got := send(t, c, "0047009a 05 ac03800111"); got != "6982" {
		t.Errorf("without the management key: %s", got)
	}
	for _, wrong := range []string{"0087039b 04 7c028000", "0087039b 16 7c14 8008 0000000000000000 8108 0000000000000000"} {
		send(t, c, wrong)
	}
	if got := send(t, c, "0047009a 05 ac03800111"); got != "6982" {
		t.Errorf("with a wrong management key: %s", got)
	}
	manage(t, c)
	for apdu, want := range map[string]string{
		"0047009a 05 ac038001e0":       "6a80", // Ed25519, RSA-3072 and RSA-4096 before 5.7
		"0047009a 05 ac03800105":       "6a80",
		"0047009a 05 ac03800116":       "6a80",
		"0047009a 05 ac03800199":       "6a80",
		"0047009b 05 ac03800111":       "6a86",
		"004700f9 05 ac03800111":       "6a86",
		"0047009a 08 ac06800111aa0109": "6a80",
		"0047009a 08 ac06800111ab0104": "6a80",
		"0047009a 08 ac06800111800111": "6a80",
		"0047009a 02 ac00":             "6a80",
		"0047009a 00":                  "6a80",
		"00f90000 00":                  "6a80",
		"00f99a00 00":                  "6a80", // nothing to attest
		"00f7009a 00":                  "6a88",
		"00fb0000 00":                  "6985", // reset: nothing is blocked
		"00fa0505 00":                  "9000",
		"00fa0005 00":                  "6a86",
	} {
		if got := send(t, c, apdu); got != want {
			t.Errorf("%s: %s, want %s", apdu, got, want)
		}
	}
	if c.Tries() != 5 {
		t.Errorf("%d tries after setting them to 5", c.Tries())
	}
}

// The chain is one that Go verifies, on both sides of firmware 5.7.
func TestAttestationChain(t *testing.T) {
	maker, err := NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	for _, firmware := range [][3]byte{{5, 4, 3}, {5, 7, 1}} {
		c := newTestCard(t, Options{Serial: 77, Firmware: firmware, Maker: maker})
		send(t, c, selectPIV)
		public := makeKey(t, c, 0x9c)
		der, _ := hex.DecodeString(send(t, c, "00f99c00 000000"))
		statement, err := x509.ParseCertificate(der[:len(der)-2])
		if err != nil {
			t.Fatal(err)
		}
		if !public.Equal(statement.PublicKey) || statement.Subject.CommonName != "YubiKey PIV Attestation 9c" {
			t.Errorf("%v: another key or slot is attested: %s", firmware, statement.Subject)
		}
		stored := send(t, c, "00cb3fff 000005 5c035fff01 0000")
		device := c.device.certificate
		if !strings.Contains(stored, hex.EncodeToString(device.Raw)) {
			t.Errorf("%v: slot f9 holds another certificate", firmware)
		}
		if !statement.NotBefore.Equal(device.NotBefore) || !statement.NotAfter.Equal(device.NotAfter) || !bytes.Equal(statement.RawIssuer, device.RawSubject) {
			t.Errorf("%v: the dates or the issuer aren't the device's", firmware)
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(maker.Root())
		for _, m := range append(maker.Issuers(), device) {
			between.AddCert(m)
		}
		chains, err := statement.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			t.Fatalf("%v: %v", firmware, err)
		}
		if want := 3 + int(firmware[1]/7); len(chains[0]) != want {
			t.Errorf("%v: a chain of %d, want %d", firmware, len(chains[0]), want)
		}
	}
}

// A reset gives all back to the factory but the attestation key.
func TestReset(t *testing.T) {
	c := newTestCard(t, Options{})
	send(t, c, selectPIV)
	makeKey(t, c, 0x9a)
	for range 3 {
		send(t, c, wrongPIN, "00240081 10 3131313131313131 3131313131313131")
	}
	if got := send(t, c, "00fb0000"); got != "9000" {
		t.Fatal(got)
	}
	if send(t, c, "00f7009a") != "6a88" || c.Tries() != 3 || send(t, c, rightPIN) != "9000" {
		t.Error("the card isn't new")
	}
	if got := send(t, c, "00cb3fff 000005 5c035fff01 0000"); !strings.HasSuffix(got, "9000") {
		t.Errorf("the attestation certificate went: %s", got)
	}
}

func TestDelay(t *testing.T) {
	c := newTestCard(t, Options{})
	send(t, c, selectPIV)
	key := makeKey(t, c, 0x9e)
	c.SetDelay(time.Minute)
	if signs(t, c, 0x9e, key) != "9000" {
		t.Fatal("no signature")
	}
	in := tlv(0x7c, append([]byte{0x82, 0}, tlv(0x81, make([]byte, 32)...)...)...)
	if _, takes := c.Transmit(append([]byte{0, 0x87, algP256, 0x9e, byte(len(in))}, in...)); takes != time.Minute {
		t.Errorf("a signature takes %v", takes)
	}
	if _, takes := c.Transmit([]byte{0, 0xfd, 0, 0}); takes != 0 {
		t.Errorf("the version takes %v", takes)
	}
}

// Nothing that a host sends brings the card down, or makes it answer without a
// status word.
func FuzzTransmit(f *testing.F) {
	c := newTestCard(f, Options{Firmware: [3]byte{5, 4, 3}})
	send(f, c, selectPIV, rightPIN)
	manage(f, c)
	send(f, c, "0047009a 05 ac03800111")
	for _, seed := range []string{selectPIV, rightPIN, "0047009a05ac03800111", "0087119a047c028100", "00cb3fff035c017e", "00db3fff075c035fc1025300", "00fe119a220620" + strings.Repeat("01", 32), "00ffffff03089b10", "00f99a00", "10db3fff0100", "00c0000000", "0087119a067c0482008500"} {
		b, _ := hex.DecodeString(strings.ReplaceAll(seed, " ", ""))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, apdu []byte) {
		if len(apdu) > 1 && (apdu[1] == insGenerate || apdu[1] == insAttest) && len(apdu) > 5 {
			apdu[len(apdu)-1] = algP256 // RSA keys take their time
		}
		if r, _ := c.Transmit(apdu); len(r) < 2 {
			t.Errorf("%x is answered by %x", apdu, r)
		}
	})
}
