package kubernetes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// rules is a configuration with every rule.
func rules(c *Config) {
	c.ShortNames, c.BareNamespace = true, "prod"
	c.Templates = []string{
		"{serviceaccount}.{namespace}.sa.example.internal",
		"{label:app}.{namespace}.apps.internal",
		"{annotation:example.com/as}.node.{namespace}.apps.internal",
		"{label:app.kubernetes.io/name}.x.{namespace}.apps.internal",
		"{namespace}.ns.internal",
	}
	c.Namespaces = map[string][]string{"prod": {"shop.example.com", "*.prod.internal"}, "dev": {"*.dev.internal"}}
}

func TestNamesOfAPod(t *testing.T) {
	w, v := newWorld(t, rules)
	pod := w.pod("prod", "web-0", "uid-1", ofStatefulSet("web", "nodes"), label("app.kubernetes.io/name", "shop"),
		func(p *corev1.Pod) { p.Annotations = map[string]string{"example.com/as": "n7"} })
	w.service("prod", "api", pod)
	lb, _ := w.service("prod", "lb", pod)
	lb.Spec.Type = corev1.ServiceTypeLoadBalancer
	nodes, _ := w.service("prod", "nodes", pod)
	nodes.Spec.ClusterIP = "None"
	for name, rule := range map[string]string{
		"api.prod.svc.cluster.local":         "Service prod/api",
		"api.prod.svc":                       "Service prod/api",
		"api.prod":                           "Service prod/api",
		"api":                                "Service prod/api",
		"lb.prod.svc.cluster.local":          "Service prod/lb",
		"nodes.prod.svc.cluster.local":       "Service prod/nodes",
		"web-0.nodes.prod.svc.cluster.local": "StatefulSet pod of Service prod/nodes",
		"web-0.nodes.prod.svc":               "StatefulSet pod of Service prod/nodes",
		"web.prod.sa.example.internal":       "template {serviceaccount}.{namespace}.sa.example.internal",
		"web.prod.apps.internal":             "template {label:app}.{namespace}.apps.internal",
		"n7.node.prod.apps.internal":         "template {annotation:example.com/as}.node.{namespace}.apps.internal",
		"shop.x.prod.apps.internal":          "template {label:app.kubernetes.io/name}.x.{namespace}.apps.internal",
		"prod.ns.internal":                   "template {namespace}.ns.internal",
		"shop.example.com":                   "shop.example.com, which namespace prod is granted",
		"a.prod.internal":                    "*.prod.internal, which namespace prod is granted",
		"a.b.prod.internal":                  "*.prod.internal, which namespace prod is granted",
	} {
		seen, err := v.Validate(t.Context(), asked(dns(name), w.token(pod)))
		if want := rule + "; the pod by its token, in cluster east"; err != nil || seen.Detail != want {
			t.Errorf("%s: %q, %v; want %q", name, seen.Detail, err, want)
		}
	}
	for _, addr := range []string{"10.9.0.1", "fd00:9::1"} {
		seen, err := v.Validate(t.Context(), asked(ip(addr), w.token(pod)))
		if want := "the pod's own address; the pod by its token, in cluster east"; err != nil || seen.Detail != want {
			t.Errorf("%s: %q, %v", addr, seen.Detail, err)
		}
	}
}

