package sshca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// Every kind of CA key signs for every kind of key; x/crypto and OpenSSH read
// the certificate, and the same bytes give the same certificate again.
func TestEveryKeySigns(t *testing.T) {
	dir := t.TempDir()
	formats := map[string]string{
		"ed25519": "ssh-ed25519", "p256": "ecdsa-sha2-nistp256", "p384": "ecdsa-sha2-nistp384", "p521": "ecdsa-sha2-nistp521", "rsa": "rsa-sha2-512",
	}
	for caName, ca := range signers() {
		var all []byte
		for name, key := range plainKeys() {
			p, err := authority(ca).Prepare(request(key))
			if err != nil {
				t.Fatalf("%s for %s: %v", caName, name, err)
			}
			wire, err := p.Sign(signWith(ca))
			if err != nil {
				t.Fatalf("%s for %s: %v", caName, name, err)
			}
			text, err := sshca.CertificateLine(wire)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, text...)
			c := must(ssh.ParsePublicKey(wire)).(*ssh.Certificate)
			checker := ssh.CertChecker{Clock: func() time.Time { return now }}
			if err := checker.CheckCert("alice", c); err != nil {
				t.Errorf("%s for %s: %v", caName, name, err)
			}
			if c.Signature.Format != formats[caName] {
				t.Errorf("%s signs with %s", caName, c.Signature.Format)
			}
			again := must(must(authority(ca).Resume(p.TBS)).Sign(signWith(ca)))
			if strings.HasPrefix(caName, "p") {
				wire, again = wire[:len(p.TBS)], again[:len(p.TBS)]
			}
			if !bytes.Equal(wire, again) {
				t.Errorf("%s for %s: another certificate after a crash", caName, name)
			}
		}
		writeFile(t, dir, caName+"-cert.pub", all)
		out := mustKeygen(t, dir, "", "-L", "-f", caName+"-cert.pub")
		if got, want := strings.Count(out, `Key ID: "alice@example.com/yubikey-1234"`), len(plainKeys()); got != want {
			t.Errorf("%s: OpenSSH reads %d of %d certificates:\n%s", caName, got, want, out)
		}
	}
}

// What OpenSSH reads is what was asked for.
func TestOpenSSHReadsCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := newEd25519()
	token := fidos()["sk-ed25519"].PublicKey()
	r := request(token)
	r.Options = sshca.Options{
		ForceCommand: "/usr/bin/backup --to='a b'", VerifyRequired: true,
		SourceAddress: must(sshca.ParseSourceAddress("192.0.2.0/24,2001:db8::/32,198.51.100.7")),
	}
	r.Extensions = map[string]string{"login@github.com": "alice"}
	for _, name := range sshca.Extensions() {
		r.Extensions[name] = ""
	}
	r.OtherExtensions = []string{"login@github.com"}
	writeFile(t, dir, "user", ssh.MarshalAuthorizedKey(issue(t, ca, r)))
	fingerprint := func(key ssh.PublicKey) string { return strings.TrimPrefix(ssh.FingerprintSHA256(key), "SHA256:") }
	want := fmt.Sprintf(`user:
        Type: sk-ssh-ed25519-cert-v01@openssh.com user certificate
        Public key: ED25519-SK-CERT SHA256:%s
        Signing CA: ED25519 SHA256:%s (using ssh-ed25519)
        Key ID: "alice@example.com/yubikey-1234"
        Serial: 7
        Valid: from 2026-03-01T12:00:00 to 2026-03-02T04:00:00
        Principals: 
                alice
                root
        Critical Options: 
                force-command /usr/bin/backup --to='a b'
                source-address 192.0.2.0/24,2001:db8::/32,198.51.100.7/32
                verify-required
        Extensions: 
                login@github.com UNKNOWN OPTION: 0000000a00000005616c696365 (len 14)
                no-touch-required
                permit-X11-forwarding
                permit-agent-forwarding
                permit-port-forwarding
                permit-pty
                permit-user-rc
`, fingerprint(token), fingerprint(public(ca)))
	got := mustKeygen(t, dir, "", "-L", "-f", "user")
	if at := strings.Index(got, "login@github.com UNKNOWN"); at < 0 { // which versions show differently
		t.Errorf("the custom extension isn't there:\n%s", got)
	} else {
		end := at + strings.IndexByte(got[at:], '\n')
		got = got[:at] + got[end:]
		at = strings.Index(want, "login@github.com UNKNOWN")
		end = at + strings.IndexByte(want[at:], '\n')
		want = want[:at] + want[end:]
	}
	if got != want {
		t.Errorf("OpenSSH reads\n%s\nwant\n%s", got, want)
	}

	r = request(public(newEd25519()))
	r.Kind, r.KeyID, r.Extensions, r.Principals = sshca.Host, "web.example.com", nil, []string{"web.example.com", "192.0.2.1", "2001:db8::1"}
	writeFile(t, dir, "host", ssh.MarshalAuthorizedKey(issue(t, ca, r)))
	out := mustKeygen(t, dir, "", "-L", "-f", "host")
	for _, part := range []string{"ssh-ed25519-cert-v01@openssh.com host certificate", "web.example.com\n                192.0.2.1\n                2001:db8::1\n", "Critical Options: (none)", "Extensions: (none)"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q isn't in what OpenSSH reads:\n%s", part, out)
		}
	}
}

