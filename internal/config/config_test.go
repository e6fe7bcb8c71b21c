package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// whole is a configuration about which there is nothing to say; the tests
// change it line by line.
const whole = `external_url: https://ca.internal
tls:
  profile: server
issuers:
  main:
    signers:
      - key: file:ca/main.key
        certificate: ca/main.pem
profiles:
  server:
    issuer: main
    usages: [server]
  client:
    issuer: main
    usages: [client]
directories:
  servers:
    profiles: [server]
    names:
      allow: ["*.prod.internal", 10.0.0.0/8]
  clients:
    profiles: [client]
    names:
      allow: ["*.prod.internal"]
    eab: {required: true}
`

func parse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("/etc/chancery/chancery.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

func TestWhole(t *testing.T) {
	c := parse(t, whole)
	if found := Check(c); len(found) > 0 {
		t.Fatal(found.Error())
	}
	if c.Listen != ":443" || !slices.Equal(c.TLS.Names, []string{"ca.internal"}) || c.Database.DSN != "chancery.db" {
		t.Errorf("defaults: %q, %q, %q", c.Listen, c.TLS.Names, c.Database.DSN)
	}
	if got := c.Path("ca/main.pem"); got != "/etc/chancery/ca/main.pem" {
		t.Error(got)
	}
	if c.Path("/abs") != "/abs" || c.Path("") != "" || c.File() != "/etc/chancery/chancery.yaml" {
		t.Error("absolute and empty paths stay")
	}
	for in, want := range map[string]string{
		"file:ca/main.key": "file:/etc/chancery/ca/main.key", "file:/k": "file:/k", "file:///k": "file:/k", "pkcs11:token=a": "pkcs11:token=a",
	} {
		if got := c.KeyURI(in); got != want {
			t.Errorf("KeyURI(%q) = %q, want %q", in, got, want)
		}
	}
	if c.DatabasePath("x.db") != "/etc/chancery/x.db" || c.DatabasePath("postgres://h/d") != "postgres://h/d" {
		t.Error("only SQLite paths are resolved")
	}
}

func TestConversion(t *testing.T) {
	c := parse(t, whole)
	d, err := c.Directory("servers")
	if err != nil {
		t.Fatal(err)
	}
	classic := []protocol.ChallengeType{protocol.HTTP01, protocol.DNS01, protocol.TLSALPN01}
	if d.Name != "servers" || d.DefaultProfile != "server" || !slices.Equal(d.Challenges, classic) || d.MaxIdentifiers != policy.DefaultMaxIdentifiers || d.EABRequired {
		t.Errorf("%+v", d)
	}
	p := d.Profiles[0]
	if p.Lifetime != 24*time.Hour || p.MaxLifetime != 24*time.Hour || p.Backdate != time.Minute || p.Revocation != cert.RevocationNone ||
		p.Issuer != "main" || !slices.Equal(p.Challenges, classic) || len(p.KeyTypes) != 7 || slices.Contains(p.KeyTypes, cert.MLDSA44) {
		t.Errorf("%+v", p)
	}
	if err := d.Check([]protocol.Identifier{{Type: protocol.DNS, Value: "a.prod.internal"}, {Type: protocol.IP, Value: "10.1.2.3"}}, nil); err != nil {
		t.Error(err)
	}
	// DESIGN section 5: a client profile has no classic challenge unless told to.
	if d, err = c.Directory("clients"); err != nil || len(d.Profiles[0].Challenges) != 0 || len(d.Challenges) != 0 || !d.EABRequired {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := c.Directory("nope"); err == nil {
		t.Error("a directory that isn't there")
	}
	if _, err := (&Config{Directories: map[string]Directory{"a": {Names: Names{Allow: []string{".x"}}}}}).Directory("a"); err == nil {
		t.Error("a bad pattern in a configuration that wasn't checked")
	}
	if _, err := (&Config{Directories: map[string]Directory{"a": {Profiles: []string{"x"}}}}).Directory("a"); err == nil {
		t.Error("a lost profile in a configuration that wasn't checked")
	}
}

func TestExplicitEmptyChallenges(t *testing.T) {
	c := parse(t, strings.Replace(whole, "usages: [server]", "usages: [server]\n    challenges: []", 1))
	if d, err := c.Directory("servers"); err != nil || len(d.Challenges) != 0 {
		t.Errorf("%v %v: an empty list means none", d.Challenges, err)
	}
}

func TestLimits(t *testing.T) {
	c := parse(t, whole+`rate_limits:
  orders_per_account: 5 per 1m
  orders_per_client: off
`)
	servers := c.Directories["servers"]
	servers.RateLimits.OrdersPerClient = Limit{Count: 7, Per: time.Hour}
	c.Directories["servers"] = servers
	l := c.Limits("servers")
	if l.OrdersPerAccount != (Limit{Count: 5, Per: time.Minute}) || l.OrdersPerClient.Count != 7 || l.NewAccountsPerAddress.Count != 1000 {
		t.Errorf("%+v", l)
	}
	if l = c.Limits("clients"); !l.OrdersPerClient.Off || l.FailedValidationsPerAccount.Count != 100 {
		t.Errorf("%+v", l)
	}
}

// Faults that Load itself finds, each at its place.
func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "external_url: https://a\nlisten: \":1\"\nlisen: \":2\"\n", `f:3:1: lisen: unknown key; known here: external_url, listen,`},
		{"unknown key below", "log:\n  format: text\n  colour: red\n", "f:3:3: log.colour: unknown key; known here: format, level"},
		{"duplicate key", "log:\n  level: info\n  level: warn\n", "f:3:3: "},
		{"duplicate directory", "directories:\n  a: {}\n  \"a\": {}\n", "f:3:3: "},
		{"duration without unit", "audit:\n  keep: 30\n", `f:2:9: audit.keep: "30" is not a duration`},
		{"zero duration", "audit:\n  keep: 0s\n", "f:2:9: audit.keep: this must be longer than zero"},
		{"negative duration", "audit:\n  keep: -5h\n", "f:2:9: audit.keep: "},
		{"network with host bits", "trusted_proxies:\n  - 10.0.0.0/8\n  - 10.0.0.1/8\n", `f:3:5: trusted_proxies[1]: "10.0.0.1/8" has bits set beyond its length; write "10.0.0.0/8"`},
		{"section instead of value", "listen:\n  port: 1\n", "f:1:1: listen: this is a section; one value is wanted"},
		{"value instead of section", "tls: yes\n", "f:1:1: tls: this is text; a section"},
		{"value instead of list", "directories:\n  a:\n    profiles: server\n", "f:3:5: directories.a.profiles: this is text; a list is wanted"},
		{"text instead of bool", "directories:\n  a:\n    eku_from_csr: yes\n", "f:3:19: directories.a.eku_from_csr: this is text; true or false is wanted"},
		{"quoted bool", "directories: {a: {eku_from_csr: \"true\"}}\n", "f:1:33: directories.a.eku_from_csr: this is text"},
		{"text instead of number", "directories: {a: {max_identifiers: many}}\n", "a whole number is wanted"},
		{"fraction", "directories: {a: {max_identifiers: 1.5}}\n", "a whole number is wanted"},
		{"huge number", "directories: {a: {max_identifiers: 99999999999999999999}}\n", "a whole number is wanted"},
		{"zero", "directories: {a: {max_identifiers: 0}}\n", "not above zero"},
		{"empty entry", "trusted_proxies: [10.0.0.0/8, ~]\n", "trusted_proxies[1]: the entry is empty"},
		{"bad name", "profiles:\n  Web_Server: {}\n", "f:2:3: profiles.Web_Server: a name is 1 to 32"},
		{"bare star", "directories:\n  a:\n    names:\n      allow: [*.prod.internal]\n", "f:4:15: a value that begins with * needs quotes"},
		{"alias", "log: &x {level: info}\nadmin: *x\n", "f:1:6: YAML anchors"},
		{"tag", "listen: !!str 1\n", "f:1:9: YAML anchors, tags"},
		{"merge key", "log:\n  <<: {level: info}\n", "f:2:3: YAML anchors"},
		{"complex key", "? [a]\n: b\n", "f:1:1: YAML anchors"},
		{"two documents", "listen: \":1\"\n---\nlisten: \":2\"\n", "more than one document"},
		{"tab", "\tlisten: 1\n", "f:1:7: tab character"},
		{"unclosed", "listen: \"abc\n", "f:1:"},
		{"list at the top", "- a\n", "f:1:1: this is a list; a section"},
		{"text at the top", "hello\n", "f:1:1: this is text; a section"},
		{"not UTF-8", "listen: \xff\n", "f: the file is not UTF-8"},
		{"control characters", "listen: \"a\\0b\"\n", "f:1:9: listen: the value has line breaks or control characters"},
		{"line breaks", "listen: |\n  a\n  b\n", "control characters"},
		{"deep", "listen: " + strings.Repeat("[", 100000), "nested too deeply"},
		{"deep dashes", strings.Repeat("- ", 100000), "nested too deeply"},
		{"limit", "rate_limits: {orders_per_account: 5}\n", `"5" is not a limit; write it as in "300 per 3h", or off`},
		{"resolver", "directories: {a: {validation: {resolvers: [dns.internal]}}}\n", "is not a resolver"},
		{"too large", "# " + strings.Repeat("x", maxSize) + "\n", "larger than 4 MiB"},
	} {
		got, err := Parse("f", []byte(c.text))
		if err == nil {
			t.Errorf("%s: accepted: %+v", c.name, got)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q\nwant %q", c.name, err, c.want)
		}
	}
}