func TestNamesRefused(t *testing.T) {
	w, v := newWorld(t, rules)
	pod := w.pod("prod", "web-0", "uid-1")
	w.service("prod", "api", pod)
	w.service("dev", "api", w.pod("dev", "web-0", "uid-2"))
	w.service("prod", "other", w.pod("prod", "web-1", "uid-3"))
	for _, c := range []struct{ name, words string }{
		{"api.dev.svc.cluster.local", `namespace "dev"`},
		{"api.dev.svc", `namespace "dev"`},
		{"api.dev", `namespace "dev"`},
		{"db.prod.svc.cluster.local", "no Service db in namespace prod"},
		{"db", "no Service db in namespace prod"},
		{"web-0.api.prod.svc.cluster.local", "not controlled by a StatefulSet"},
		{"a.b.c.prod.svc.cluster.local", "no rule"},
		{"prod.svc.cluster.local", "no rule"},
		{"svc.cluster.local", "cluster"},
		{"cluster.local", `namespace "local"`},
		{"10-9-0-1.prod.pod.cluster.local", "no rule"},
		{"api.prod.svc.cluster.local.evil.example", "no rule"},
		{"api.prod.svc.other.local", "no rule"},
		{"xapi.prodsvc.cluster.local", "no rule"},
		{"www.example.com", `".prod.svc.cluster.local"`},
		{"prod.internal", `namespace "internal"`}, // not below it
		{"xprod.internal", `namespace "internal"`},
		{"a.dev.internal", "no rule"},
		{"x.shop.example.com", "no rule"},
		{"admin.prod.sa.example.internal", "the name web.prod.sa.example.internal"},
		{"web.dev.sa.example.internal", "the name web.prod.sa.example.internal"},
		{"web.dev.apps.internal", "the name web.prod.apps.internal"},
		{"a.web.prod.apps.internal", "has no label app.kubernetes.io/name"},
		{"dev.ns.internal", "the name prod.ns.internal"},
	} {
		_, err := v.Validate(t.Context(), asked(dns(c.name), w.token(pod)))
		wantNo(t, err, protocol.Unauthorized, false, `"`+c.name+`"`, c.words)
		if strings.Contains(err.Error(), "uid-") || strings.Contains(err.Error(), "web-1") {
			t.Errorf("%s: %v tells of other pods", c.name, err)
		}
	}
	for _, asks := range w.requests() {
		if asks == "list endpointslices" {
			t.Error("slices of a Service were read that is not there")
		}
	}
	_, err := v.Validate(t.Context(), asked(dns("other.prod.svc.cluster.local"), w.token(pod)))
	wantNo(t, err, protocol.Unauthorized, true, "no EndpointSlice of Service other in namespace prod targets pod web-0")
	for _, addr := range []string{"10.9.0.2", "10.96.0.7", "127.0.0.1", "fd00:9::2"} {
		_, err := v.Validate(t.Context(), asked(ip(addr), w.token(pod)))
		wantNo(t, err, protocol.Unauthorized, false, addr, "pod web-0")
	}
}

// Shorter names are of their own making, and none is there unasked.
func TestShortNamesOnlyWhereAllowed(t *testing.T) {
	w, v := newWorld(t)
	short := w.verifier(t, func(c *Config) { c.ShortNames = true })
	bare := w.verifier(t, func(c *Config) { c.BareNamespace = "prod" })
	elsewhere := w.verifier(t, func(c *Config) { c.BareNamespace = "dev" })
	pod := w.pod("prod", "web-0", "uid-1", ofStatefulSet("web", "api"))
	svc, _ := w.service("prod", "api", pod)
	svc.Spec.ClusterIP = "None"
	for _, c := range []struct {
		name    string
		by      *Verifier
		allowed bool
	}{
		{"api.prod.svc", v, false}, {"api.prod", v, false}, {"web-0.api.prod.svc", v, false}, {"api", v, false},
		{"api.prod.svc", short, true}, {"api.prod", short, true}, {"web-0.api.prod.svc", short, true}, {"api", short, false},
		{"api.prod.svc", bare, false}, {"api.prod", bare, false}, {"web-0.api.prod.svc", bare, false}, {"api", bare, true},
		{"api", elsewhere, false},
		{"web-0.api.prod", short, false}, {"web-0.api", short, false}, // they could be a template's, and a Service's
		{"web-0", bare, false},
	} {
		_, err := c.by.Validate(t.Context(), asked(dns(c.name), w.token(pod)))
		if c.allowed && err != nil {
			t.Error(err)
		} else if !c.allowed {
			wantNo(t, err, protocol.Unauthorized, false, c.name)
		}
	}
}

