package kubernetes

import (
	"encoding/json"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// refused: what is not this pod's, or no pod's any more.
func (p *pods) refused(w *harness.World) {
	dir := directory("workloads")
	for _, tt := range []struct {
		name  string
		asked string
		token func(c *cluster.Cluster) string
		says  string // what helps the pod's owner
	}{
		{"expired", "10.9.0.1", func(c *cluster.Cluster) string {
			return c.TokenUntil(p.web, dir, time.Now().Add(-time.Minute))
		}, "it has expired; read the file anew"},
		{"none", "10.9.0.1", func(*cluster.Cluster) string { return "" }, `project one with audience "` + dir + `"`},
		{"another directory's audience", "10.9.0.1", func(c *cluster.Cluster) string {
			return c.Token(p.web, directory("other"), time.Hour)
		}, `it is made for another audience; project one with "` + dir + `"`},
		{"the API server's audience", "10.9.0.1", func(c *cluster.Cluster) string {
			return c.Token(p.web, cluster.Issuer, time.Hour)
		}, "it is made for another audience"},
		{"bound to no pod", "10.9.0.1", func(c *cluster.Cluster) string {
			return c.ServiceAccountToken("prod", "default", dir)
		}, "not bound to one pod"},
		{"another cluster's", "10.9.0.1", func(*cluster.Cluster) string {
			return p.other.For(w).Token(p.twin, dir, time.Hour)
		}, "it must be one of this cluster's"},
		{"another pod's name", "web-1.web.prod.svc.cluster.local", p.own, "pod web-0 has another name"},
		{"another pod's address", "10.9.0.2", p.own, `"10.9.0.2" is not an address of pod web-0`},
		{"another namespace", "api.dev.svc.cluster.local", p.own, `a name of namespace "dev"`},
		{"no such Service", "nothing.prod.svc.cluster.local", p.own, "there is no Service nothing in namespace prod"},
		{"no rule", "api.prod.pod.svc.svc.cluster.local", p.own, "no rule of this directory"},
		{"a Service that selects others", "db.prod.svc.cluster.local", p.others, "doesn't select pod web-0"},
		{"a slice by hand, of a Service without selector", "manual.prod.svc.cluster.local", p.byHand, "has no selector"},
		{"a slice by hand, of one that selects the pod", "fast.prod.svc.cluster.local", p.ahead, "no EndpointSlice of Service fast"},
		{"a node's address", "10.9.0.30", p.host, "on its host's network"},
		{"deleted, and believed by the API server", "10.9.0.31", p.deleted, "pod gone in namespace prod is gone"},
		{"deleted, and another has its name", "10.9.0.32", p.replaced, "another has its name now"},
		{"terminating", "10.9.0.33", p.terminating, "pod ending is being deleted"},
		{"succeeded", "10.9.0.34", p.succeeded, "pod done has ended: Succeeded"},
	} {
		w.Sub(tt.name, func(w *harness.World) {
			token := tt.token(p.c.For(w))
			c := p.client(w, dir, "")
			o := c.order(tt.asked)
			problem(w, c.prove(o, token), acme.ErrUnauthorized, tt.says)
			if o, err := c.Order(w.Context(), o.URL); err != nil || o.Status != "invalid" {
				w.Errorf("the order is %+v, %v", o, err)
			}
			p.auditedNo(w, o.Authorizations[0], tt.asked, tt.says, token)
		})
	}
	w.Sub("not expired", func(w *harness.World) { // so that the one above is refused for its end alone
		c := p.client(w, dir, "")
		if err := c.prove(c.order("10.9.0.1"), p.c.For(w).TokenUntil(p.web, dir, time.Now().Add(time.Minute))); err != nil {
			w.Error(err)
		}
	})
}

// auditedNo checks that the log has the refusal, and nobody's token.
func (p *pods) auditedNo(w *harness.World, authorization, name, says, token string) {
	w.Helper()
	id := authorization[strings.LastIndex(authorization, "/")+1:]
	for _, e := range p.audit(w, "authorization.invalid") {
		if e.Object != id {
			continue
		}
		var detail struct{ Name, Type string }
		if err := json.Unmarshal(e.Detail, &detail); err != nil || detail.Name != name || detail.Type != "kubernetes-01" ||
			!strings.Contains(e.Denied, says) || e.Directory != "workloads" || e.Peer == "" {
			w.Errorf("audited as %+v %s", e, e.Detail)
		}
		if token != "" && strings.Contains(e.Denied+string(e.Detail)+p.server.Output(), token) {
			w.Error("the token is in the logs")
		}
		return
	}
	w.Errorf("the refusal of %s is not in the audit log", id)
}

func (p *pods) own(*cluster.Cluster) string { return p.token }

// others: a slice by hand claims for the Service what its selector doesn't.
func (p *pods) others(c *cluster.Cluster) string {
	svc := c.Service("prod", "db", map[string]string{"app": "db"})
	c.EndpointSlice(svc, []*corev1.Pod{p.web}, by("somebody"))
	return p.token
}

// byHand: of a Service without a selector, slices can be written in the
// controller's own name, which leaves them alone.
func (p *pods) byHand(c *cluster.Cluster) string {
	c.EndpointSlice(c.Service("prod", "manual", nil), []*corev1.Pod{p.web})
	return p.token
}

// ahead: the controller lists pods that have an address; somebody else is
// quicker.
func (p *pods) ahead(c *cluster.Cluster) string {
	pod := c.Pod("prod", "fast", "default", label("app", "fast"))
	c.EndpointSlice(c.Service("prod", "fast", pod.Labels), []*corev1.Pod{pod}, by("somebody"), func(s *discoveryv1.EndpointSlice) {
		s.Endpoints[0].Addresses, s.Endpoints[0].NodeName = []string{"10.9.0.39"}, nil
	})
	return c.Token(pod, directory("workloads"), time.Hour)
}

func by(who string) func(*discoveryv1.EndpointSlice) {
	return func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelManagedBy] = who }
}

