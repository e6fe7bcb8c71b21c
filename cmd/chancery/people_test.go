package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/settings"
)

// So are those for operators of several CAs.
func TestOperatorsManualsSettings(t *testing.T) {
	text, err := os.ReadFile("../../docs/OPERATORS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "## Several CAs")
	_, after, _ = strings.Cut(after, "```yaml\n")
	yaml, _, ends := strings.Cut(after, "```\n")
	if !found || !ends {
		t.Fatal("the manual shows none")
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	c := loginCommand{Config: path, As: []string{"alice-admin.people.internal"}}
	s, err := c.settings()
	if err != nil || len(s.Certificates) != 2 || s.Certificates[1].CA != "west" || !strings.HasSuffix(s.CAs[1].Operator.Certificate, "/admin-west/cert.pem") {
		t.Errorf("%+v, %v", s, err)
	}
	c.CA = "east"
	if s, err := c.settings(); err != nil || len(s.Certificates) != 1 || s.Certificates[0].Name != "admin-east" {
		t.Errorf("with --ca: %+v, %v", s, err)
	}
}

// The settings that the manual shows are settings.
func TestManualsSettings(t *testing.T) {
	text, err := os.ReadFile("../../docs/PEOPLE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "```yaml\n")
	yaml, _, ends := strings.Cut(after, "```\n")
	if !found || !ends {
		t.Fatal("the manual shows none")
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.CAs) != 2 || len(s.Certificates) != 3 || s.Certificates[0].Into[0] != "slot" {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"laptop", "alice.people.internal"} {
		c := loginCommand{Config: path, As: []string{name}}
		if s, err := c.settings(); err != nil || len(s.Certificates) != 1 {
			t.Errorf("--as %s: %+v, %v", name, s, err)
		}
	}
	c := loginCommand{Config: path, Only: []string{"tls"}, CA: "west"}
	if s, err := c.settings(); err != nil || len(s.Certificates) != 2 || s.CAs[0].Name != "west" {
		t.Errorf("%+v, %v", s, err)
	}
}
