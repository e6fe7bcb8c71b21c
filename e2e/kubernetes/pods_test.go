package kubernetes

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// follows is how long a controller, or a cache of the API server, may take.
const follows = 30 * time.Second

// pods is a server, a cluster with real controllers, and what lives there.
type pods struct {
	*authority
	c *cluster.Cluster
	// web is web-0 of the StatefulSet web in namespace prod, with the token of
	// its volume. It is behind the headless Service web and the Service api.
	web   *corev1.Pod
	token string
	// other is a cluster of its own with a pod just like web, and its token.
	other      *cluster.Cluster
	twin       *corev1.Pod
	otherToken string
}

// A pod gets certificates for what it is, by what the manifest allows the
// server to read, and for nothing else.
func TestKubernetes01(t *testing.T) {
	alone(t, 4*time.Minute, func(w *harness.World) {
		p := newPods(w)
		w.Sub("Issued", p.issued)
		w.Sub("Permissions", p.permissions)
		w.Sub("Refused", p.refused)
		w.Sub("GoneBeforeFinalize", p.goneBeforeFinalize)
		w.Sub("Clusters", p.clusters)
		w.Sub("Away", p.away)
	})
}

const workloads = `
clusters:
  main: {kubeconfig: main.kubeconfig}
  other: {kubeconfig: other.kubeconfig, domain: other.local}
directories:
  workloads:
    profiles: [server, client]
    eku_from_csr: true
    names: {allow: ["*.svc.cluster.local", "10.0.0.0/8"]}
    kubernetes: {cluster: main}
    validation: {timeout: 3s} # default: ten
  other:
    profiles: [server, client]
    eku_from_csr: true
    names: {allow: ["*.svc.other.local", "*.svc.cluster.local", "10.0.0.0/8"]}
    kubernetes: {cluster: other}
rate_limits: {accounts_per_pod: off}
`

