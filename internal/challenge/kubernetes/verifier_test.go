package kubernetes

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const (
	apiName    = "api.prod.svc.cluster.local"
	webSubject = "kubernetes:east/prod/web-0/uid-1/web"
)

func dns(name string) protocol.Identifier {
	return protocol.Identifier{Type: protocol.DNS, Value: name}
}

func ip(addr string) protocol.Identifier {
	return protocol.Identifier{Type: protocol.IP, Value: addr}
}

func asked(id protocol.Identifier, response []byte) protocol.Validation {
	return protocol.Validation{Type: protocol.Kubernetes01, Identifier: id, Token: "t", Thumbprint: "k", Response: response}
}

func from(id protocol.Identifier, peer string) protocol.Validation {
	c := asked(id, []byte("{}"))
	c.Peer = netip.MustParseAddrPort(peer)
	return c
}

// wantNo checks a refusal's type, whether it may be retried, and words in it.
func wantNo(t *testing.T, err error, typ protocol.ProblemType, retryable bool, words ...string) {
	t.Helper()
	v, ok := errors.AsType[*protocol.ValidationError](err)
	if !ok {
		t.Fatalf("got error %v, want a ValidationError of type %s", err, typ)
	}
	if v.Problem.Type != typ || v.Retryable != retryable {
		t.Errorf("got %q (retryable %v), want type %s (retryable %v)", v, v.Retryable, typ, retryable)
	}
	for _, w := range words {
		if !strings.Contains(v.Problem.Detail, w) {
			t.Errorf("the detail %q doesn't say %q", v.Problem.Detail, w)
		}
	}
}

// The usual case, and all that is asked of the API for it.
func TestTokenProvesServiceName(t *testing.T) {
	w, v := newWorld(t)
	pod := w.pod("prod", "web-0", "uid-1")
	w.service("prod", "api", pod)
	seen, err := v.Validate(t.Context(), asked(dns(apiName), w.token(pod)))
	if err != nil {
		t.Fatal(err)
	}
	if seen.SeenAt.IsZero() || !seen.ValidUntil.IsZero() {
		t.Errorf("seen at %v, valid until %v", seen.SeenAt, seen.ValidUntil)
	}
	seen.SeenAt = time.Time{}
	if want := (protocol.Evidence{
		Type: "kubernetes-01", Target: "pod prod/web-0 (uid-1)", Subject: webSubject,
		Detail: "Service prod/api; the pod by its token, in cluster east",
	}); !reflect.DeepEqual(seen, want) {
		t.Errorf("got %+v\nwant %+v", seen, want)
	}
	if got, want := w.requests(), []string{"create tokenreviews", "get pods", "get services", "list endpointslices"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	if err := v.Recheck(t.Context(), dns(apiName), seen.Subject); err != nil {
		t.Error(err)
	}
	if got, want := w.requests(), []string{"get pods", "get services", "list endpointslices"}; !slices.Equal(got, want) {
		t.Errorf("asked again %q, want %q", got, want)
	}
	// Nothing is remembered: each proof is a review of its own.
	if _, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), w.token(pod))); err != nil {
		t.Error(err)
	}
	if got, want := w.requests(), []string{"create tokenreviews", "get pods"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestResponse(t *testing.T) {
	w, v := newWorld(t)
	pod := w.pod("prod", "web-0", "uid-1")
	good := string(w.token(pod))
	for _, c := range []struct{ payload, words string }{
		{"", "no serviceAccountToken"},
		{"{}", `project one with audience "` + testAudience + `"`},
		{`{"serviceaccounttoken":"eyJ.eyJ.x"}`, "no serviceAccountToken"},
		{`{"token":"eyJ.eyJ.x"}`, "no serviceAccountToken"},
	} {
		_, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), []byte(c.payload)))
		wantNo(t, err, protocol.Unauthorized, false, c.words)
	}
	for _, payload := range []string{
		"null", "[]", "1", `"x"`, "{", "{} {}", good + good, good + "x", "\xff",
		`{"serviceAccountToken":null}`, `{"serviceAccountToken":1}`, `{"serviceAccountToken":["x"]}`, `{"serviceAccountToken":{}}`,
		`{"serviceAccountToken":""}`, `{"serviceAccountToken":"a b"}`, `{"serviceAccountToken":"a\n"}`, `{"serviceAccountToken":"ü"}`,
		`{"serviceAccountToken":"` + strings.Repeat("x", maxResponse) + `"}`, strings.Repeat("[", maxResponse), strings.Repeat(" ", maxResponse+1),
	} {
		_, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), []byte(payload)))
		wantNo(t, err, protocol.Malformed, false)
	}
	if n := len(w.requests()); n != 0 {
		t.Errorf("%d requests were made for responses that have no token", n)
	}
	more := strings.TrimSuffix(good, "}") + `,"future":{"x":[1]}}`
	if _, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), []byte(more))); err != nil {
		t.Errorf("an unknown member: %v", err)
	}
}