func TestIdentifiersRefused(t *testing.T) {
	w, v := newWorld(t, rules)
	pod := w.pod("prod", "web-0", "uid-1")
	for _, id := range []protocol.Identifier{
		dns("*.prod.internal"), dns("*.x.prod.internal"), dns("API.prod.svc.cluster.local"), dns("api.prod.svc.cluster.local."), dns(""),
		dns(".prod.svc.cluster.local"), dns("a/b.prod.svc.cluster.local"), dns("api,x=y.prod.svc.cluster.local"), dns("10.9.0.1"),
		ip("x"), ip(""), {Type: "permanent-identifier", Value: "web-0"},
	} {
		_, err := v.Validate(t.Context(), asked(id, w.token(pod)))
		wantNo(t, err, protocol.Malformed, false)
	}
	for _, addr := range []string{"::ffff:10.9.0.1", "fd00:9::1%eth0"} {
		_, err := v.Validate(t.Context(), asked(ip(addr), w.token(pod)))
		wantNo(t, err, protocol.Unauthorized, false)
	}
	c := asked(dns("prod.internal"), w.token(pod))
	c.Wildcard = true
	w.requests()
	_, err := v.Validate(t.Context(), c)
	wantNo(t, err, protocol.Malformed, false, "wildcard")
	if n := len(w.requests()); n != 0 {
		t.Errorf("%d requests were made for a wildcard", n)
	}
}

func TestAddressesRefused(t *testing.T) {
	w, v := newWorld(t)
	host := w.pod("prod", "host", "uid-1", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	_, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), w.token(host)))
	wantNo(t, err, protocol.Unauthorized, false, "host's network")
	fresh := w.pod("prod", "fresh", "uid-2", func(p *corev1.Pod) { p.Status.PodIPs = nil })
	_, err = v.Validate(t.Context(), asked(ip("10.9.0.1"), w.token(fresh)))
	wantNo(t, err, protocol.Unauthorized, true, "not an address of pod fresh")
	// A pod on its host's network has the names of its Services all the same.
	w.service("prod", "api", host)
	if _, err := v.Validate(t.Context(), asked(dns(apiName), w.token(host))); err != nil {
		t.Error(err)
	}
}

