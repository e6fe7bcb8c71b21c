package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Whatever the bytes, Parse and Check answer, and soon.
func FuzzParse(f *testing.F) {
	var b bytes.Buffer
	if err := initial().Write(&b); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		whole, pods, b.String(), "", "a", "- a\n- b: c\n", "log:\n  level: \"x\n", "profiles: {a: {usages: [server], key_types: []}}",
		"audit: {keep: 7d}\nrate_limits: {orders_per_account: 1 per 1h}\n", "directories: {a: {validation: {resolvers: [\"tls://[::1]#x\"], allow: [::/0]}}}",
		"database: {dsn: \"postgres://u:p@h:1/x?password=\"}", "listen: |\n  x\n", "? a\n: b\n", "\"\\uD800\": 1", "a: >-\n b\n\n\n c\n", "---\n...\n---\na: 1", "#", ":", "{", "[a", "a: {b", "'", "%A", "!", "&a", "*a",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		began := time.Now()
		defer func() {
			if spent := time.Since(began); spent > 5*time.Second {
				t.Fatalf("took %v", spent)
			}
		}()
		c, err := Parse("f", data)
		if err != nil {
			if ps, ok := err.(Problems); !ok || len(ps) == 0 || len(ps.Errors()) != len(ps) {
				t.Fatalf("%#v", err)
			}
			if strings.Contains(err.Error(), parserPanicked) {
				t.Fatal(err)
			}
			return
		}
		found := Check(c)
		Diff(c, c)
		for name := range c.Directories {
			if _, err := c.Directory(name); err != nil && len(found.Errors()) == 0 {
				t.Fatalf("Check found nothing, yet %v", err)
			}
			c.Limits(name)
		}
	})
}

// Ten thousand patterns are a normal file.
func TestManyPatterns(t *testing.T) {
	var b strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&b, "        - \"*.team%d.internal\"\n", i)
	}
	text := strings.Replace(whole, "[\"*.prod.internal\", 10.0.0.0/8]", "\n"+b.String(), 1)
	began := time.Now()
	c := parse(t, text)
	if found := Check(c); len(found) > 0 {
		t.Fatal(found.Error())
	}
	if d, err := c.Directory("servers"); err != nil || len(d.Names.Allow.Patterns()) != 10000 {
		t.Fatal(err)
	}
	if spent := time.Since(began); spent > 5*time.Second {
		t.Errorf("took %v", spent)
	}
}
