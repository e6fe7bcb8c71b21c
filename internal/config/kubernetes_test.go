package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// pods is a configuration whose clients are pods, about which there is nothing
// to say.
const pods = `external_url: https://ca.internal
tls: {profile: server}
issuers:
  main: {signers: [{key: "file:ca/main.key", certificate: ca/main.pem}]}
profiles:
  server: {issuer: main, usages: [server], challenges: [http-01, kubernetes-01]}
  client: {issuer: main, usages: [client], challenges: [kubernetes-01]}
clusters:
  prod:
    kubeconfig: prod.kubeconfig
    short_names: true
    bare_namespace: prod
    templates: ["{serviceaccount}.{namespace}.sa.internal"]
    namespaces: {web: [api.internal, "*.web.internal"], 007: [bond.internal]}
    require_ready: true
  stage:
    domain: stage.local
directories:
  pods:
    profiles: [server, client]
    names: {allow: ["*.cluster.local", "*.svc", 10.0.0.0/8]}
    kubernetes: {cluster: prod}
  stage:
    profiles: [server]
    names: {allow: ["*.stage.local"]}
    kubernetes: {cluster: stage, proof: source-address}
  hosts:
    profiles: [server]
    names: {allow: ["*.internal"]}
rate_limits: {accounts_per_pod: 5 per 1m}
`

func TestClusters(t *testing.T) {
	c := parse(t, pods)
	if found := Check(c); len(found) > 0 {
		t.Fatal(found.Error())
	}
	prod := c.Clusters["prod"]
	if prod.Domain != "cluster.local" || len(prod.Namespaces["web"]) != 2 || len(prod.Namespaces["007"]) != 1 || !prod.ShortNames || !prod.RequireReady {
		t.Errorf("%+v", prod)
	}
	if d := c.Directories["pods"]; d.Kubernetes.Proof != ProofToken || !slices.Contains(d.Challenges, protocol.Kubernetes01) {
		t.Errorf("%+v", d)
	}
	// Without a cluster there is nobody to ask.
	if d := c.Directories["hosts"]; d.Kubernetes.Proof != "" || slices.Contains(d.Challenges, protocol.Kubernetes01) {
		t.Errorf("%+v", d)
	}
	if l := c.Limits("pods").AccountsPerPod; l.Count != 5 || l.Per != time.Minute {
		t.Errorf("%+v", l)
	}
	if l := parse(t, whole).Limits("servers").AccountsPerPod; l.Count != 30 || l.Per != time.Hour {
		t.Errorf("%+v", l)
	}
	if d := parse(t, whole).Directories["servers"]; slices.Contains(parse(t, whole).Profiles["server"].Challenges, protocol.Kubernetes01) || len(d.Challenges) != 3 {
		t.Errorf("the defaults changed: %v", d.Challenges)
	}
}