// One thing wrong with the Service, its slice or the pod at a time.
func TestServicesRefused(t *testing.T) {
	type thing struct {
		svc   *corev1.Service
		slice *discoveryv1.EndpointSlice
		pod   *corev1.Pod
	}
	for _, c := range []struct {
		name      string
		edit      func(o thing)
		retryable bool
		words     string
	}{
		{"ExternalName", func(o thing) {
			o.svc.Spec.Type, o.svc.Spec.ExternalName = corev1.ServiceTypeExternalName, "evil.example"
		}, false, "ExternalName"},
		{"being deleted", func(o thing) { o.svc.DeletionTimestamp = new(metav1.Now()) }, false, "being deleted"},
		{"no selector", func(o thing) { o.svc.Spec.Selector = nil }, false, "no selector"},
		{"no UID", func(o thing) { o.svc.UID = "" }, false, "no UID"},
		{"another selector", func(o thing) { o.svc.Spec.Selector = map[string]string{"app": "db"} }, false, "doesn't select pod web-0"},
		{"a selector of more", func(o thing) { o.svc.Spec.Selector = map[string]string{"app": "web", "tier": ""} }, false, "doesn't select"},
		{"labels changed", func(o thing) { o.pod.Labels = nil }, false, "doesn't select"},
		{"no slice", func(o thing) { o.slice.Labels = nil }, true, "no EndpointSlice"},
		{"empty slice", func(o thing) { o.slice.Endpoints = nil }, true, "no EndpointSlice"},
		{"written by hand", func(o thing) { delete(o.slice.Labels, discoveryv1.LabelManagedBy) }, true, "no EndpointSlice"},
		{"written by another", func(o thing) { o.slice.Labels[discoveryv1.LabelManagedBy] = "evil" }, true, "no EndpointSlice"},
		{"mirrored", func(o thing) {
			o.slice.Labels[discoveryv1.LabelManagedBy] = "endpointslicemirroring-controller.k8s.io"
		}, true, "no EndpointSlice"},
		{"of another Service", func(o thing) { o.slice.Labels[discoveryv1.LabelServiceName] = "db" }, true, "no EndpointSlice"},
		{"of another namespace", func(o thing) { o.slice.Namespace = "dev" }, true, "no EndpointSlice"},
		{"of a former Service", func(o thing) { o.slice.OwnerReferences[0].UID = "former" }, true, "no EndpointSlice"},
		{"owned by nobody", func(o thing) { o.slice.OwnerReferences = nil }, true, "no EndpointSlice"},
		{"without a target", func(o thing) { o.slice.Endpoints[0].TargetRef = nil }, true, "no EndpointSlice"},
		{"another pod of the name", func(o thing) { o.slice.Endpoints[0].TargetRef.UID = "uid-0" }, true, "no EndpointSlice"},
		{"no UID in it", func(o thing) { o.slice.Endpoints[0].TargetRef.UID = "" }, true, "no EndpointSlice"},
		{"another name", func(o thing) { o.slice.Endpoints[0].TargetRef.Name = "web-1" }, true, "no EndpointSlice"},
		{"another namespace", func(o thing) { o.slice.Endpoints[0].TargetRef.Namespace = "dev" }, true, "no EndpointSlice"},
		{"a node", func(o thing) { o.slice.Endpoints[0].TargetRef.Kind = "Node" }, true, "no EndpointSlice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, v := newWorld(t)
			w.careless = true // so that it is we who look
			pod := w.pod("prod", "web-0", "uid-1")
			svc, slice := w.service("prod", "api", pod)
			response := w.token(pod)
			if _, err := v.Validate(t.Context(), asked(dns(apiName), response)); err != nil {
				t.Fatal(err)
			}
			c.edit(thing{svc, slice, pod})
			_, err := v.Validate(t.Context(), asked(dns(apiName), response))
			wantNo(t, err, protocol.Unauthorized, c.retryable, `"`+apiName+`"`, c.words)
		})
	}
}

// A server that ignores namespace or label selector must not lend a name.
func TestSlicesAreConfirmed(t *testing.T) {
	w, v := newWorld(t)
	pod := w.pod("prod", "web-0", "uid-1")
	w.service("prod", "api")
	w.service("prod", "mine", pod)
	w.careless = true
	_, err := v.Validate(t.Context(), asked(dns(apiName), w.token(pod)))
	wantNo(t, err, protocol.Unauthorized, true, "no EndpointSlice")
}

