package cluster

import (
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// CertManagerNamespace is where cert-manager has what belongs to no namespace,
// such as the account keys and the secrets of ClusterIssuers.
const CertManagerNamespace = "cert-manager"

// CertManagerKinds defines cert-manager's kinds.
func (c *Cluster) CertManagerKinds() {
	c.t.Helper()
	files, err := filepath.Glob(program(c.t, "crds") + "/*.yaml")
	c.check("cert-manager's kinds", err)
	var kinds []*unstructured.Unstructured
	for _, file := range files {
		text, err := os.ReadFile(file)
		c.check("cert-manager's kinds", err)
		kinds = append(kinds, c.Apply(string(text))...)
	}
	for _, kind := range kinds {
		c.UntilTrue(kind, "Established", startLimit)
	}
}

// CertManager defines cert-manager's kinds and runs its controllers, as the
// cluster's administrator. In their own checks of a challenge they ask the
// nameservers (host:port). What solves http-01, pods that cert-manager makes,
// the test must play: nobody runs them.
func (c *Cluster) CertManager(nameservers ...string) {
	c.t.Helper()
	c.CertManagerKinds()
	c.Namespace(CertManagerNamespace)
	c.Kubeconfig(c.path("certmanager.conf"))
	p := start(c.t, c.dir, "certmanager", "-kubeconfig=certmanager.conf", "-nameservers="+strings.Join(nameservers, ","))
	c.untilSays(p, "certmanager: running")
}