func TestLoadReportsAllAtOnce(t *testing.T) {
	_, err := Parse("f", []byte("lisen: 1\naudit: {keep: x}\nlog: {colour: red}\n"))
	if ps, ok := err.(Problems); !ok || len(ps) != 3 || ps[0].Line != 1 || ps[1].Line != 2 || ps[2].Line != 3 {
		t.Errorf("%v", err)
	}
}

func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	if _, err := Load(path); !os.IsNotExist(err) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil || c.Path("a") != filepath.Join(dir, "a") {
		t.Error(c, err)
	}
	t.Chdir(dir)
	if c, err = Load("c.yaml"); err != nil || !filepath.IsAbs(c.Path("a")) {
		t.Error("a relative path must survive a change of folder:", err)
	}
	if _, err = Load(dir); err == nil {
		t.Error("a folder was taken")
	}
}

// Empty files and configurations made in code have problems, not panics.
func TestCheckEmpty(t *testing.T) {
	for _, c := range []*Config{parse(t, ""), parse(t, "# nothing\n"), parse(t, "tls:\nissuers:\n  a:\n"), {}} {
		found := Check(c)
		if !strings.Contains(found.Errors().Error(), "external_url: it is required") {
			t.Error(found.Error())
		}
	}
}

func TestDiff(t *testing.T) {
	a, b := parse(t, whole), parse(t, whole)
	if found := Diff(a, b); len(found) != 0 {
		t.Error(found.Error())
	}
	b = parse(t, strings.Replace(whole, "10.0.0.0/8", "10.0.0.0/9", 1))
	if found := Diff(a, b); len(found) != 0 {
		t.Error("names can be changed while running:", found.Error())
	}
	b = parse(t, strings.Replace(whole, "https://ca.internal", "https://ca.internal:8443", 1)+
		"database: {dsn: other.db}\nmetrics: {listen: \"127.0.0.1:1\"}\nadmin: {socket: x, listen: \":8444\"}\npublish: {listen: \":80\"}\ntrusted_proxies: [10.0.0.1]\nsigning: {crl: 2%}\n")
	found := Diff(a, b)
	if len(found) != 9 {
		t.Errorf("%d warnings:\n%v", len(found), found.Error())
	}
	for _, p := range found {
		if !p.Warning {
			t.Error(p)
		}
	}
	if !strings.Contains(found.Error(), "chancery.yaml:26:1: warning: database: ") {
		t.Error(found.Error())
	}
}