// The bytes, field by field, as PROTOCOL.certkeys lists them for Ed25519.
func TestBytes(t *testing.T) {
	ca, key := newEd25519(), newEd25519()
	r := request(public(key))
	r.Options.ForceCommand = "true"
	r.Serial = 1<<63 + 5
	p := must(authority(ca).Prepare(r))
	s := cryptobyte.String(must(p.Sign(signWith(ca))))
	text := func() string {
		var n uint32
		var b []byte
		if !s.ReadUint32(&n) || !s.ReadBytes(&b, int(n)) {
			t.Fatal("cut short")
		}
		return string(b)
	}
	number := func() (n uint64) {
		if !s.ReadUint64(&n) {
			t.Fatal("cut short")
		}
		return n
	}
	tuple := func(parts ...string) (all string) {
		for _, part := range parts {
			all += string([]byte{0, 0, 0, byte(len(part))}) + part
		}
		return all
	}
	var kind uint32
	typ, nonce, pk, serial := text(), text(), text(), number()
	s.ReadUint32(&kind)
	id, principals, after, before, critical, extensions, reserved, signatureKey, signature := text(), text(), number(), number(), text(), text(), text(), text(), text()
	for what, ok := range map[string]bool{
		"type":           typ == "ssh-ed25519-cert-v01@openssh.com",
		"nonce":          len(nonce) == 32 && strings.Trim(nonce, "\x00") != "",
		"pk":             pk == string(key.Public().(ed25519.PublicKey)),
		"serial":         serial == 1<<63+5 && p.Serial == "8000000000000005",
		"kind":           kind == 1,
		"key id":         id == "alice@example.com/yubikey-1234",
		"principals":     principals == tuple("alice", "root"),
		"validity":       after == uint64(now.Unix()) && before == after+16*3600,
		"options":        critical == tuple("force-command", tuple("true")),
		"extensions":     extensions == tuple("permit-port-forwarding", "", "permit-pty", ""),
		"reserved":       reserved == "",
		"signature key":  signatureKey == string(public(ca).Marshal()),
		"signature":      strings.HasPrefix(signature, tuple("ssh-ed25519")) && len(signature) == 4+11+4+64,
		"nothing beyond": s.Empty(),
	} {
		if !ok {
			t.Errorf("%s isn't what PROTOCOL.certkeys says", what)
		}
	}
}

