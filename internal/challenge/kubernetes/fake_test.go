package kubernetes

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	testAudience = "https://ca.test/acme/pods/directory"
	ourBearer    = "our-own-credential"
)

// world is what an API server knows, and how it answers: the real paths,
// verbs and JSON of the few requests there are.
type world struct {
	mu       sync.Mutex
	pods     []*corev1.Pod
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
	tokens   map[string]authenticationv1.TokenReviewStatus
	asked    []string                                                       // "list pods", in order
	hook     func(what string, w http.ResponseWriter, r *http.Request) bool // true: it has answered
	careless bool                                                           // selectors are ignored
	pageSize int                                                            // 0: as asked

	log             *bytes.Buffer
	url, kubeconfig string
}

// newWorld starts an API server on loopback and a verifier that asks it.
func newWorld(t testing.TB, edit ...func(*Config)) (*world, *Verifier) {
	t.Helper()
	w := &world{tokens: map[string]authenticationv1.TokenReviewStatus{}, log: &bytes.Buffer{}}
	server := httptest.NewUnstartedServer(w)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.EnableHTTP2 = true // as the real one
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	w.url, w.kubeconfig = server.URL, kubeconfig(t, server.URL, ca)
	return w, w.verifier(t, edit...)
}

func (w *world) verifier(t testing.TB, edit ...func(*Config)) *Verifier {
	t.Helper()
	c := Config{
		Cluster: "east", Kubeconfig: w.kubeconfig, Audience: testAudience,
		Logger: slog.New(slog.NewTextHandler(lockedWriter{w}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range edit {
		f(&c)
	}
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// strangersCA is a certificate authority that signed nothing here.
func strangersCA(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func kubeconfig(t testing.TB, url string, ca []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"ca.crt": string(ca), "token": ourBearer, "config": fmt.Sprintf(`
apiVersion: v1
kind: Config
current-context: it
clusters: [{name: it, cluster: {server: %q, certificate-authority: ca.crt}}]
users: [{name: us, user: {tokenFile: token}}]
contexts: [{name: it, context: {cluster: it, user: us}}]
`, url)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config")
}

type lockedWriter struct{ w *world }

func (l lockedWriter) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.log.Write(p)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) setHook(hook func(what string, w http.ResponseWriter, r *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = hook
}

// requests are what was asked since the last time.
func (w *world) requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.asked = nil }()
	return w.asked
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	what, serve := "unknown "+r.URL.Path, func() any { return nil }
	at := func(i int) string {
		if i < len(parts) {
			return parts[i]
		}
		return ""
	}
	switch {
	case r.Method == "POST" && r.URL.Path == "/apis/authentication.k8s.io/v1/tokenreviews":
		what, serve = "create tokenreviews", func() any { return w.review(r) }
	case r.Method == "GET" && r.URL.Path == "/api/v1/pods":
		what, serve = "list pods", func() any { return w.listPods(r) }
	case r.Method == "GET" && len(parts) == 6 && at(1) == "v1" && at(4) == "pods":
		what, serve = "get pods", func() any { return find(w.pods, at(3), at(5)) }
	case r.Method == "GET" && len(parts) == 6 && at(1) == "v1" && at(4) == "services":
		what, serve = "get services", func() any { return find(w.services, at(3), at(5)) }
	case r.Method == "GET" && len(parts) == 6 && at(1) == "discovery.k8s.io" && at(5) == "endpointslices":
		what, serve = "list endpointslices", func() any { return w.listSlices(r, at(4)) }
	}
	w.mu.Lock()
	w.asked = append(w.asked, what)
	hook := w.hook
	w.mu.Unlock()
	if hook != nil && hook(what, rw, r) {
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+ourBearer {
		failure(rw, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	answer := serve()
	if answer == nil {
		failure(rw, http.StatusNotFound, metav1.StatusReasonNotFound, what+" not found")
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	json.NewEncoder(rw).Encode(answer)
}

func failure(rw http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	json.NewEncoder(rw).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

func find[T metav1.Object](in []T, namespace, name string) any {
	for _, o := range in {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return o
		}
	}
	return nil
}

func (w *world) review(r *http.Request) any {
	var review authenticationv1.TokenReview
	if body, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(body, &review) != nil {
		return nil
	}
	status, known := w.tokens[review.Spec.Token]
	switch {
	case !known:
		status = authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}
	case status.Authenticated && status.Audiences != nil:
		// As the real one: what the token has of what was asked for.
		both := slices.DeleteFunc(slices.Clone(status.Audiences), func(a string) bool { return !slices.Contains(review.Spec.Audiences, a) })
		if len(both) == 0 {
			status = authenticationv1.TokenReviewStatus{Error: fmt.Sprintf(
				"[invalid bearer token, token audiences %q is invalid for the target audiences %q]", status.Audiences, review.Spec.Audiences)}
		} else {
			status.Audiences = both
		}
	}
	review.TypeMeta = metav1.TypeMeta{Kind: "TokenReview", APIVersion: "authentication.k8s.io/v1"}
	review.Status = status
	return review
}

// listPods knows the one field selector that is used, with its real meaning:
// the first of a pod's addresses.
func (w *world) listPods(r *http.Request) any {
	want, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "status.podIP=")
	if !ok {
		return nil
	}
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
	for _, p := range w.pods {
		if w.careless || len(p.Status.PodIPs) > 0 && p.Status.PodIPs[0].IP == want {
			item := *p
			item.TypeMeta = metav1.TypeMeta{} // items of a list have none
			list.Items = append(list.Items, item)
		}
	}
	list.Items, list.Continue = page(w, r, list.Items)
	return list
}

func (w *world) listSlices(r *http.Request, namespace string) any {
	service, ok := strings.CutPrefix(r.URL.Query().Get("labelSelector"), discoveryv1.LabelServiceName+"=")
	if !ok {
		return nil
	}
	list := discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"}}
	for _, s := range w.slices {
		if w.careless || s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == service {
			list.Items = append(list.Items, *s)
		}
	}
	list.Items, list.Continue = page(w, r, list.Items)
	return list
}

// page cuts a list as limit and continue say.
func page[T any](w *world, r *http.Request, all []T) ([]T, string) {
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	if w.pageSize > 0 {
		limit = w.pageSize
	}
	if limit == 0 || from+limit >= len(all) {
		return all[min(from, len(all)):], ""
	}
	return all[from : from+limit], strconv.Itoa(from + limit)
}

// pod adds a running, ready pod.
func (w *world) pod(namespace, name, uid string, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid), Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "web"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.9.0.1", PodIPs: []corev1.PodIP{{IP: "10.9.0.1"}, {IP: "fd00:9::1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, f := range edit {
		f(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods = append(w.pods, p)
	return p
}

// ofStatefulSet makes the pod one of a StatefulSet's, governed by a Service.
func ofStatefulSet(set, service string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: set, UID: "set-1", Controller: &yes}}
		p.Spec.Hostname, p.Spec.Subdomain = p.Name, service
	}
}

// service adds a Service that selects the pods of this world, with a slice
// that targets the pods, as the controller writes it.
func (w *world) service(namespace, name string, pods ...*corev1.Pod) (*corev1.Service, *discoveryv1.EndpointSlice) {
	svc := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{Kind: "Service", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("svc-" + name)},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7", Selector: map[string]string{"app": "web"}},
	}
	w.mu.Lock()
	w.services = append(w.services, svc)
	w.mu.Unlock()
	return svc, w.slice(svc, pods...)
}

func (w *world) slice(svc *corev1.Service, pods ...*corev1.Pod) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, Name: svc.Name + "-" + strconv.Itoa(len(w.slices)),
			Labels:          map[string]string{discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", discoveryv1.LabelServiceName: svc.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range pods {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{p.Status.PodIP},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slices = append(w.slices, s)
	return s
}

// token makes a token that is bound to the pod, for our audience, and returns
// the response with it.
func (w *world) token(p *corev1.Pod, edit ...func(*authenticationv1.TokenReviewStatus)) []byte {
	status := authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{testAudience},
		User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:" + p.Namespace + ":" + p.Spec.ServiceAccountName,
			Groups:   []string{"system:serviceaccounts", "system:authenticated"},
			Extra: map[string]authenticationv1.ExtraValue{
				"authentication.kubernetes.io/pod-name":  {p.Name},
				"authentication.kubernetes.io/pod-uid":   {string(p.UID)},
				"authentication.kubernetes.io/node-name": {"n1"},
			},
		},
	}
	for _, f := range edit {
		f(&status)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	token := "eyJhbGciOiJFUzI1NiJ9.secret-" + strconv.Itoa(len(w.tokens)) + ".c2lnbmF0dXJl"
	w.tokens[token] = status
	return response(token)
}

func response(token string) []byte {
	b, _ := json.Marshal(map[string]string{"serviceAccountToken": token})
	return b
}

// label sets a label without changing what the pods share.
func label(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Labels = maps.Clone(p.Labels)
		p.Labels[key] = value
	}
}
