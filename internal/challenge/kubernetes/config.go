package kubernetes

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const (
	// defaultTimeout is for four small requests to a server nearby.
	defaultTimeout = 5 * time.Second
	defaultDomain  = "cluster.local"
)

// Config says which cluster vouches for which names in one directory. Cluster
// and Audience are required.
type Config struct {
	// Cluster is its name in logs, evidence and subjects: lower-case letters,
	// digits, dots and hyphens, at most 63. Renaming it makes what was proven
	// but not yet issued void.
	Cluster string
	// Kubeconfig is a file that says where the API is and who we are. "":
	// that of the pod this runs in.
	Kubeconfig string
	// Audience is what tokens must be made for: the directory's URL.
	Audience string
	// SourceAddress lets a pod prove itself by its address alone.
	SourceAddress bool
	// RequireReady refuses pods that aren't ready. A pod that gets ready only
	// with a certificate then waits for ever.
	RequireReady bool
	// Timeout bounds one call, whatever it asks the API; 0 means 5 s.
	Timeout time.Duration
	// Logger is told what an operator must see to: missing rights, an API that
	// doesn't answer. Nil: nobody is.
	Logger *slog.Logger

	// Domain is the cluster's. "" means cluster.local; clusters that vouch
	// under the same CA need distinct ones.
	Domain string
	// ShortNames allows svc.ns.svc, svc.ns and pod.svc.ns.svc.
	ShortNames bool
	// BareNamespace is the one namespace whose Services may have their bare
	// names, svc. "": none.
	BareNamespace string
	// Templates are names made of a pod's namespace, service account, labels
	// and annotations: "{serviceaccount}.{namespace}.sa.example.internal",
	// "{label:app}.{namespace}.apps.internal", "{annotation:example.com/as}.…".
	// Each placeholder is a whole DNS label; {namespace} is there once, and
	// only a literal suffix follows.
	Templates []string
	// Namespaces lists names that any pod of a namespace may have:
	// "api.example.internal", or "*.prod.internal" for all below it.
	Namespaces map[string][]string
}

// New checks the configuration and reads the kubeconfig. It speaks to nobody.
// Its errors name the field that is wrong and say what would be right.
func New(c Config) (*Verifier, error) {
	v := &Verifier{
		cluster: c.Cluster, audience: c.Audience,
		sourceAddress: c.SourceAddress, requireReady: c.RequireReady,
		timeout: c.Timeout, log: c.Logger,
	}
	if !isCluster(c.Cluster) {
		return nil, fmt.Errorf("kubernetes-01: Cluster: %q is not a name of lower-case letters, digits, dots and hyphens, at most 63", c.Cluster)
	}
	if u, err := url.Parse(c.Audience); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("kubernetes-01: Audience: %q must be the directory's URL, as in \"https://ca.example/acme/NAME/directory\"", c.Audience)
	}
	if v.timeout < 0 {
		return nil, fmt.Errorf("kubernetes-01: Timeout: %s is less than nothing; leave it out for %s", c.Timeout, defaultTimeout)
	}
	if v.timeout == 0 {
		v.timeout = defaultTimeout
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if v.names, err = newNames(c); err != nil {
		return nil, err
	}
	if v.api, err = connect(c.Kubeconfig); err != nil {
		return nil, fmt.Errorf("kubernetes-01: Kubeconfig: %w", err)
	}
	return v, nil
}

// isCluster keeps a cluster's name readable in a subject.
func isCluster(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

// names are the rules that need no API, compiled.
type names struct {
	domain    string
	short     bool
	bare      string
	templates []template
	granted   map[string][]string // canonical patterns by namespace
}

func newNames(c Config) (names, error) {
	n := names{domain: defaultDomain, short: c.ShortNames, bare: c.BareNamespace, granted: map[string][]string{}}
	if c.Domain != "" {
		n.domain = c.Domain
	}
	switch {
	case !isName(n.domain):
		return n, fmt.Errorf("kubernetes-01: Domain: %q is not a domain in lower case; most clusters' is %q", n.domain, defaultDomain)
	case n.domain == "svc": // pod.svc.svc.svc would be two things
		return n, errors.New("kubernetes-01: Domain: \"svc\" would make short and full names the same")
	case n.bare != "" && !isLabel(n.bare):
		return n, fmt.Errorf("kubernetes-01: BareNamespace: %q is not the name of a namespace", n.bare)
	}
	for _, text := range c.Templates {
		t, err := parseTemplate(text)
		if err == nil {
			err = t.distinct(n.domain, n.templates)
		}
		if err != nil {
			return n, fmt.Errorf("kubernetes-01: Templates: %q %w", text, err)
		}
		n.templates = append(n.templates, t)
	}
	for namespace, patterns := range c.Namespaces {
		if !isLabel(namespace) {
			return n, fmt.Errorf("kubernetes-01: Namespaces: %q is not the name of a namespace", namespace)
		}
		for _, p := range patterns {
			if base := strings.TrimPrefix(p, "*."); !isName(base) {
				return n, fmt.Errorf("kubernetes-01: Namespaces: %s: %q is neither a name in lower case nor \"*.\" and such a name", namespace, p)
			}
			n.granted[namespace] = append(n.granted[namespace], p)
		}
	}
	return n, nil
}

// isName reports whether s is a host name in canonical form, no wildcard.
func isName(s string) bool {
	id, err := protocol.ParseIdentifier(string(protocol.DNS), s)
	return err == nil && id.Value == s && !id.IsWildcard()
}

// isLabel reports whether s can be one label of a name, as it is. (The label
// after it lets it be all digits.)
func isLabel(s string) bool {
	return !strings.Contains(s, ".") && isName(s+".x")
}
