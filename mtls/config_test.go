package mtls

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// TestBadConfig: the error names the field and what would be right.
func TestBadConfig(t *testing.T) {
	good := func() Config {
		return Config{CAs: []CA{{Directory: "https://ca.test/d"}, {Directory: "https://ca2.test/d"}}, Names: []string{"a.test"}, Trust: &Trust{}}
	}
	for _, tc := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.CAs = nil }, "Config.CAs: none, and CHANCERY_DIRECTORY is not set"},
		{func(c *Config) { c.CAs = make([]CA, 65) }, "Config.CAs: 65 of them, at most 64"},
		{func(c *Config) { c.CAs[1].Directory = "http://ca.test/d" }, `Config.CAs[1].Directory: "http://ca.test/d" is not an https URL`},
		{func(c *Config) { c.CAs[0].Directory = "" }, "Config.CAs[0].Directory: empty; give the URL"},
		{func(c *Config) { c.CAs[0].Directory = "https:///d" }, "not an https URL"},
		{func(c *Config) { c.CAs[0].Directory = "https://u:p@ca.test/d" }, "not an https URL"},
		{func(c *Config) { c.CAs[0].Directory = "https://ca.test/%zz" }, "not an https URL"},
		{func(c *Config) { c.CAs[1].Directory = c.CAs[0].Directory }, "Config.CAs[1].Directory: \"https://ca.test/d\" stands there twice"},
		{func(c *Config) { c.CAs[0].Tier = -1 }, "Config.CAs[0].Tier: -1; the first tier is 0"},
		{func(c *Config) { c.CAs[0].EAB = &acme.ExternalAccount{MACKey: make([]byte, 32)} }, "Config.CAs[0].EAB.KeyID: empty"},
		{func(c *Config) { c.CAs[0].EAB = &acme.ExternalAccount{KeyID: "k"} }, "Config.CAs[0].EAB.MACKey: 0 bytes"},
		{func(c *Config) {
			c.CAs[0].EAB = &acme.ExternalAccount{KeyID: "k", MACKey: make([]byte, 32), Alg: "none"}
		}, "Config.CAs[0].EAB.Alg: \"none\""},
		{func(c *Config) { c.CAs[0].TokenFile = "/no/where" }, "Config.CAs[0].TokenFile: stat /no/where"},
		{func(c *Config) { c.Pick = 3 }, "Config.Pick: 3 is none of"},
		{func(c *Config) { c.Names = nil }, "Config.Names: none, and CHANCERY_NAMES is not set"},
		{func(c *Config) { c.Names = []string{"a.test", "b test"} }, `Config.Names[1]: "b test" is neither`},
		{func(c *Config) { c.Names = []string{"münchen.test"} }, "punycode"},
		{func(c *Config) { c.Names = []string{"a.*.test"} }, "Config.Names[0]"},
		{func(c *Config) { c.Names = []string{"fe80::1%eth0"} }, "has a zone"},
		{func(c *Config) { c.Names = make([]string, 101) }, "Config.Names: 101 of them"},
		{func(c *Config) { c.Usage = 7 }, "Config.Usage: 7 is none of"},
		{func(c *Config) { c.CAs[1].Usage = 3 }, "Config.CAs[1].Usage: 3 is none of"},
		{func(c *Config) { c.CAs[0].Usage, c.CAs[1].Usage = UsageServer, UsageServer }, "Config.Usage: both, but none of the CAs is asked for client certificates (CA.Usage)"},
		{func(c *Config) { c.CAs, c.CAs[0].Usage, c.Usage = c.CAs[:1], UsageClient, UsageServer }, "Config.Usage: server, but none of the CAs is asked for server certificates"},
		{func(c *Config) { c.Usage, c.SNI = UsageClient, onlyTest }, "Config.SNI: set, but UsageClient"},
		{func(c *Config) { c.Names, c.SNI = nil, onlyTest }, "Config.Names: none, but a client's certificate needs one"},
		{func(c *Config) { c.MaxSNI = -1 }, "Config.MaxSNI: -1"},
		{func(c *Config) { c.Lifetime = -time.Hour }, "Config.Lifetime: -1h"},
		{func(c *Config) { c.Lifetime = time.Second }, "Config.Lifetime: 1s; ask for a minute"},
		{func(c *Config) { c.RenewBefore = -1 }, "Config.RenewBefore: -1ns"},
		{func(c *Config) { c.Lifetime, c.RenewBefore = time.Hour, time.Hour }, "Config.RenewBefore: 1h0m0s; between"},
		{func(c *Config) { c.UserAgent = "a\r\nb: c" }, "Config.UserAgent"},
		{func(c *Config) { c.Cache = SealedFile("x", []byte("short")) }, "Config.Cache: SealedFile: the key has 5 bytes"},
		{func(c *Config) { c.Proof.Solvers = []acme.Solver{nil} }, "Config.Proof.Solvers[0]"},
		{func(c *Config) { c.Proof.TokenFile = "/no/where" }, "Config.Proof.TokenFile: stat /no/where"},
		{func(c *Config) { c.Proof.ListenALPN = "443" }, "Config.Proof.ListenALPN: address 443"},
		{func(c *Config) { c.Usage, c.Proof.ListenALPN = UsageClient, ":443" }, "Config.Proof.ListenALPN: set, but"},
		{func(c *Config) { c.Trust = nil }, "Config.Trust: nil, and CHANCERY_ROOTS is not set"},
	} {
		before := runtime.NumGoroutine()
		cfg := good()
		tc.change(&cfg)
		id, err := Start(cfg)
		if id != nil || err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "mtls: Config.") {
			t.Errorf("%v; want %q", err, tc.want)
		}
		if runtime.NumGoroutine() > before {
			t.Errorf("%s: a goroutine is left", tc.want)
		}
	}
	cfg := good()
	cfg.Pick, cfg.Usage = -1, -1
	if _, err := Start(cfg); err == nil || strings.Count(err.Error(), "Config.") != 2 {
		t.Errorf("%v; want both faults", err)
	}
}