func (p *pods) host(c *cluster.Cluster) string {
	pod := c.Run(c.Pod("prod", "host", "default", func(pod *corev1.Pod) { pod.Spec.HostNetwork = true }), "n1", "10.9.0.30")
	return c.Token(pod, directory("workloads"), time.Hour)
}

// deleted is the token of a pod that is gone, for which a TokenReview still
// says yes: the API server remembers the answer of ten seconds ago.
func (p *pods) deleted(c *cluster.Cluster) string {
	return p.gone(c, "gone", "10.9.0.31")
}

func (p *pods) replaced(c *cluster.Cluster) string {
	token := p.gone(c, "again", "10.9.0.32")
	c.Run(c.Pod("prod", "again", "default"), "n1", "10.9.0.32")
	return token
}

func (p *pods) gone(c *cluster.Cluster, name, ip string) string {
	pod := c.Run(c.Pod("prod", name, "default"), "n1", ip)
	token := c.Token(pod, directory("workloads"), time.Hour)
	c.Review(token, directory("workloads"))
	c.DeletePod(pod)
	if !c.Review(token, directory("workloads")).Authenticated {
		panic("the API server refuses the token by itself, so that this shows nothing")
	}
	return token
}

func (p *pods) terminating(c *cluster.Cluster) string {
	pod := c.Run(c.Pod("prod", "ending", "default"), "n1", "10.9.0.33")
	token := c.Token(pod, directory("workloads"), time.Hour)
	c.TerminatePod(pod)
	return token
}

func (p *pods) succeeded(c *cluster.Cluster) string {
	pod := c.Run(c.Pod("prod", "done", "default"), "n1", "10.9.0.34")
	token := c.Token(pod, directory("workloads"), time.Hour)
	c.Status(pod, func(s *corev1.PodStatus) { s.Phase = corev1.PodSucceeded })
	return token
}
