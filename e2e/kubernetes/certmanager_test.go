package kubernetes

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
)

const legacy = `
  plain: {issuer: servers, usages: [server], challenges: [http-01]}
  plain-client: {issuer: clients, usages: [client]}
directories:
  legacy:
    profiles: [plain, plain-client]
    eku_from_csr: true
    names: {allow: ["*.demo.svc.cluster.local"]}
    eab: {required: true}
`

// cert-manager's own controllers get a server's and a client's certificate with
// the manifests, filled in as their README says.
func TestCertManager(t *testing.T) {
	alone(t, 3*time.Minute, func(w *harness.World) {
		a, c := newAuthority(w), cluster.Start(w, cluster.Options{Controllers: true})
		w.Names() // everything is at 127.0.0.1, the server too
		a.serve(w, legacy)
		c.CertManager("127.0.0.1:53")
		c.Namespace("demo")

		var eab struct {
			KID  string `json:"kid"`
			HMAC string `json:"hmac_key"`
		}
		out := w.Run(w.Tool("chancery"), "admin", "--socket", a.socket, "--json", "eab", "create",
			"--directory", "legacy", "--name", "*.demo.svc.cluster.local", "--pre-approved")
		if err := json.Unmarshal([]byte(out), &eab); err != nil {
			w.Fatalf("%v in %s", err, out)
		}
		c.Apply("{apiVersion: v1, kind: Secret, metadata: {name: chancery-eab, namespace: cert-manager}, stringData: {secret: " + eab.HMAC + "}}")
		bundle := base64.StdEncoding.EncodeToString([]byte(w.Read(a.path("roots.pem"))))
		issuer := w.Replace(manifest(w, "cert-manager/issuer.yaml"), "CA_BUNDLE", bundle, "EAB_KEY_ID", eab.KID)
		c.UntilTrue(c.Apply(issuer)[0], "Ready", follows)
		usages := map[string]x509.ExtKeyUsage{"legacy": serverAuth, "legacy-client": clientAuth}
		for _, o := range c.Apply(manifest(w, "cert-manager/certificate.yaml")) {
			c.UntilTrue(o, "Ready", follows)
			usage, ok := usages[o.GetName()]
			if !ok {
				w.Fatalf("the manifest has a Certificate %s", o.GetName())
			}
			delete(usages, o.GetName())
			a.verify(w, secretOf(w, c, o), usage, "legacy.demo.svc.cluster.local")
		}
		if len(usages) != 0 {
			w.Errorf("the manifest lacks %v", usages)
		}
		unsolved(w, a, c)
	})
}

// secretOf is the certificate in the Secret of a Certificate.
func secretOf(w *harness.World, c *cluster.Cluster, o *unstructured.Unstructured) *x509.Certificate {
	w.Helper()
	name, _, _ := unstructured.NestedString(o.Object, "spec", "secretName")
	secret, err := c.Client.CoreV1().Secrets(o.GetNamespace()).Get(w.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return w.Chain(string(secret.Data["tls.crt"]))[0]
}

// unsolved: names that are approved beforehand need no challenge.
func unsolved(w *harness.World, a *authority, c *cluster.Cluster) {
	w.Helper()
	for _, e := range a.audit(w, "") {
		if strings.HasPrefix(e.Action, "challenge.") || strings.HasPrefix(e.Action, "authorization.") {
			w.Errorf("something was to be proven: %+v", e)
		}
	}
	acme := schema.GroupVersion{Group: "acme.cert-manager.io", Version: "v1"}
	all, err := c.Dynamic.Resource(acme.WithResource("challenges")).List(w.Context(), metav1.ListOptions{})
	if err != nil || len(all.Items) != 0 {
		w.Errorf("cert-manager has %d challenges, %v", len(all.Items), err)
	}
	orders, err := c.Dynamic.Resource(acme.WithResource("orders")).List(w.Context(), metav1.ListOptions{})
	if err != nil || len(orders.Items) != 2 {
		w.Errorf("cert-manager has %d orders, want 2; %v", len(orders.Items), err)
	}
}
