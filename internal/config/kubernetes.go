package config

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Cluster is one Kubernetes cluster whose pods may prove what they are
// (kubernetes-01), and the names they may have by that. What a directory allows
// is a bound besides.
type Cluster struct {
	// A kubeconfig file, whose current context is used. Default: the server
	// runs in a pod of the cluster, and uses its service account.
	Kubeconfig string `yaml:"kubeconfig"`
	// The cluster's domain: a pod may have the names SERVICE.NAMESPACE.svc.DOMAIN
	// of the Services that lead to it. No two clusters have the same. Default:
	// cluster.local.
	Domain string `yaml:"domain"`
	// Give the names without the domain too, SERVICE.NAMESPACE.svc and
	// SERVICE.NAMESPACE. They are the same in every cluster, so that only one
	// may. Default: false.
	ShortNames bool `yaml:"short_names"`
	// The one namespace whose Services have their bare names too, SERVICE.
	// Default: none.
	BareNamespace string `yaml:"bare_namespace"`
	// Names made of what a pod is, each placeholder one whole label:
	// "{serviceaccount}.{namespace}.sa.example.internal",
	// "{label:app}.{namespace}.apps.example.internal", or {annotation:KEY}.
	// Labels and annotations are the pod owner's choice, so that all end with
	// {namespace} and a domain. Default: none.
	Templates []string `yaml:"templates"`
	// By namespace, names that every pod of it may have:
	// "prod: [api.example.internal, \"*.prod.example.internal\"]". Default:
	// none.
	Namespaces map[string][]string `yaml:"namespaces"`
	// Refuse pods that aren't ready. A pod that only gets ready with a
	// certificate then waits for ever. Default: false.
	RequireReady bool `yaml:"require_ready"`
}

// Kubernetes is the cluster whose pods prove themselves to a directory by
// kubernetes-01.
type Kubernetes struct {
	// One of clusters. Required where kubernetes-01 is offered.
	Cluster string `yaml:"cluster"`
	// What proves which pod it is. token: a projected service account token
	// with the directory's URL as audience. source-address: its address too,
	// where the server sees the pods' own addresses, with no balancer or
	// address translation between. Default: token.
	Proof string `yaml:"proof"`
}

// The ways to tell which pod it is.
const (
	ProofToken         = "token"
	ProofSourceAddress = "source-address"
)

func (k *checker) clusters() {
	names := slices.Sorted(maps.Keys(k.c.Clusters))
	for i, name := range names {
		path, c := "clusters."+name, k.c.Clusters[name]
		k.cluster(path, c)
		for _, other := range names[:i] {
			k.apart(path, c, other, k.c.Clusters[other])
		}
		used := slices.ContainsFunc(slices.Collect(maps.Values(k.c.Directories)), func(d Directory) bool { return d.Kubernetes.Cluster == name })
		if !used {
			k.warn(path, "no directory asks this cluster")
		}
	}
}

func (k *checker) cluster(path string, c Cluster) {
	if !isDomain(c.Domain) || c.Domain == "svc" {
		k.fail(path+".domain", "%q is not a cluster's domain in lower case; most have \"cluster.local\"", c.Domain)
	}
	if c.BareNamespace != "" && !isNamespace(c.BareNamespace) {
		k.fail(path+".bare_namespace", "%q is not the name of a namespace", c.BareNamespace)
	}
	for _, namespace := range slices.Sorted(maps.Keys(c.Namespaces)) {
		at := path + ".namespaces." + namespace
		if !isNamespace(namespace) {
			k.fail(at, "%q is not the name of a namespace", namespace)
		}
		for i, pattern := range c.Namespaces[namespace] {
			if canonical, err := policy.Canonical(pattern); err != nil || canonical != pattern || !isDomain(strings.TrimPrefix(pattern, "*.")) {
				k.fail(fmt.Sprintf("%s[%d]", at, i), "%q is neither a name in lower case nor \"*.\" and such a name", pattern)
			}
		}
	}
}