func TestTokensRefused(t *testing.T) {
	w, v := newWorld(t)
	pod := w.pod("prod", "web-0", "uid-1")
	w.pod("prod", "web-1", "uid-2", func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.9.0.2"}} })
	type status = authenticationv1.TokenReviewStatus
	says := func(text string) func(*status) {
		return func(s *status) { *s = status{Error: text} }
	}
	extra := func(key string, values ...string) func(*status) {
		return func(s *status) { s.User.Extra["authentication.kubernetes.io/"+key] = values }
	}
	user := func(name string) func(*status) { return func(s *status) { s.User.Username = name } }
	for _, c := range []struct {
		name  string
		edit  func(*status)
		words string
	}{
		{"expired", says("[invalid bearer token, service account token has expired]"), "expired"},
		{"another audience", func(s *status) { s.Audiences = []string{"https://rogue.test/directory"} }, testAudience},
		{"the API server's audience", func(s *status) { s.Audiences = []string{"https://kubernetes.default.svc.cluster.local"} }, testAudience},
		{"another cluster's", says("invalid bearer token"), "this cluster's"},
		{"invalidated", says("service account token has been invalidated"), "gone"},
		{"not authenticated, with all else", func(s *status) { s.Authenticated = false; s.Audiences = nil }, "doesn't accept"},
		{"audiences absent", func(s *status) { s.Audiences = nil }, testAudience},
		{"a person's", user("alice"), "not a service account's"},
		{"a node's", user("system:node:n1"), "not a service account's"},
		{"no account", user("system:serviceaccount:prod"), "not a service account's"},
		{"a colon too many", user("system:serviceaccount:prod:web:x"), "names no pod"},
		{"an account with a slash", user("system:serviceaccount:prod:../web"), "names no pod"},
		{"a namespace with a slash", user("system:serviceaccount:prod/x:web"), "names no pod"},
		{"not bound to a pod", func(s *status) { s.User.Extra = nil }, "projected"},
		{"bound to a Secret", func(s *status) { delete(s.User.Extra, "authentication.kubernetes.io/pod-uid") }, "projected"},
		{"two pod names", extra("pod-name", "web-0", "web-1"), "projected"},
		{"two UIDs", extra("pod-uid", "uid-1", "uid-2"), "projected"},
		{"no pod name", extra("pod-name"), "projected"},
		{"an empty name", extra("pod-name", ""), "names no pod"},
		{"an empty UID", extra("pod-uid", ""), "names no pod"},
		{"a name that is a path", extra("pod-name", "../../secrets/x"), "names no pod"},
		{"another pod's UID", extra("pod-uid", "uid-2"), "another has its name"},
		{"another pod's name", extra("pod-name", "web-1"), "another has its name"},
		{"a pod that is gone", extra("pod-name", "web-9"), "pod web-9 in namespace prod is gone"},
		{"another namespace's pod", user("system:serviceaccount:dev:web"), "pod web-0 in namespace dev is gone"},
		{"another service account's", user("system:serviceaccount:prod:admin"), "service account admin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			response := w.token(pod, c.edit)
			_, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), response))
			wantNo(t, err, protocol.Unauthorized, false, c.words)
			if strings.Contains(err.Error(), "secret-") || strings.Contains(w.logged(), "secret-") {
				t.Errorf("the token is told to others: %v\n%s", err, w.logged())
			}
		})
	}
	t.Run("another audience among ours", func(t *testing.T) {
		response := w.token(pod, func(s *status) { s.Audiences = append(s.Audiences, "https://other.test") })
		if _, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), response)); err != nil {
			t.Error(err)
		}
	})
	t.Run("this pod's token for another pod's name", func(t *testing.T) {
		_, err := v.Validate(t.Context(), asked(ip("10.9.0.2"), w.token(pod)))
		wantNo(t, err, protocol.Unauthorized, false, "10.9.0.2", "pod web-0")
	})
}