// Requests that must not become certificates.
func TestPrepareRefuses(t *testing.T) {
	key, token := public(newEd25519()), fidos()["sk-p256"].PublicKey()
	long := strings.Repeat("a", 256)
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprint("user", i)
	}
	host := func(names ...string) func(*sshca.Request) {
		return func(r *sshca.Request) { r.Kind, r.Extensions, r.Principals = sshca.Host, nil, names }
	}
	principals := func(names ...string) func(*sshca.Request) {
		return func(r *sshca.Request) { r.Principals = names }
	}
	id := func(text string) func(*sshca.Request) { return func(r *sshca.Request) { r.KeyID = text } }
	extension := func(name, value string) func(*sshca.Request) {
		return func(r *sshca.Request) {
			r.Extensions, r.OtherExtensions = map[string]string{name: value}, []string{name}
		}
	}
	command := func(text string) func(*sshca.Request) {
		return func(r *sshca.Request) { r.Options.ForceCommand = text }
	}
	source := func(p ...netip.Prefix) func(*sshca.Request) {
		return func(r *sshca.Request) { r.Options.SourceAddress = p }
	}
	for name, spoil := range map[string]func(*sshca.Request){
		"no kind":                           func(r *sshca.Request) { r.Kind = 0 },
		"kind 3":                            func(r *sshca.Request) { r.Kind = 3 },
		"no key":                            func(r *sshca.Request) { r.Key = nil },
		"a certificate for a key":           func(r *sshca.Request) { r.Key = issue(t, newEd25519(), request(key)) },
		"a type the profile hasn't":         func(r *sshca.Request) { r.KeyTypes = []cert.KeyType{cert.P256} },
		"no types at all":                   func(r *sshca.Request) { r.KeyTypes = []cert.KeyType{} },
		"serial 0":                          func(r *sshca.Request) { r.Serial = 0 },
		"ends before it begins":             func(r *sshca.Request) { r.ValidBefore = r.ValidAfter.Add(-time.Second) },
		"no time":                           func(r *sshca.Request) { r.ValidBefore = r.ValidAfter.Add(999 * time.Millisecond) },
		"begins in 1970":                    func(r *sshca.Request) { r.ValidAfter = time.Unix(0, 0) },
		"begins before":                     func(r *sshca.Request) { r.ValidAfter = time.Time{} },
		"for ever":                          func(r *sshca.Request) { r.ValidBefore = time.Unix(253402300800, 0) },
		"no key ID":                         id(""),
		"a long key ID":                     id(strings.Repeat("a", 257)),
		"a key ID that forges a log line":   id("alice (serial 1) CA ED25519"),
		"a key ID with a newline":           id("alice\nAccepted publickey for root"),
		"a key ID with a quote":             id(`alice"`),
		"no principals":                     principals(),
		"an empty principal":                principals("alice", ""),
		"a wildcard":                        principals("*"),
		"a wildcard inside":                 principals("al?ce"),
		"a negated pattern":                 principals("!alice"),
		"a comma":                           principals("alice,root"),
		"a space":                           principals("alice root"),
		"a newline":                         principals("alice\nroot"),
		"NUL":                               principals("root\x00alice"),
		"a comment of the principals file":  principals("#alice"),
		"an option of a command":            principals("-alice"),
		"a name outside ASCII":              principals("аlice"),
		"a token of sshd":                   principals("%u"),
		"a principal twice":                 principals("alice", "alice"),
		"a long principal":                  principals(long),
		"too many principals":               principals(many...),
		"a host's wildcard":                 host("*.example.com"),
		"a host's pattern":                  host("web?.example.com"),
		"a host in capitals":                host("Web.example.com"),
		"a host with a dot at the end":      host("web.example.com."),
		"a host with a port":                host("[web.example.com]:22"),
		"a host's address written long":     host("2001:db8:0::1"),
		"a host's address with a zone":      host("fe80::1%eth0"),
		"a mapped address":                  host("::ffff:192.0.2.1"),
		"a number for a host":               host("2130706433"),
		"a host certificate with pty":       func(r *sshca.Request) { r.Kind, r.Principals = sshca.Host, []string{"web.example.com"} },
		"a host certificate with a command": func(r *sshca.Request) { host("web.example.com")(r); command("true")(r) },
		"an extension not named":            func(r *sshca.Request) { r.Extensions = map[string]string{"login@github.com": "alice"} },
		"a misspelt extension":              extension("permit-PTY", ""),
		"an extension without a domain":     extension("login@", "x"),
		"an extension without a name":       extension("@github.com", "x"),
		"a value where none belongs":        extension("permit-pty", "yes"),
		"an extension's value in lines":     extension("login@github.com", "a\nb"),
		"a long value":                      extension("login@github.com", strings.Repeat("x", 1025)),
		"a space in an extension's name":    extension("log in@github.com", ""),
		"a command in two lines":            command("true\nfalse"),
		"a command with NUL":                command("true\x00"),
		"a command that isn't text":         command("\xff"),
		"a long command":                    command(strings.Repeat("x", 4097)),
		"a network with bits beyond":        source(netip.MustParsePrefix("192.0.2.1/24")),
		"no network":                        source(netip.Prefix{}),
		"a mapped network":                  source(netip.MustParsePrefix("::ffff:192.0.2.0/120")),
		"too many networks":                 source(bytesOf(netip.MustParsePrefix("192.0.2.0/24"), 65)...),
		"verify-required without a token":   func(r *sshca.Request) { r.Options.VerifyRequired = true },
	} {
		r := request(key)
		spoil(&r)
		if p, err := authority(newEd25519()).Prepare(r); err == nil || p != nil {
			t.Errorf("%s: was prepared", name)
		}
	}
	r := request(token) // that it isn't the table's fault
	r.Options = sshca.Options{ForceCommand: "true", VerifyRequired: true, SourceAddress: bytesOf(netip.MustParsePrefix("192.0.2.0/24"), 64)}
	r.Principals, r.KeyTypes = many[:256], []cert.KeyType{sshca.SKP256}
	if _, err := authority(newEd25519()).Prepare(r); err != nil {
		t.Error(err)
	}
}