// apart refuses clusters whose pods could have each other's names.
func (k *checker) apart(path string, c Cluster, other string, o Cluster) {
	short := func(c Cluster) bool { return c.ShortNames || c.BareNamespace != "" }
	switch {
	case c.Domain == o.Domain:
		k.fail(path+".domain", "cluster %q has this domain too, so that their pods would have each other's names; no two have the same", other)
	case strings.HasSuffix("."+c.Domain, ".svc."+o.Domain) || strings.HasSuffix("."+o.Domain, ".svc."+c.Domain):
		k.fail(path+".domain", "one of %q and cluster %q's %q lies where the other's Services are", c.Domain, other, o.Domain)
	case short(c) && short(o):
		k.fail(path, "short_names and bare_namespace give names that are the same in every cluster, and cluster %q gives them already", other)
	}
}

func isDomain(s string) bool {
	id, err := protocol.ParseIdentifier(string(protocol.DNS), s)
	return err == nil && id.Value == s && !id.IsWildcard()
}

// isNamespace reports whether s can be one label of a name, of digits too.
func isNamespace(s string) bool { return !strings.Contains(s, ".") && isDomain(s+".x") }

func (k *checker) kubernetes(path string, d Directory) {
	offered := slices.Index(d.Challenges, protocol.Kubernetes01)
	switch s := d.Kubernetes; {
	case s.Cluster == "" && s.Proof != "":
		k.fail(path+".kubernetes.cluster", "name the cluster; %s", listing("there is", slices.Sorted(maps.Keys(k.c.Clusters))))
	case s.Cluster == "" && offered >= 0:
		k.fail(fmt.Sprintf("%s.challenges[%d]", path, offered), "kubernetes-01 asks a cluster; add a kubernetes section that names it")
	case s.Cluster == "":
	case offered < 0:
		k.warn(path+".kubernetes", "kubernetes-01 is not offered here: a profile and, where it lists them, the directory must have it among their challenges")
	}
	if d.Kubernetes.Cluster == "" {
		return
	}
	oneOf(k, path+".kubernetes.cluster", d.Kubernetes.Cluster, slices.Sorted(maps.Keys(k.c.Clusters)))
	oneOf(k, path+".kubernetes.proof", d.Kubernetes.Proof, []string{ProofToken, ProofSourceAddress})
	if d.Kubernetes.Proof == ProofSourceAddress && len(k.c.TrustedProxies) > 0 {
		k.fail(path+".kubernetes.proof", "with trusted_proxies a client's address is what a balancer says, which proves nothing; use token")
	}
}

// podProfile refuses a profile that pods may prove for, and no cluster is asked
// wherever it is offered.
func (k *checker) podProfile(path, name string, p Profile) {
	i := slices.Index(p.Challenges, protocol.Kubernetes01)
	if i < 0 {
		return
	}
	offered := false
	for _, d := range k.c.Directories {
		if slices.Contains(d.Profiles, name) {
			offered = true
			if d.Kubernetes.Cluster != "" {
				return
			}
		}
	}
	if offered {
		k.fail(fmt.Sprintf("%s.challenges[%d]", path, i), "no directory that offers this profile has a kubernetes section")
	}
}

// maxKubeconfig bounds a kubeconfig file.
const maxKubeconfig = 1 << 20

// APIServers returns the hosts and ports of the cluster's API, as its
// kubeconfig or the pod's environment says, none where that can't be read: who
// connects to it says what is wrong.
func (c *Config) APIServers(of Cluster) (hosts []string) {
	if of.Kubeconfig == "" {
		if host := os.Getenv("KUBERNETES_SERVICE_HOST"); host != "" {
			hosts = append(hosts, net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT")))
		}
		return hosts
	}
	f, err := os.Open(c.Path(of.Kubeconfig))
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKubeconfig))
	if err != nil {
		return nil
	}
	var file struct {
		Clusters []struct {
			Cluster struct {
				Server string `yaml:"server"`
			} `yaml:"cluster"`
		} `yaml:"clusters"`
	}
	body, problem := parseYAML(text)
	if problem != nil || body == nil || yaml.NodeToValue(body, &file) != nil {
		return nil
	}
	for _, one := range file.Clusters {
		u, err := url.Parse(one.Cluster.Server)
		switch {
		case err != nil || u.Hostname() == "":
		case u.Port() == "":
			hosts = append(hosts, net.JoinHostPort(u.Hostname(), "443"))
		default:
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}
