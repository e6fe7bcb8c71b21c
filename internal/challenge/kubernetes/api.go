package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	// maxAnswer is room for a page of slices of 1,000 endpoints each, which is
	// the most there can be, at 1.5 KiB.
	maxAnswer     = 32 << 20
	slicesPerPage = 20
	slicePages    = 40 // 800 slices; at 100 endpoints each, which is usual, 80,000 pods
	podsPerPage   = 500
	podPages      = 4 // with one address, finished ones among them

	// The API server shares out its own capacity; these only keep a storm of
	// renewals from taking all of our share at once.
	requestsPerSecond = 200
	requestsBurst     = 400
)

// errMissing is that the named object isn't there, which the API says so.
var errMissing = errors.New("not found")

// apiError is that the API couldn't be asked. It is the operator's to see to.
type apiError struct {
	verb, resource string
	err            error
}

func (e *apiError) Error() string { return e.verb + " " + e.resource + ": " + e.err.Error() }
func (e *apiError) Unwrap() error { return e.err }

// api is the few requests that a verification makes, without a cache, so that
// each reads what is true now.
type api struct {
	core, discovery, authentication rest.Interface
	http                            *http.Client
}

func connect(kubeconfig string) (*api, error) {
	cfg, err := load(kubeconfig)
	if err != nil {
		return nil, err
	}
	if u, _, err := rest.DefaultServerUrlFor(cfg); err != nil || u.Scheme != "https" || cfg.Insecure {
		return nil, errors.New("the API must be reached by https and its certificate checked: whoever answers vouches for every pod")
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), authenticationv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.AcceptContentTypes, cfg.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	cfg.UserAgent = "chancery"
	cfg.WarningHandlerWithContext = rest.NoWarnings{}
	cfg.QPS, cfg.Burst = requestsPerSecond, requestsBurst
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return bounded{next} })
	a := &api{}
	if a.http, err = rest.HTTPClientFor(cfg); err != nil {
		return nil, err
	}
	// The API never redirects what we ask; a token must not go where one leads.
	a.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	var errs [3]error
	a.core, errs[0] = group(cfg, a.http, "/api", corev1.SchemeGroupVersion)
	a.discovery, errs[1] = group(cfg, a.http, "/apis", discoveryv1.SchemeGroupVersion)
	a.authentication, errs[2] = group(cfg, a.http, "/apis", authenticationv1.SchemeGroupVersion)
	return a, errors.Join(errs[:]...)
}

// load doesn't fall back to the pod's own cluster when a file says nothing, as
// clientcmd's loader does.
func load(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("none is given, and this is not a pod with a service account: %w", err)
		}
		return cfg, nil
	}
	file, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := clientcmd.ResolveLocalPaths(file); err != nil {
		return nil, err
	}
	return clientcmd.NewDefaultClientConfig(*file, &clientcmd.ConfigOverrides{}).ClientConfig()
}

func group(cfg *rest.Config, h *http.Client, path string, version schema.GroupVersion) (rest.Interface, error) {
	own := rest.CopyConfig(cfg)
	own.APIPath, own.GroupVersion = path, &version
	return rest.RESTClientForConfigAndClient(own, h)
}

// ask makes one request and wants an answer of one type. What the API says
// isn't there is errMissing; all else is an *apiError. A 404 that isn't the
// API's own says nothing of the object.
func ask[T runtime.Object](ctx context.Context, verb, resource string, r *rest.Request) (T, error) {
	var none T
	ctx = klog.NewContext(ctx, klog.Logger{}) // what matters is in the error
	answer, err := r.MaxRetries(0).Do(ctx).Get()
	switch {
	case apierrors.IsNotFound(err) && verb == "get" && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse):
		return none, errMissing
	case err != nil:
		return none, &apiError{verb, resource, err}
	}
	if object, ok := answer.(T); ok {
		return object, nil
	}
	return none, &apiError{verb, resource, fmt.Errorf("the answer is a %T", answer)}
}

// object is one of the API's kinds that have a name.
type object interface {
	runtime.Object
	metav1.Object
}

// get reads one object, as it is now.
func get[T object](ctx context.Context, from rest.Interface, resource, namespace, name string) (T, error) {
	o, err := ask[T](ctx, "get", resource, from.Get().Namespace(namespace).Resource(resource).Name(name))
	if err == nil && (o.GetNamespace() != namespace || o.GetName() != name) {
		err = &apiError{"get", resource, errors.New("the answer is about another object")}
	}
	return o, err
}

func (a *api) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return get[*corev1.Pod](ctx, a.core, "pods", namespace, name)
}

func (a *api) service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	return get[*corev1.Service](ctx, a.core, "services", namespace, name)
}

// review asks whose token it is.
func (a *api) review(ctx context.Context, token, audience string) (*authenticationv1.TokenReviewStatus, error) {
	body := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}}}
	answer, err := ask[*authenticationv1.TokenReview](ctx, "create", "tokenreviews.authentication.k8s.io", a.authentication.Post().Resource("tokenreviews").Body(body))
	if err != nil {
		return nil, err
	}
	return &answer.Status, nil
}

// podsAt lists the pods whose primary address it is.
func (a *api) podsAt(ctx context.Context, address string) ([]corev1.Pod, error) {
	var all []corev1.Pod
	more := ""
	for range podPages {
		r := a.core.Get().Resource("pods").Param("fieldSelector", "status.podIP="+address)
		page, err := ask[*corev1.PodList](ctx, "list", "pods", paged(r, podsPerPage, more))
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if more = page.Continue; more == "" {
			return all, nil
		}
	}
	return nil, &apiError{"list", "pods", fmt.Errorf("more than %d pages with one address", podPages)}
}

// anySlice reports whether one of the Service's slices is as wanted.
func (a *api) anySlice(ctx context.Context, namespace, service string, wanted func(*discoveryv1.EndpointSlice) bool) (bool, error) {
	const resource = "endpointslices.discovery.k8s.io"
	more := ""
	for range slicePages {
		r := a.discovery.Get().Namespace(namespace).Resource("endpointslices").Param("labelSelector", discoveryv1.LabelServiceName+"="+service)
		page, err := ask[*discoveryv1.EndpointSliceList](ctx, "list", resource, paged(r, slicesPerPage, more))
		if err != nil {
			return false, err
		}
		for i := range page.Items {
			if wanted(&page.Items[i]) {
				return true, nil
			}
		}
		if more = page.Continue; more == "" {
			return false, nil
		}
	}
	return false, &apiError{"list", resource, fmt.Errorf("more than %d pages of one service", slicePages)}
}

func paged(r *rest.Request, size int, more string) *rest.Request {
	r = r.Param("limit", strconv.Itoa(size))
	if more != "" {
		r = r.Param("continue", more)
	}
	return r
}

// bounded cuts off answers that don't end: client-go reads them whole.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxAnswer}
	}
	return resp, err
}

// WrappedRoundTripper lets client-go reach the transport's idle connections.
func (b bounded) WrappedRoundTripper() http.RoundTripper { return b.next }

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (a *api) close() { utilnet.CloseIdleConnectionsFor(a.http.Transport) }