func TestStatefulNamesRefused(t *testing.T) {
	const name = "web-0.nodes.prod.svc.cluster.local"
	for _, c := range []struct {
		name  string
		edit  func(p *corev1.Pod, svc *corev1.Service)
		words string
	}{
		{"no owner", func(p *corev1.Pod, _ *corev1.Service) { p.OwnerReferences = nil }, "StatefulSet"},
		{"owner isn't the controller", func(p *corev1.Pod, _ *corev1.Service) { p.OwnerReferences[0].Controller = nil }, "StatefulSet"},
		{"a ReplicaSet's", func(p *corev1.Pod, _ *corev1.Service) { p.OwnerReferences[0].Kind = "ReplicaSet" }, "StatefulSet"},
		{"somebody's StatefulSet", func(p *corev1.Pod, _ *corev1.Service) { p.OwnerReferences[0].APIVersion = "evil.example/v1" }, "StatefulSet"},
		{"another set's ordinal", func(p *corev1.Pod, _ *corev1.Service) { p.OwnerReferences[0].Name = "db" }, "not called"},
		{"a set called as the pod", func(p *corev1.Pod, _ *corev1.Service) { p.OwnerReferences[0].Name = "web-0" }, "not called"},
		{"a pod that takes the hostname", func(p *corev1.Pod, _ *corev1.Service) { p.Name = "web-7" }, "has another name"},
		{"no hostname", func(p *corev1.Pod, _ *corev1.Service) { p.Spec.Hostname = "" }, "has another name"},
		{"another Service governs", func(p *corev1.Pod, _ *corev1.Service) { p.Spec.Subdomain = "other" }, "not governed"},
		{"not headless", func(p *corev1.Pod, s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.7" }, "not headless"},
		{"not selected", func(p *corev1.Pod, s *corev1.Service) { p.Labels = nil }, "doesn't select"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, v := newWorld(t)
			pod := w.pod("prod", "web-0", "uid-1", ofStatefulSet("web", "nodes"))
			svc, _ := w.service("prod", "nodes", pod)
			svc.Spec.ClusterIP = "None"
			if _, err := v.Validate(t.Context(), asked(dns(name), w.token(pod))); err != nil {
				t.Fatal(err)
			}
			c.edit(pod, svc)
			_, err := v.Validate(t.Context(), asked(dns(name), w.token(pod)))
			wantNo(t, err, protocol.Unauthorized, false, name, c.words)
		})
	}
}

// Pod owners choose labels, annotations and the names of service accounts.
func TestTemplatesTakeOneLabelOnly(t *testing.T) {
	w, v := newWorld(t, rules)
	for _, value := range []string{
		"", "a.b", "x.dev.apps.internal", "api.dev", "Web", "WEB", "wéb", "web_1", "-web", "web-", "*", "*.x", "a b", "web\n", "xn--a", "a--b--", "ab--c",
		strings.Repeat("a", 64),
	} {
		pod := w.pod("prod", "web-0", "uid-1", label("app", value))
		_, err := v.Validate(t.Context(), asked(dns("web.prod.apps.internal"), w.token(pod)))
		wantNo(t, err, protocol.Unauthorized, false, "web.prod.apps.internal", "{label:app}", "not one DNS label")
		if lower := strings.ToLower(value) + ".prod.apps.internal"; isName(lower) {
			_, err := v.Validate(t.Context(), asked(dns(lower), w.token(pod)))
			wantNo(t, err, protocol.Unauthorized, false)
		}
		w.pods = nil
	}
	for _, value := range []string{"a", "0", "123", "a-b", "xn--bcher-kva", strings.Repeat("a", 63)} {
		pod := w.pod("prod", "web-0", "uid-1", label("app", value))
		if _, err := v.Validate(t.Context(), asked(dns(value+".prod.apps.internal"), w.token(pod))); err != nil {
			t.Error(err)
		}
		w.pods = nil
	}
	pod := w.pod("prod", "web-0", "uid-1", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "web.dev.sa" })
	_, err := v.Validate(t.Context(), asked(dns("web.prod.sa.example.internal"), w.token(pod)))
	wantNo(t, err, protocol.Unauthorized, false, "serviceaccount that is not one DNS label")
}