func bytesOf[T any](v T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = v
	}
	return all
}

func TestAuthorityRefuses(t *testing.T) {
	for name, pub := range map[string]crypto.PublicKey{
		"nothing": nil, "text": "x", "P-224": must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public(),
		"a weak RSA key": &rsa.PublicKey{N: new(big.Int).Rsh(softRSA().N, 1024), E: 65537},
	} {
		if _, err := sshca.NewAuthority(pub); err == nil {
			t.Errorf("%s was taken for a CA key", name)
		}
	}
	if a := authority(newEd25519()); len(a.ID()) != 64 || a.ID() == authority(newEd25519()).ID() {
		t.Error("a CA key's ID isn't its own")
	}
}

// A token is for one signature, and only by the key that it was prepared for.
func TestToken(t *testing.T) {
	ca, other := newEd25519(), newEd25519()
	p := must(authority(ca).Prepare(request(public(newEd25519()))))
	if p.Used() || p.Serial != "0000000000000007" || !p.ValidAfter.Equal(now) || p.AuthorityID != authority(ca).ID() || len(p.KeyHash) != 64 {
		t.Errorf("prepared %+v", p.Serial)
	}
	tbs := bytes.Clone(p.TBS)
	p.TBS[40] ^= 1 // what the caller does with it changes nothing
	c := must(ssh.ParsePublicKey(must(p.Sign(signWith(ca))))).(*ssh.Certificate)
	if c.Serial != 7 {
		t.Error("other bytes were signed")
	}
	if _, err := p.Sign(signWith(ca)); !errors.Is(err, sshca.ErrUsed) || !p.Used() {
		t.Errorf("a used token: %v", err)
	}
	if _, err := authority(other).Resume(tbs); !errors.Is(err, sshca.ErrWrongAuthority) {
		t.Errorf("another CA key's bytes: %v", err)
	}
	if _, err := must(authority(ca).Resume(tbs)).Sign(signWith(other)); !errors.Is(err, sshca.ErrBadSignature) {
		t.Errorf("another key's signature: %v", err)
	}
	away := errors.New("the key is away")
	if _, err := must(authority(ca).Resume(tbs)).Sign(func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, away }); !errors.Is(err, away) {
		t.Errorf("a key that is away: %v", err)
	}
}

// A faulty key's signature doesn't leave.
func TestFaultyKeys(t *testing.T) {
	for name, ca := range signers() {
		for fault, change := range map[string]func([]byte) []byte{
			"a wrong bit":    func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			"a byte more":    func(b []byte) []byte { return append(b, 0) },
			"a byte less":    func(b []byte) []byte { return b[:len(b)-1] },
			"no signature":   func([]byte) []byte { return nil },
			"another's, 0s":  func(b []byte) []byte { return make([]byte, len(b)) },
			"R and S are 0s": func(b []byte) []byte { return []byte{0x30, 6, 2, 1, 0, 2, 1, 0} },
		} {
			p := must(authority(ca).Prepare(request(public(newEd25519()))))
			wire, err := p.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
				b, err := signWith(ca)(digest, opts)
				return change(b), err
			})
			if !errors.Is(err, sshca.ErrBadSignature) || wire != nil {
				t.Errorf("%s, %s: %v", name, fault, err)
			}
		}
	}
}