// A TokenReview says yes for ten seconds after a pod is gone; the fake says so
// for ever.
func TestPodMustLive(t *testing.T) {
	for _, c := range []struct {
		name      string
		edit      func(w *world, p *corev1.Pod)
		retryable bool // only what may change, which is being ready
		words     string
	}{
		{"deleted", func(w *world, p *corev1.Pod) { w.pods = nil }, false, "is gone"},
		{"made again", func(w *world, p *corev1.Pod) { p.UID = "uid-2" }, false, "another has its name"},
		{"being deleted", func(w *world, p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }, false, "being deleted"},
		{"succeeded", func(w *world, p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false, "Succeeded"},
		{"failed", func(w *world, p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false, "Failed"},
		{"another service account", func(w *world, p *corev1.Pod) { p.Spec.ServiceAccountName = "root" }, false, "service account web"},
		{"not ready", func(w *world, p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, true, "not ready"},
		{"never said to be ready", func(w *world, p *corev1.Pod) { p.Status.Conditions = nil }, true, "not ready"},
		{"other conditions", func(w *world, p *corev1.Pod) { p.Status.Conditions[0].Type = corev1.ContainersReady }, true, "not ready"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, v := newWorld(t, func(cfg *Config) { cfg.RequireReady = c.retryable })
			pod := w.pod("prod", "web-0", "uid-1")
			w.service("prod", "api", pod)
			response := w.token(pod)
			seen, err := v.Validate(t.Context(), asked(dns(apiName), response))
			if err != nil {
				t.Fatal(err)
			}
			c.edit(w, pod)
			_, err = v.Validate(t.Context(), asked(dns(apiName), response))
			wantNo(t, err, protocol.Unauthorized, c.retryable, c.words)
			wantNo(t, v.Recheck(t.Context(), dns(apiName), seen.Subject), protocol.Unauthorized, c.retryable, c.words)
		})
	}
	t.Run("not ready, where nobody asks", func(t *testing.T) {
		w, v := newWorld(t)
		pod := w.pod("prod", "web-0", "uid-1", func(p *corev1.Pod) { p.Status.Conditions = nil; p.Status.Phase = corev1.PodPending })
		if _, err := v.Validate(t.Context(), asked(ip("10.9.0.1"), w.token(pod))); err != nil {
			t.Error(err)
		}
	})
}

func TestRecheckRefusesOtherSubjects(t *testing.T) {
	w, v := newWorld(t)
	w.service("prod", "api", w.pod("prod", "web-0", "uid-1"))
	for _, s := range []string{
		"", "kubernetes:", "kubernetes:west/prod/web-0/uid-1/web", "east/prod/web-0/uid-1/web", "device:east/prod/web-0/uid-1/web",
		"kubernetes:east/prod/web-0/uid-1", "kubernetes:east/prod/web-0/uid-1/web/", "kubernetes:east/prod/../prod/web-0/uid-1/web",
		"kubernetes:east/prod//uid-1/web", "kubernetes:east/prod/web-0//web", "kubernetes:east/PROD/web-0/uid-1/web",
	} {
		wantNo(t, v.Recheck(t.Context(), dns(apiName), s), protocol.Unauthorized, false, "cluster east")
	}
	if n := len(w.requests()); n != 0 {
		t.Errorf("%d requests were made for subjects that are none", n)
	}
	// What was withdrawn since.
	if err := v.Recheck(t.Context(), dns(apiName), webSubject); err != nil {
		t.Fatal(err)
	}
	w.slices[0].Endpoints = nil
	wantNo(t, v.Recheck(t.Context(), dns(apiName), webSubject), protocol.Unauthorized, true, "no EndpointSlice")
	wantNo(t, v.Recheck(t.Context(), dns("*.prod.svc.cluster.local"), webSubject), protocol.Malformed, false, "wildcard")
}

func TestSourceAddress(t *testing.T) {
	w, v := newWorld(t, func(c *Config) { c.SourceAddress = true })
	pod := w.pod("prod", "web-0", "uid-1")
	w.service("prod", "api", pod)
	w.pod("prod", "old", "uid-0", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }) // keeps its address for ever
	w.pod("prod", "older", "uid-9", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	w.pod("kube-system", "proxy", "uid-2", func(p *corev1.Pod) {
		p.Spec.HostNetwork, p.Status.PodIPs = true, []corev1.PodIP{{IP: "192.168.1.1"}}
	})
	w.pod("prod", "twin-a", "uid-3", func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.9.0.3"}} })
	w.pod("dev", "twin-b", "uid-4", func(p *corev1.Pod) {
		p.Status.PodIPs, p.DeletionTimestamp = []corev1.PodIP{{IP: "10.9.0.3"}}, new(metav1.Now())
	})
	w.pod("prod", "going", "uid-5", func(p *corev1.Pod) {
		p.Status.PodIPs, p.DeletionTimestamp = []corev1.PodIP{{IP: "10.9.0.5"}}, new(metav1.Now())
	})
	w.pod("prod", "nobody", "uid-6", func(p *corev1.Pod) {
		p.Status.PodIPs, p.Spec.ServiceAccountName = []corev1.PodIP{{IP: "10.9.0.6"}}, ""
	})
	w.pod("prod", "six", "uid-7", func(p *corev1.Pod) {
		p.Status.PodIPs = []corev1.PodIP{{IP: "fd00:9::7"}, {IP: "10.9.0.7"}}
	})
	w.pod("prod", "mixed-a", "uid-8", func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.9.0.8"}} })
	w.pod("prod", "mixed-b", "uid-10", func(p *corev1.Pod) {
		p.Spec.HostNetwork, p.Status.PodIPs = true, []corev1.PodIP{{IP: "10.9.0.8"}}
	})

	seen, err := v.Validate(t.Context(), from(dns(apiName), "10.9.0.1:40000"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "Service prod/api; the pod by its address 10.9.0.1, in cluster east"; seen.Detail != want || seen.Subject != webSubject {
		t.Errorf("got %+v", seen)
	}
	for peer, want := range map[string]string{
		"10.9.0.1:1": webSubject, "[::ffff:10.9.0.1]:2": webSubject, "[fd00:9::7]:3": "kubernetes:east/prod/six/uid-7/web",
	} {
		if got, err := v.Whois(t.Context(), netip.MustParseAddrPort(peer)); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", peer, got, err, want)
		}
	}
	for _, c := range []struct {
		peer      string
		retryable bool
		words     string
	}{
		{"10.9.0.99:1", true, "no pod of cluster east"},
		{"[fd00:9::1]:1", true, "primary address"}, // web-0's second one
		{"10.9.0.7:1", true, "primary address"},
		{"192.168.1.1:1", false, "node's address"},
		{"10.9.0.8:1", false, "node's address"},
		{"10.9.0.3:1", false, "more than one pod"},
		{"10.9.0.5:1", false, "being deleted"},
		{"10.9.0.6:1", false, "no service account"},
		{"0.0.0.0:1", false, "can't be"}, {"[::]:1", false, "can't be"},
		{"169.254.169.254:1", false, "can't be"}, {"[fe80::1]:1", false, "can't be"}, {"[fe80::1%eth0]:1", false, "can't be"},
		{"[fd00:9::7%eth0]:1", false, "can't be"}, {"224.0.0.1:1", false, "can't be"}, {"[ff02::1]:1", false, "can't be"},
		{"127.0.0.1:1", true, "no pod"},
	} {
		_, err := v.Validate(t.Context(), from(dns(apiName), c.peer))
		wantNo(t, err, protocol.Unauthorized, c.retryable, c.words)
		_, err = v.Whois(t.Context(), netip.MustParseAddrPort(c.peer))
		wantNo(t, err, protocol.Unauthorized, c.retryable, c.words)
	}
	_, err = v.Validate(t.Context(), asked(dns(apiName), []byte("{}"))) // after a restart
	wantNo(t, err, protocol.Unauthorized, false, "new order")

	// An address proves no more than the pod has.
	_, err = v.Validate(t.Context(), from(dns(apiName), "[fd00:9::7]:1"))
	wantNo(t, err, protocol.Unauthorized, true, "no EndpointSlice of Service api", "pod six")
	// A token wins over the address, and a bad one isn't helped by it.
	c := from(dns(apiName), "10.9.0.1:1")
	c.Response = response("not.a.token")
	_, err = v.Validate(t.Context(), c)
	wantNo(t, err, protocol.Unauthorized, false, "doesn't accept the token")
}

func TestSourceAddressOnlyWhereAllowed(t *testing.T) {
	w, v := newWorld(t)
	w.service("prod", "api", w.pod("prod", "web-0", "uid-1"))
	_, err := v.Validate(t.Context(), from(dns(apiName), "10.9.0.1:1"))
	wantNo(t, err, protocol.Unauthorized, false, "no serviceAccountToken")
	_, err = v.Whois(t.Context(), netip.MustParseAddrPort("10.9.0.1:1"))
	wantNo(t, err, protocol.Unauthorized, false, "address")
	if n := len(w.requests()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

// A server that ignores the field selector must not make a pod of one that
// has another address.
func TestSourceAddressIsConfirmed(t *testing.T) {
	w, v := newWorld(t, func(c *Config) { c.SourceAddress = true })
	w.pod("prod", "web-0", "uid-1")
	w.careless = true
	_, err := v.Whois(t.Context(), netip.MustParseAddrPort("10.9.0.77:1"))
	wantNo(t, err, protocol.Unauthorized, true, "no pod")
}

func TestOneVerifierServesMany(t *testing.T) {
	w, v := newWorld(t, func(c *Config) { c.SourceAddress = true })
	pod := w.pod("prod", "web-0", "uid-1")
	w.service("prod", "api", pod)
	response := w.token(pod)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, err := v.Validate(t.Context(), asked(dns(apiName), response)); err != nil {
				t.Error(err)
			}
			if err := v.Recheck(t.Context(), dns(apiName), webSubject); err != nil {
				t.Error(err)
			}
			if _, err := v.Whois(t.Context(), netip.MustParseAddrPort("10.9.0.1:1")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// The caller's own end is no verdict.
func TestCancelledCallerLearnsNothing(t *testing.T) {
	w, v := newWorld(t)
	pod := w.pod("prod", "web-0", "uid-1")
	stopped := errors.New("the server stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := v.Validate(ctx, asked(ip("10.9.0.1"), w.token(pod))); err != stopped {
		t.Errorf("got %v", err)
	}
	if err := v.Recheck(ctx, ip("10.9.0.1"), webSubject); err != stopped {
		t.Errorf("got %v", err)
	}
}

func FuzzSubject(f *testing.F) {
	f.Add(webSubject)
	f.Add("kubernetes:a.b/c/d.e/f/g")
	f.Add("kubernetes:////")
	f.Add("kubernetes:east/prod/web-0/uid-1/web/")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseSubject(text)
		if ok != s.valid() {
			t.Fatalf("%q: parsed %v, valid %v", text, ok, s.valid())
		}
		if ok && s.String() != text {
			t.Fatalf("%q was read as %q: two texts are one pod", text, s)
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add(response("eyJ.eyJ.x"))
	f.Add([]byte(`{"serviceAccountToken":null,"serviceAccountToken":"x"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		token, err := parseResponse(payload)
		if err != nil {
			if v, ok := errors.AsType[*protocol.ValidationError](err); !ok || v.Problem.Type != protocol.Malformed || token != "" {
				t.Fatalf("%q: %q, %v", payload, token, err)
			}
			return
		}
		if len(token) > len(payload) || strings.ContainsAny(token, " \r\n\t\x00\x7f") {
			t.Fatalf("%q gives the token %q", payload, token)
		}
		if token != "" {
			again, err := parseResponse(response(token))
			if err != nil && len(token) < maxResponse/8 || err == nil && again != token {
				t.Fatalf("%q comes back as %q, %v", token, again, err)
			}
		}
	})
}