// Announcements leave time for a ceremony, and are no alarm from birth on.
func TestNotice(t *testing.T) {
	c := parse(t, strings.Replace(whole, "usages: [server]", "usages: [server]\n    max_lifetime: 90d", 1))
	for _, tt := range []struct {
		issuer     string
		life, want time.Duration
	}{
		{"", 5 * 365 * day, 60 * day}, {"main", 5 * 365 * day, 120 * day}, {"", 90 * day, 18 * day}, {"main", 100 * day, 20 * day},
	} {
		if got := c.Notice(tt.issuer, tt.life); got != tt.want {
			t.Errorf("%q, %v: %v, want %v", tt.issuer, tt.life, got, tt.want)
		}
	}
}

// Errors that show later carry the place, and keep what they are.
func TestAt(t *testing.T) {
	c := parse(t, whole)
	cause := errors.New("no cRLSign")
	err := c.At("issuers.main.signers[0].certificate", cause)
	if err.Error() != "/etc/chancery/chancery.yaml:8:22: issuers.main.signers[0].certificate: no cRLSign" || !errors.Is(err, cause) {
		t.Error(err)
	}
	if again := c.At("issuers.main", err); again.Error() != err.Error() {
		t.Errorf("a second place: %v", again)
	}
	if c.At("x", nil) != nil || c.At("issuers.main.signers[7].key", cause).Error() != "/etc/chancery/chancery.yaml:6:5: issuers.main.signers[7].key: no cRLSign" {
		t.Error(c.At("issuers.main.signers[7].key", cause))
	}
}

func TestKeyURIs(t *testing.T) {
	c := parse(t, revocable)
	signers := c.Issuers["main"].Signers
	if got := c.KeyURIs(signers[0]); len(got) != 2 || got[1] != "pkcs11:token=a;serial=2;object=k" {
		t.Errorf("%q", got)
	}
	if got := c.KeyURIs(signers[3]); len(got) != 1 || got[0] != "file:/etc/chancery/ca/4.key" {
		t.Errorf("%q", got)
	}
	if got := c.KeyURIs(signers[2]); got != nil {
		t.Errorf("a key elsewhere: %q", got)
	}
	if err := c.Signing.Shares().Check(); err != nil || c.Signing.Shares()[schedule.Issuance] < 0.649 {
		t.Errorf("%v, %v", c.Signing.Shares(), err)
	}
}