// Bytes from the database that Prepare wouldn't have made get no token.
func TestResumeRefuses(t *testing.T) {
	ca := newEd25519()
	key := public(newEd25519())
	plan := func(change func(*ssh.Certificate)) []byte {
		c := &ssh.Certificate{
			Nonce: make([]byte, 32), Key: key, Serial: 1, CertType: ssh.UserCert, KeyId: "alice", ValidPrincipals: []string{"alice"},
			ValidAfter: 1000, ValidBefore: 2000, SignatureKey: public(ca),
		}
		change(c)
		b := c.Marshal()
		return b[:len(b)-4]
	}
	if _, err := authority(ca).Resume(plan(func(*ssh.Certificate) {})); err != nil {
		t.Fatal(err)
	}
	good := plan(func(*ssh.Certificate) {})
	for name, bad := range map[string][]byte{
		"nothing":               nil,
		"a byte less":           good[:len(good)-1],
		"a byte more":           append(bytes.Clone(good), 0),
		"a plain key":           key.Marshal(),
		"a short nonce":         plan(func(c *ssh.Certificate) { c.Nonce = make([]byte, 16) }),
		"no principals":         plan(func(c *ssh.Certificate) { c.ValidPrincipals = nil }),
		"for ever":              plan(func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }),
		"serial 0":              plan(func(c *ssh.Certificate) { c.Serial = 0 }),
		"reserved bytes":        plan(func(c *ssh.Certificate) { c.Reserved = []byte{1} }),
		"kind 0":                plan(func(c *ssh.Certificate) { c.CertType = 0 }),
		"an unknown option":     plan(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x@example.com": ""} }),
		"an empty command":      plan(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": ""} }),
		"a bad source-address":  plan(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "everywhere"} }),
		"an unknown extension":  plan(func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-all": ""} }),
		"the time turned round": plan(func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 2000, 1000 }),
	} {
		if _, err := authority(ca).Resume(bad); err == nil {
			t.Errorf("%s: got a token", name)
		}
	}
}

func FuzzResume(f *testing.F) {
	ca := fixedEd25519()
	a := authority(ca)
	for _, key := range plainKeys() {
		f.Add(must(a.Prepare(request(key))).TBS)
	}
	f.Fuzz(func(t *testing.T, tbs []byte) {
		p, err := a.Resume(tbs)
		if err != nil {
			return
		}
		wire, err := p.Sign(signWith(ca)) // lints, and asks x/crypto
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(wire, tbs) {
			t.Fatal("other bytes were signed")
		}
	})
}

// What clients bring back: read as it was issued, or refused.
func FuzzRead(f *testing.F) {
	ca := newEd25519()
	for _, key := range plainKeys() {
		f.Add(must(must(authority(ca).Prepare(request(key))).Sign(signWith(ca))))
		f.Add(key.Marshal())
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		serial, key, err := sshca.Read(wire)
		if err != nil {
			return
		}
		c := must(ssh.ParsePublicKey(wire)).(*ssh.Certificate)
		if !bytes.Equal(c.Marshal(), wire) || !bytes.Equal(c.Key.Marshal(), key.Marshal()) {
			t.Fatal("another certificate than was read")
		}
		if n, err := sshca.ParseSerial(serial); c.Serial != 0 && (err != nil || n != c.Serial) {
			t.Fatalf("serial %q, %v", serial, err)
		}
	})
}

func TestCertificateLine(t *testing.T) {
	c := issue(t, newEd25519(), request(public(newEd25519())))
	text, err := sshca.CertificateLine(c.Marshal())
	if err != nil || text != string(ssh.MarshalAuthorizedKey(c)) {
		t.Errorf("%q, %v", text, err)
	}
	for _, bad := range [][]byte{nil, {0, 0, 0, 1}, public(newEd25519()).Marshal()} {
		if _, err := sshca.CertificateLine(bad); err == nil {
			t.Errorf("a line of %s", base64.StdEncoding.EncodeToString(bad))
		}
	}
}