// TestEnvironment: what the program leaves out comes from there.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		os.WriteFile(path, []byte(text), 0o600)
		return path
	}
	token, token2 := file("token", "e30.e30.e30"), file("token2", "e30.e30.e30")
	complete := func(cfg Config, vars ...string) (Config, error) {
		return cfg.complete(func(name string) string {
			for _, v := range vars {
				if n, value, _ := strings.Cut(v, "="); n == name {
					return value
				}
			}
			return ""
		})
	}
	cfg, err := complete(Config{}, "CHANCERY_DIRECTORY= https://a.test/d https://b.test/d | https://c.test/d\n", "CHANCERY_NAMES=x.test, Y.test z.test",
		"CHANCERY_TOKEN="+token, "CHANCERY_EAB="+file("eab", "k1 MDEyMzQ1Njc4OWFiY2RlZg\n-\nk3 MDEyMzQ1Njc4OWFiY2RlZg==\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.CAs) != 3 || cfg.CAs[1].Directory != "https://b.test/d" || cfg.CAs[1].Tier != 0 || cfg.CAs[2].Tier != 1 {
		t.Errorf("%+v", cfg.CAs)
	}
	if !slices.Equal(cfg.Names, []string{"x.test", "y.test", "z.test"}) || cfg.Proof.TokenFile != token {
		t.Errorf("%v %q", cfg.Names, cfg.Proof.TokenFile)
	}
	if e := cfg.CAs[0].EAB; e == nil || e.KeyID != "k1" || string(e.MACKey) != "0123456789abcdef" || cfg.CAs[1].EAB != nil || cfg.CAs[2].EAB == nil {
		t.Errorf("%+v", cfg.CAs)
	}
	if cfg.HedgeAfter != 10*time.Second || cfg.MaxSNI != 256 || cfg.Logger == nil || cfg.Clock == nil || !strings.HasPrefix(cfg.UserAgent, "mtls.test") {
		t.Errorf("defaults: %+v", cfg)
	}

	// Several tokens, one each.
	cfg, err = complete(Config{Names: []string{"own.test"}}, "CHANCERY_DIRECTORY=https://a.test/d https://b.test/d | https://c.test/d", "CHANCERY_NAMES=x.test", "CHANCERY_TOKEN="+token+" - "+token2)
	if err != nil || cfg.Proof.TokenFile != "" || cfg.CAs[0].TokenFile != token || cfg.CAs[1].TokenFile != "" || cfg.CAs[2].TokenFile != token2 {
		t.Errorf("%v %+v", err, cfg.CAs)
	}
	if !slices.Equal(cfg.Names, []string{"own.test"}) {
		t.Errorf("the environment won over the program: %v", cfg.Names)
	}

	// Directories for servers or clients only.
	cfg, err = complete(Config{Names: []string{"own.test"}}, "CHANCERY_DIRECTORY=server=https://a.test/d client=https://b.test/d?x=y https://c.test/d?server=z | server=https://d.test/d")
	if err != nil || cfg.CAs[0].Usage != UsageServer || cfg.CAs[1].Usage != UsageClient || cfg.CAs[2].Usage != UsageBoth || cfg.CAs[3].Usage != UsageServer ||
		cfg.CAs[1].Directory != "https://b.test/d?x=y" || cfg.CAs[2].Directory != "https://c.test/d?server=z" || cfg.CAs[3].Tier != 1 {
		t.Errorf("%v %+v", err, cfg.CAs)
	}

	// The program's CAs are whole: an EAB key of the environment isn't theirs.
	own := Config{CAs: []CA{{Directory: "https://own.test/d"}}, Names: []string{"a.test"}, Proof: Proof{TokenFile: token2}}
	cfg, err = complete(own, "CHANCERY_DIRECTORY=https://a.test/d", "CHANCERY_EAB="+file("eab1", "k1 MDEyMzQ1Njc4OWFiY2RlZg"), "CHANCERY_TOKEN="+token)
	if err != nil || len(cfg.CAs) != 1 || cfg.CAs[0].EAB != nil || cfg.Proof.TokenFile != token2 {
		t.Errorf("%v %+v", err, cfg)
	}

	directory := "CHANCERY_DIRECTORY=https://a.test/d https://b.test/d"
	for want, vars := range map[string][]string{
		"Config.CAs: none, and CHANCERY_DIRECTORY":        {"CHANCERY_NAMES=a.test"},
		"Config.Usage: both, but none of the CAs is":      {"CHANCERY_DIRECTORY=server=https://a.test", "CHANCERY_NAMES=a.test"},
		`"servers=https://a.test" is not an https URL`:    {"CHANCERY_DIRECTORY=servers=https://a.test", "CHANCERY_NAMES=a.test"},
		"set it in the pod's manifest":                    {directory, "KUBERNETES_SERVICE_HOST=10.0.0.1"},
		"name what the certificates are for":              {directory},
		"has 1 lines for 2 directories":                   {directory, "CHANCERY_NAMES=a.test", "CHANCERY_EAB=" + file("e1", "k1 MDEy")},
		"line 2 of " + filepath.Join(dir, "e2"):           {directory, "CHANCERY_NAMES=a.test", "CHANCERY_EAB=" + file("e2", "-\nk1")},
		"the MAC key is not base64url":                    {directory, "CHANCERY_NAMES=a.test", "CHANCERY_EAB=" + file("e3", "-\nk1 a+/b")},
		"more than 65536 bytes":                           {directory, "CHANCERY_NAMES=a.test", "CHANCERY_EAB=" + file("e4", strings.Repeat("x", 70_000))},
		"CHANCERY_EAB: open /no/where":                    {directory, "CHANCERY_NAMES=a.test", "CHANCERY_EAB=/no/where"},
		"CHANCERY_TOKEN names 3 files for 2 CAs":          {directory, "CHANCERY_NAMES=a.test", "CHANCERY_TOKEN=a b c"},
		"Config.Proof.TokenFile: stat /no/where":          {directory, "CHANCERY_NAMES=a.test", "CHANCERY_TOKEN=/no/where"},
		`Config.CAs[1].Directory: "http://b.test" is not`: {"CHANCERY_DIRECTORY=https://a.test|http://b.test", "CHANCERY_NAMES=a.test"},
	} {
		if _, err := complete(Config{}, vars...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// TestZeroConfig: a program that configures nothing.
func TestZeroConfig(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	directory, root := onLoopback(t, w.cas[0])
	roots := filepath.Join(t.TempDir(), "roots.pem")
	var text []byte
	for _, cert := range []*x509.Certificate{w.cas[0].Root, root} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	os.WriteFile(roots, text, 0o600)
	t.Setenv("CHANCERY_DIRECTORY", directory)
	t.Setenv("CHANCERY_ROOTS", roots)
	t.Setenv("CHANCERY_NAMES", "a.test")
	id, err := New(t.Context(), Config{Logger: w.cfg.Logger})
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	serverLeaf(t, id, "a.test")
	clientLeaf(t, id)
	t.Setenv("CHANCERY_ROOTS", "/no/where")
	if _, err := Start(Config{}); err == nil || !strings.Contains(err.Error(), "/no/where") || !strings.Contains(err.Error(), "CHANCERY_ROOTS") {
		t.Errorf("%v", err)
	}
}