func TestCheckClusters(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"same domain", "domain: stage.local", "domain: cluster.local", `:17:13: clusters.stage.domain: cluster "prod" has this domain too`},
		{"same domain by default", "domain: stage.local", "require_ready: true", `clusters.stage.domain: cluster "prod" has this domain too`},
		{"a domain among Services", "stage.local\nd", "eu.svc.cluster.local\nd", "clusters.stage.domain: one of "},
		{"a domain that is Services", "stage.local\nd", "svc.cluster.local\nd", "clusters.stage.domain: one of "},
		{"another's Services below", "stage.local\nd", "local\nd", ""},
		{"short names twice", "domain: stage.local", "{domain: stage.local, short_names: true}", "clusters.stage: short_names and bare_namespace"},
		{"a bare namespace twice", "domain: stage.local", "{domain: stage.local, bare_namespace: prod}", "clusters.stage: short_names and bare_namespace"},
		{"no domain", "domain: stage.local", "domain: Stage.Local", "clusters.stage.domain: \"Stage.Local\" is not"},
		{"wildcard domain", "domain: stage.local", "domain: \"*.local\"", "clusters.stage.domain: "},
		{"domain svc", "domain: stage.local", "domain: svc", "clusters.stage.domain: "},
		{"bare namespace", "bare_namespace: prod", "bare_namespace: a.b", "clusters.prod.bare_namespace: "},
		{"namespace", "{web: [", "{w_eb: [", "clusters.prod.namespaces.w_eb: \"w_eb\" is not the name"},
		{"namespace's name", "api.internal,", "API.internal,", "clusters.prod.namespaces.web[0]: "},
		{"namespace's address", "api.internal,", "10.0.0.1,", "clusters.prod.namespaces.web[0]: "},
		{"namespace's everything", "api.internal,", "\"*\",", "clusters.prod.namespaces.web[0]: "},
		{"cluster's name", "  stage:\n    domain", "  Stage:\n    domain", "clusters.Stage: a name is"},
		{"unused", "cluster: stage, ", "cluster: prod, ", "warning: clusters.stage: no directory asks this cluster"},
		{"lost", "{cluster: prod}", "{cluster: prdo}", `:22:27: directories.pods.kubernetes.cluster: "prdo" is not known here; use prod or stage`},
		{"nameless", "{cluster: prod}", "{proof: token}", "directories.pods.kubernetes.cluster: name the cluster; there is prod or stage"},
		{"proof", "proof: source-address", "proof: magic", `directories.stage.kubernetes.proof: "magic" is not known here; use token or source-address`},
		{"addresses by balancers", "rate_limits:", "trusted_proxies: [10.0.0.1]\nrate_limits:", "directories.stage.kubernetes.proof: with trusted_proxies"},
		{"offered without a cluster", "    kubernetes: {cluster: prod}", "    challenges: [kubernetes-01]", "directories.pods.challenges[0]: kubernetes-01 asks a cluster"},
		{"not offered", "{cluster: prod}", "{cluster: prod}\n    challenges: [http-01]", "warning: directories.pods.kubernetes: kubernetes-01 is not offered"},
		{"a profile of nobody's pods", "    kubernetes: {cluster: prod}\n", "", ":7:57: profiles.client.challenges[0]: no directory that offers this profile has a kubernetes section"},
		{"unknown setting", "require_ready: true", "ready: true", "clusters.prod.ready: unknown key"},
		{"a list is wanted", "[api.internal, \"*.web.internal\"]", "api.internal", "clusters.prod.namespaces.web: this is text; a list is wanted"},
		{"limit", "5 per 1m", "five", "rate_limits.accounts_per_pod: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(pods, c.old) {
				t.Fatalf("%q isn't in the configuration", c.old)
			}
			text := strings.Replace(pods, c.old, c.new, 1)
			if strings.HasPrefix(c.new, "{domain") {
				text = strings.Replace(pods, "\n    "+c.old, " "+c.new, 1)
			}
			var found Problems
			if parsed, err := Parse("/etc/chancery/chancery.yaml", []byte(text)); err != nil {
				found, _ = err.(Problems)
			} else {
				found = Check(parsed)
			}
			if c.want == "" && len(found) == 0 {
				return
			}
			if c.want == "" || !strings.Contains(found.Error(), c.want) {
				t.Fatalf("found:\n%s\nwant: %s", found.Error(), c.want)
			}
			if isWarning := strings.HasPrefix(c.want, "warning: "); isWarning && len(found.Errors()) > 0 {
				t.Fatalf("an error and a warning mixed up:\n%s", found.Error())
			}
		})
	}
}

// Validation is kept away from the API, wherever the kubeconfig says it is.
func TestAPIServers(t *testing.T) {
	dir := t.TempDir()
	c := parse(t, whole)
	c.source.file = filepath.Join(dir, "chancery.yaml")
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"kubeconfig": {"apiVersion: v1\nclusters:\n- name: a\n  cluster: {server: \"https://10.0.0.1:6443\"}\n- name: b\n  cluster:\n    server: https://api.internal\n", []string{"10.0.0.1:6443", "api.internal:443"}},
		"IPv6":       {"clusters: [{cluster: {server: \"https://[fd00::1]\"}}]", []string{"[fd00::1]:443"}},
		"json":       {`{"clusters":[{"name":"a","cluster":{"server":"https://10.0.0.1:443/path"}}]}`, []string{"10.0.0.1:443"}},
		"no server":  {"clusters: [{name: a}]", nil},
		"no YAML":    {"clusters: [", nil},
		"no object":  {"[1, 2]", nil},
		"empty":      {"", nil},
	} {
		if err := os.WriteFile(filepath.Join(dir, "kube"), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := c.APIServers(Cluster{Kubeconfig: "kube"}); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if got := c.APIServers(Cluster{Kubeconfig: "gone"}); got != nil {
		t.Errorf("no file: %v", got)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if got := c.APIServers(Cluster{}); got != nil {
		t.Errorf("outside any cluster: %v", got)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "fd00::2")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if got := c.APIServers(Cluster{}); !slices.Equal(got, []string{"[fd00::2]:443"}) {
		t.Errorf("in a pod: %v", got)
	}
}
