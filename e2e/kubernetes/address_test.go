package kubernetes

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
	"github.com/chancery-pki/chancery/mtls/acme"
)

const addresses = `
clusters:
  main: {kubeconfig: main.kubeconfig}
directories:
  addresses:
    profiles: [server, client]
    eku_from_csr: true
    names: {allow: ["*.svc.cluster.local", "10.0.0.0/8"]}
    kubernetes: {cluster: main, proof: source-address}
`

// elsewhere is what helps somebody who is at no pod's own address.
const elsewhere = "the order wasn't made from an address that is one pod's alone"

// Where a directory says so, the address that a request comes from tells which
// pod it is.
func TestSourceAddress(t *testing.T) {
	alone(t, 3*time.Minute, func(w *harness.World) {
		a, c := newAuthority(w), cluster.Start(w, cluster.Options{})
		c.Apply(manifest(w, "chancery.yaml"))
		a.enter(c, "main.kubeconfig")
		a.serve(w, addresses)
		c.Namespace("prod")
		c.Node("n1")
		pod := c.Run(c.Pod("prod", "web", "default", label("app", "web")), "n1", "10.9.1.1")
		second := c.Run(c.Pod("prod", "db", "default"), "n1", "10.9.1.2")
		c.EndpointSlice(c.Service("prod", "web", pod.Labels), []*corev1.Pod{pod})
		dir := directory("addresses")
		web, db := a.client(w, dir, "10.9.1.1"), a.client(w, dir, "10.9.1.2")

		// The manifest is for tokens: it says itself what to add.
		_, err := web.NewOrder(w.Context(), acme.OrderRequest{Identifiers: acme.Identifiers("10.9.1.1")})
		problem(w, err, acme.ErrServerInternal)
		a.server.Says("add the verb to its ClusterRole").Says("verb=list resource=pods")
		c.Grant("chancery", "chanceryd", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}})
		c.Eventually(follows, func(ctx context.Context) error {
			_, err := web.NewOrder(ctx, acme.OrderRequest{Identifiers: acme.Identifiers("10.9.1.1")})
			return err
		})

		w.Sub("Pod", func(w *harness.World) {
			cert, err := web.obtain("", serverAuth, "web.prod.svc.cluster.local", "10.9.1.1")
			if err != nil {
				w.Fatal(err)
			}
			a.verify(w, cert, serverAuth, "web.prod.svc.cluster.local", "10.9.1.1")
			problem(w, db.prove(db.order("web.prod.svc.cluster.local"), ""), acme.ErrUnauthorized, "doesn't select pod db")
		})
		w.Sub("AnotherPod", func(w *harness.World) { // asks in the first one's account
			order, thief := web.order("10.9.1.1"), web.at(a, "10.9.1.2")
			problem(w, thief.prove(order, ""), acme.ErrUnauthorized, `"10.9.1.1" is not an address of pod db`)
			before := a.certificates(w)
			order = web.order("10.9.1.1")
			if err := web.prove(order, ""); err != nil {
				w.Fatal(err)
			}
			_, err := thief.finalize(order, clientAuth)
			problem(w, err, acme.ErrUnauthorized, "another pod than the one that made and proved the order")
			if n := a.certificates(w); n != before {
				w.Errorf("%d certificates were issued", n-before)
			}
		})
		w.Sub("NoPod", func(w *harness.World) {
			nobody := a.client(w, dir, "10.9.1.99")
			problem(w, nobody.prove(nobody.order("10.9.1.1"), ""), acme.ErrUnauthorized, elsewhere, dir)
			// A token does without an address.
			token := c.For(w).Token(pod, dir, time.Hour)
			if _, err := nobody.obtain(token, serverAuth, "10.9.1.1"); err != nil {
				w.Error(err)
			}
		})
		w.Sub("HostNetwork", func(w *harness.World) {
			c := c.For(w)
			c.Run(c.Pod("prod", "host", "default", func(pod *corev1.Pod) { pod.Spec.HostNetwork = true }), "n1", "10.9.1.3")
			host := a.client(w, dir, "10.9.1.3")
			problem(w, host.prove(host.order("10.9.1.3"), ""), acme.ErrUnauthorized, elsewhere, dir)
		})
		w.Sub("Twice", func(w *harness.World) {
			c := c.For(w)
			c.Run(c.Pod("prod", "twice", "default"), "n1", second.Status.PodIP)
			problem(w, db.prove(db.order("10.9.1.2"), ""), acme.ErrUnauthorized, elsewhere, dir)
		})
	})
}