// Whatever namespaces and Services are called, a name is one namespace's: no
// two namespaces can have it by two rules. All names of up to six labels over
// a few that mean something to the grammar are tried.
func TestNoNameHasTwoNamespaces(t *testing.T) {
	for _, c := range []Config{
		{Domain: "d.e", ShortNames: true, BareNamespace: "a", Templates: []string{"{label:x}.{namespace}.a.f", "{label:x}.d.{namespace}.a.f", "{namespace}.b.f"}},
		{Domain: "e", ShortNames: true, BareNamespace: "svc", Templates: []string{"{label:x}.{namespace}.d", "{label:x}.{label:y}.{namespace}.a"}},
		{Domain: "svc.e", ShortNames: true, Templates: []string{"{label:x}.{namespace}.svc.d", "{label:x}.svc.{namespace}.svc.d"}},
		{Domain: "e.svc", ShortNames: true, Templates: []string{"svc.{namespace}.a"}},
		{Domain: "svc.svc", ShortNames: true, Templates: []string{"{label:x}.svc.{namespace}.d"}},
	} {
		n, err := newNames(c)
		if err != nil {
			t.Fatal(err)
		}
		tried, given := 0, 0
		labels := []string{"a", "b", "svc", "d", "e", "f"}
		var try func(name string, left int)
		try = func(name string, left int) {
			tried++
			by := map[string]bool{}
			for _, namespace := range readings(name, c) {
				by[namespace] = true
			}
			if at, ok := n.read(name); ok && !by[at.namespace] {
				t.Fatalf("%+v: %s is read as %+v, which it isn't", c, name, at)
			}
			for _, tmpl := range n.templates {
				if tmpl.couldBe(name) {
					above := strings.Split(strings.TrimSuffix(name, "."+tmpl.suffix), ".")
					by[above[len(above)-1]] = true
				}
			}
			if len(by) > 1 {
				t.Fatalf("%+v: %s can be a name of %d namespaces: %v", c, name, len(by), by)
			}
			given += len(by)
			if left > 0 {
				for _, l := range labels {
					try(l+"."+name, left-1)
				}
			}
		}
		for _, l := range labels {
			try(l, 5)
		}
		if tried < 50_000 || given < 100 {
			t.Errorf("%+v: %d names tried, %d given: the test tries too little", c, tried, given)
		}
	}
}

// readings are all the ways to read a name as documented, each by itself.
func readings(name string, c Config) (namespaces []string) {
	l := strings.Split(name, ".")
	is := func(tail ...string) bool {
		return len(l) >= len(tail) && strings.Join(l[len(l)-len(tail):], ".") == strings.Join(tail, ".")
	}
	full := append([]string{"svc"}, strings.Split(c.Domain, ".")...)
	if above := len(l) - len(full); is(full...) && (above == 2 || above == 3) {
		namespaces = append(namespaces, l[above-1])
	}
	if above := len(l) - 1; c.ShortNames && is("svc") && (above == 2 || above == 3) {
		namespaces = append(namespaces, l[above-1])
	}
	if c.ShortNames && len(l) == 2 {
		namespaces = append(namespaces, l[1])
	}
	if c.BareNamespace != "" && len(l) == 1 {
		namespaces = append(namespaces, c.BareNamespace)
	}
	return namespaces
}

func FuzzTemplate(f *testing.F) {
	f.Add("{label:app.kubernetes.io/name}.x.{namespace}.apps.internal", "web", "web.x.prod.apps.internal")
	f.Add("{serviceaccount}.{namespace}.sa.example.internal", "a.b", "a.b.prod.sa.example.internal")
	f.Fuzz(func(t *testing.T, text, value, name string) {
		tmpl, err := parseTemplate(text)
		if err != nil {
			return
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Labels: map[string]string{"app": value, "app.kubernetes.io/name": value}},
			Spec:       corev1.PodSpec{ServiceAccountName: value},
		}
		made, why := tmpl.fill(pod)
		if (made == "") == (why == "") {
			t.Fatalf("%q of %q: %q and %q", text, value, made, why)
		}
		if made != "" && (len(made) < 254 && !isName(made) || !tmpl.couldBe(made) || !strings.HasSuffix(made, "prod."+tmpl.suffix)) {
			t.Fatalf("%q of %q makes %q", text, value, made)
		}
		if tmpl.couldBe(name) && !strings.HasSuffix(name, "."+tmpl.suffix) {
			t.Fatalf("%q could be %q", text, name)
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"api.prod.svc.cluster.local", "web-0.web.prod.svc", "api.prod", "api", "svc.cluster.local", "", "..svc.cluster.local"} {
		f.Add(name)
	}
	n := names{domain: "cluster.local", short: true, bare: "prod"}
	f.Fuzz(func(t *testing.T, name string) {
		at, ok := n.read(name)
		if !ok || !isName(name) {
			return
		}
		if at.service == "" || at.namespace == "" || strings.ContainsAny(at.host+at.service+at.namespace, ".") {
			t.Fatalf("%q is read as %+v", name, at)
		}
	})
}