const statefulSet = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 443}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: prod}
spec:
  serviceName: web
  podManagementPolicy: Parallel
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: nobody.pulls/it}]}
`

func newPods(w *harness.World) *pods {
	w.Helper()
	p := &pods{authority: newAuthority(w)}
	p.c = cluster.Start(w, cluster.Options{Controllers: true})
	p.other = cluster.Start(w, cluster.Options{})
	for _, c := range []*cluster.Cluster{p.c, p.other} {
		c.Apply(manifest(w, "chancery.yaml"))
		c.Namespace("prod")
		c.Node("n1")
	}
	p.enter(p.c, "main.kubeconfig")
	p.enter(p.other, "other.kubeconfig")
	p.serve(w, workloads)

	p.c.Apply(statefulSet)
	p.c.Service("prod", "api", map[string]string{"app": "web"})
	p.web = p.run(w, "web-0", "10.9.0.1")
	p.run(w, "web-1", "10.9.0.2")
	p.token = p.c.Token(p.web, directory("workloads"), time.Hour)
	for _, service := range []string{"web", "api"} {
		p.untilTargeted(service, p.web)
	}

	p.twin = p.other.Run(p.other.Pod("prod", "web-0", "default", label("app", "web")), "n1", "10.9.0.1")
	p.other.EndpointSlice(p.other.Service("prod", "api", p.twin.Labels), []*corev1.Pod{p.twin})
	p.otherToken = p.other.Token(p.twin, directory("other"), time.Hour)
	return p
}

func label(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Labels = map[string]string{key: value} }
}

// run runs a pod that a controller makes.
func (p *pods) run(w *harness.World, name, ip string) *corev1.Pod {
	w.Helper()
	var pod *corev1.Pod
	p.c.For(w).Eventually(follows, func(ctx context.Context) (err error) {
		pod, err = p.c.Client.CoreV1().Pods("prod").Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return p.c.For(w).Run(pod, "n1", ip)
}

// untilTargeted waits until the endpoint slice controller has seen the pod.
func (p *pods) untilTargeted(service string, pod *corev1.Pod) {
	p.c.Eventually(follows, func(ctx context.Context) error {
		all, err := p.c.Client.DiscoveryV1().EndpointSlices(pod.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
		if err != nil {
			return err
		}
		for _, slice := range all.Items {
			for _, e := range slice.Endpoints {
				if e.TargetRef != nil && e.TargetRef.UID == pod.UID {
					return nil
				}
			}
		}
		return fmt.Errorf("no slice of %s targets %s", service, pod.Name)
	})
}

// issued: a server's and a client's certificate for each kind of name, and the
// audit log says which pod it was.
func (p *pods) issued(w *harness.World) {
	names := []string{"api.prod.svc.cluster.local", "web-0.web.prod.svc.cluster.local", "10.9.0.1"}
	c := p.client(w, directory("workloads"), "")
	for _, usage := range []x509.ExtKeyUsage{serverAuth, clientAuth} {
		cert, err := c.obtain(p.token, usage, names...)
		if err != nil {
			w.Fatal(err)
		}
		p.verify(w, cert, usage, names...)
	}
	pod, all := "pod prod/web-0 ("+string(p.web.UID)+")", ""
	for _, e := range p.audit(w, "authorization.valid") {
		if !strings.Contains(string(e.Detail), pod) {
			w.Errorf("the audit log doesn't name %s: %s", pod, e.Detail)
		}
		all += string(e.Detail)
	}
	for _, rule := range []string{"Service prod/api;", "StatefulSet pod of Service prod/web;", "the pod's own address;"} {
		if n := strings.Count(all, rule); n != 2 {
			w.Errorf("the audit log says %q %d times, want 2", rule, n)
		}
	}
	for _, e := range p.audit(w, "certificate.issue") {
		if e.Directory == "workloads" && !strings.Contains(string(e.Detail), "prod/web-0/"+string(p.web.UID)) {
			w.Errorf("the audit log doesn't name the pod: %s", e.Detail)
		}
	}
}

// permissions: the manifest allows what is read, and nothing besides.
func (p *pods) permissions(w *harness.World) {
	config, err := clientcmd.BuildConfigFromFlags("", p.path("main.kubeconfig"))
	if err != nil {
		w.Fatal(err)
	}
	us, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.Fatal(err)
	}
	review, err := us.AuthorizationV1().SelfSubjectRulesReviews().Create(w.Context(), &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "prod"}}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	want := map[string]bool{"create tokenreviews": true, "get pods": true, "get services": true, "list endpointslices": true,
		// What every service account may (system:basic-user).
		"create selfsubjectaccessreviews": true, "create selfsubjectrulesreviews": true, "create selfsubjectreviews": true}
	got := map[string]bool{}
	for _, rule := range review.Status.ResourceRules {
		for _, verb := range rule.Verbs {
			for _, resource := range rule.Resources {
				got[verb+" "+resource] = true
				if !want[verb+" "+resource] {
					w.Errorf("the manifest allows to %s %s", verb, resource)
				}
			}
		}
	}
	if len(got) != len(want) {
		w.Errorf("the manifest allows %v, want %v", got, want)
	}
	if text := p.server.Output(); strings.Contains(text, "forbids") {
		w.Errorf("the API forbade something:\n%s", text)
	}
}

// goneBeforeFinalize: a proof is worth something as long as its pod lives.
func (p *pods) goneBeforeFinalize(w *harness.World) {
	c := p.c.For(w)
	pod := c.Run(c.Pod("prod", "brief", "default"), "n1", "10.9.0.40")
	token := c.Token(pod, directory("workloads"), time.Hour)
	at, before := p.client(w, directory("workloads"), ""), p.certificates(w)
	order := at.order("10.9.0.40")
	if err := at.prove(order, token); err != nil {
		w.Fatal(err)
	}
	c.DeletePod(pod)
	_, err := at.finalize(order, serverAuth)
	if err == nil {
		w.Error("a certificate for a pod that is gone")
	}
	if order, err = at.Order(w.Context(), order.URL); err != nil || order.Status != "invalid" || order.Error == nil {
		w.Fatalf("the order is %+v, %v", order, err)
	}
	problem(w, order.Error, acme.ErrUnauthorized, "pod brief in namespace prod is gone")
	if n := p.certificates(w); n != before {
		w.Errorf("%d certificates were issued", n-before)
	}
}

// clusters: each directory believes its own cluster only, though the pods have
// the same name and address.
func (p *pods) clusters(w *harness.World) {
	ours, theirs := p.client(w, directory("workloads"), ""), p.client(w, directory("other"), "")
	cert, err := theirs.obtain(p.otherToken, serverAuth, "api.prod.svc.other.local", "10.9.0.1")
	if err != nil {
		w.Fatal(err)
	}
	p.verify(w, cert, serverAuth, "api.prod.svc.other.local", "10.9.0.1")
	for _, audience := range []string{directory("workloads"), directory("other")} {
		stray := p.c.For(w).Token(p.web, audience, time.Hour)
		problem(w, theirs.prove(theirs.order("10.9.0.1"), stray), acme.ErrUnauthorized, "cluster other doesn't accept the token")
	}
	problem(w, ours.prove(ours.order("10.9.0.1"), p.otherToken), acme.ErrUnauthorized, "cluster main doesn't accept the token")
	// The other cluster has such a Service too, but not of such a name.
	problem(w, theirs.prove(theirs.order("api.prod.svc.cluster.local"), p.otherToken), acme.ErrUnauthorized, "no rule of this directory", ".prod.svc.other.local")
}

// away: while the API server doesn't answer nobody gets a yes or a no, and when
// it is back the same orders go on.
func (p *pods) away(w *harness.World) {
	api, c := p.c.For(w), p.client(w, directory("workloads"), "")
	before := p.certificates(w)
	order, proven := c.order("api.prod.svc.cluster.local"), c.order("10.9.0.1")
	if err := c.prove(proven, p.token); err != nil {
		w.Fatal(err)
	}
	for _, away := range []struct {
		how       string
		stop, end func()
	}{
		{"frozen", api.FreezeAPIServer, api.ThawAPIServer},
		{"stopped", api.StopAPIServer, api.RestartAPIServer},
	} {
		away.stop()
		told := problem(w, c.prove(order, p.token), acme.ErrServerInternal, "cluster main could not be asked")
		if told.Status != 503 || told.RetryAfter <= 0 {
			w.Errorf("%s: answered %d, Retry-After %v", away.how, told.Status, told.RetryAfter)
		}
		if z, err := c.Authorization(w.Context(), order.Authorizations[0]); err != nil || z.Status != "pending" {
			w.Errorf("%s: the authorization is %+v, %v", away.how, z, err)
		}
		if away.how == "stopped" { // and this order is asked for meanwhile
			var err error
			if proven, err = c.Finalize(w.Context(), proven, c.csr(proven, serverAuth)); err != nil || proven.Status != acme.StatusProcessing {
				w.Errorf("finalized while the API server is down: %+v, %v", proven, err)
			}
		}
		if n := p.certificates(w); n != before {
			w.Errorf("%s: %d certificates were issued", away.how, n-before)
		}
		away.end()
	}
	if _, err := c.fetch(proven); err != nil {
		w.Errorf("the order that waited: %v", err)
	}
	if err := c.prove(order, p.token); err != nil {
		w.Fatal(err)
	}
	cert, err := c.finalize(order, clientAuth)
	if err != nil {
		w.Fatal(err)
	}
	p.verify(w, cert, clientAuth, "api.prod.svc.cluster.local")
}
