package kubernetes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigRefused(t *testing.T) {
	w, _ := newWorld(t)
	for _, c := range []struct {
		name  string
		edit  func(*Config)
		words []string
	}{
		{"no cluster", func(c *Config) { c.Cluster = "" }, []string{"Cluster:"}},
		{"a slash", func(c *Config) { c.Cluster = "a/b" }, []string{"Cluster:"}},
		{"upper case", func(c *Config) { c.Cluster = "East" }, []string{"Cluster:", "lower-case"}},
		{"a long name", func(c *Config) { c.Cluster = strings.Repeat("a", 64) }, []string{"Cluster:"}},
		{"no audience", func(c *Config) { c.Audience = "" }, []string{"Audience:", "directory's URL"}},
		{"audience is no URL", func(c *Config) { c.Audience = "kubernetes" }, []string{"Audience:"}},
		{"audience without TLS", func(c *Config) { c.Audience = "http://ca.test/directory" }, []string{"Audience:"}},
		{"timeout", func(c *Config) { c.Timeout = -time.Second }, []string{"Timeout:"}},
		{"domain with a dot", func(c *Config) { c.Domain = "cluster.local." }, []string{"Domain:", "cluster.local"}},
		{"domain in upper case", func(c *Config) { c.Domain = "Cluster.local" }, []string{"Domain:"}},
		{"domain with a wildcard", func(c *Config) { c.Domain = "*.local" }, []string{"Domain:"}},
		{"domain svc", func(c *Config) { c.Domain = "svc" }, []string{"Domain:"}},
		{"bare namespace", func(c *Config) { c.BareNamespace = "a.b" }, []string{"BareNamespace:"}},
		{"namespace", func(c *Config) { c.Namespaces = map[string][]string{"*": {"a.b"}} }, []string{"Namespaces:"}},
		{"pattern *", func(c *Config) { c.Namespaces = map[string][]string{"prod": {"*"}} }, []string{"Namespaces: prod:"}},
		{"pattern inside", func(c *Config) { c.Namespaces = map[string][]string{"prod": {"a.*.b"}} }, []string{"Namespaces: prod:"}},
		{"pattern twice", func(c *Config) { c.Namespaces = map[string][]string{"prod": {"*.*.b"}} }, []string{"Namespaces: prod:"}},
		{"pattern empty", func(c *Config) { c.Namespaces = map[string][]string{"prod": {""}} }, []string{"Namespaces: prod:"}},
		{"pattern in upper case", func(c *Config) { c.Namespaces = map[string][]string{"prod": {"API.x"}} }, []string{"lower case"}},
		{"pattern address", func(c *Config) { c.Namespaces = map[string][]string{"prod": {"10.0.0.1"}} }, []string{"Namespaces: prod:"}},
		{"no such file", func(c *Config) { c.Kubeconfig = "/nowhere/config" }, []string{"Kubeconfig:", "/nowhere/config"}},
		{"not in a pod", func(c *Config) { c.Kubeconfig = "" }, []string{"Kubeconfig:", "not a pod"}},
		{"without TLS", func(c *Config) { c.Kubeconfig = kubeconfig(t, "http://127.0.0.1:1", nil) }, []string{"Kubeconfig:", "https"}},
		{"an empty file", func(c *Config) { c.Kubeconfig = file(t, "") }, []string{"Kubeconfig:"}},
		{"not YAML", func(c *Config) { c.Kubeconfig = file(t, "\x00") }, []string{"Kubeconfig:"}},
		{"no check", func(c *Config) {
			c.Kubeconfig = file(t, `
apiVersion: v1
kind: Config
current-context: it
clusters: [{name: it, cluster: {server: "https://127.0.0.1:1", insecure-skip-tls-verify: true}}]
contexts: [{name: it, context: {cluster: it}}]
`)
		}, []string{"Kubeconfig:", "certificate checked"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			cfg := Config{Cluster: "east", Kubeconfig: w.kubeconfig, Audience: testAudience}
			c.edit(&cfg)
			_, err := New(cfg)
			if err == nil {
				t.Fatal("it was accepted")
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q doesn't say %q", err, word)
				}
			}
		})
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTemplatesRefused(t *testing.T) {
	for _, c := range []struct{ text, words string }{
		{"", "must end in {namespace}"},
		{"{namespace}", "whole label"},
		{"{namespace}.", "domain"},
		{"{namespace}.internal", "three labels"},
		{"web.example.internal", "must end in {namespace}"},
		{"{serviceaccount}.example.internal", "must end in {namespace}"},
		{"{serviceaccount}.internal", "must end in {namespace}"},
		{"{namespace}.{label:app}.example.internal", "nothing but a literal suffix"},
		{"{namespace}.x.{namespace}.internal", "nothing but a literal suffix"},
		{"{label:app}.{namespace}.{label:domain}", "nothing but a literal suffix"},
		{"{label:app}{namespace}.example.internal", "whole label"},
		{"{label:app}-x.{namespace}.example.internal", "whole label"},
		{"x-{label:app}.{namespace}.example.internal", "whole placeholder"},
		{"x{namespace}.example.internal", "whole placeholder"},
		{"{label:app.{namespace}.example.internal", "there are {serviceaccount}"},
		{"{label}.{namespace}.example.internal", "{label}"},
		{"{label:}.{namespace}.example.internal", "{label:}"},
		{"{pod}.{namespace}.example.internal", "{pod}"},
		{"{serviceaccount:x}.{namespace}.example.internal", "{serviceaccount:x}"},
		{"{}.{namespace}.example.internal", "{}"},
		{"*.{namespace}.example.internal", "label"},
		{"Web.{namespace}.example.internal", "lower case"},
		{"{serviceaccount}.{namespace}.Example.internal", "lower case"},
		{"{serviceaccount}.{namespace}.example.internal.", "domain"},
		{"{serviceaccount}.{namespace}.*.internal", "domain"},
		{".{namespace}.example.internal", "label"},
		{"{serviceaccount}..{namespace}.example.internal", "label"},
		{"{label:app}.{namespace}.svc.k.internal", "cluster's domain"},
		{"{label:app}.{namespace}.k.internal", "cluster's domain"},
		{"{label:app}.{namespace}.x.k.internal", "cluster's domain"},
		{"{label:app}.{namespace}.internal", "cluster's domain"},
		{"{label:app}.{namespace}.svc", "short names"},
		{"{label:app}.{namespace}.x.svc", "short names"},
		{"{label:app}.{namespace}.x.example.internal", "another template"},
		{"{label:app}.{namespace}.a.b.other.internal", "another template"},
	} {
		_, err := newNames(Config{Domain: "k.internal", Templates: []string{"{serviceaccount}.{namespace}.example.internal", "{namespace}.b.other.internal", c.text}})
		if err == nil {
			t.Errorf("%q was accepted", c.text)
		} else if !strings.HasPrefix(err.Error(), "kubernetes-01: Templates: ") || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%q: %q doesn't say %q", c.text, err, c.words)
		}
	}
	_, err := newNames(Config{Templates: []string{"{a.{namespace}.x.y", "{namespace}.x.y"}})
	if err == nil {
		t.Error("an open brace was accepted")
	}
	// Equal suffixes are one namespace's each.
	if _, err := newNames(Config{Templates: []string{"{serviceaccount}.{namespace}.x.internal", "{label:app}.{namespace}.x.internal", "a.{label:b}.{namespace}.x.internal"}}); err != nil {
		t.Error(err)
	}
}
