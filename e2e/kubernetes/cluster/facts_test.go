package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
)

// Where the API server puts what a token is bound to (KEP 1205).
const (
	podName = "authentication.kubernetes.io/pod-name"
	podUID  = "authentication.kubernetes.io/pod-uid"
)

const audience = "https://ca.test/acme/pods"

// What kubernetes-01 builds on: should Kubernetes change one of these, this
// fails and not the CA's judgement.
func TestFacts(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{Controllers: true})
	c.Node("n1")
	for _, fact := range []struct {
		name string
		test func(t *testing.T, c *cluster.Cluster, namespace string)
	}{
		{"token", tokenNamesItsPod},
		{"audience", tokenIsForItsAudience},
		{"unbound", unboundTokenNamesNoPod},
		{"terminating", tokenOutlivesThePodsEnd},
		{"deleted", reviewOutlivesThePod},
		{"replaced", tokenIsNotItsSuccessors},
		{"slice", slicesNameThePod},
		{"statefulset", statefulPodsHaveHostnames},
		{"who", editorsWriteNoSlices},
	} {
		t.Run(fact.name, func(t *testing.T) {
			t.Parallel()
			c := c.For(t)
			c.Namespace(fact.name)
			fact.test(t, c, fact.name)
		})
	}
}

// run makes a running pod of the service account "default" and a token of it.
func run(c *cluster.Cluster, namespace string, labels map[string]string) (*corev1.Pod, string) {
	pod := c.Pod(namespace, "web", "default", func(p *corev1.Pod) { p.Labels = labels })
	pod = c.Run(pod, "n1", "10.9.0.1")
	return pod, c.Token(pod, audience, time.Hour)
}

// The review of a pod's token says whose it is, and repeats our audience.
func tokenNamesItsPod(t *testing.T, c *cluster.Cluster, namespace string) {
	pod, token := run(c, namespace, nil)
	got := c.Review(token, audience)
	if !got.Authenticated || !slices.Equal(got.Audiences, []string{audience}) {
		t.Errorf("authenticated %v for the audiences %q (%s)", got.Authenticated, got.Audiences, got.Error)
	}
	if want := "system:serviceaccount:" + namespace + ":default"; got.User.Username != want {
		t.Errorf("the user is %s, want %s", got.User.Username, want)
	}
	for key, want := range map[string]string{podName: pod.Name, podUID: string(pod.UID)} {
		if !slices.Equal(got.User.Extra[key], []string{want}) {
			t.Errorf("%s is %q, want %q", key, got.User.Extra[key], want)
		}
	}
}

// A token for one audience is none for another: not a pod's token for the API
// server, which every pod has, nor ours for the API server.
func tokenIsForItsAudience(t *testing.T, c *cluster.Cluster, namespace string) {
	pod, ours := run(c, namespace, nil)
	for _, test := range []struct{ token, audience string }{
		{ours, "https://other.test"},
		{ours, cluster.Issuer},
		{c.Token(pod, cluster.Issuer, time.Hour), audience},
	} {
		if got := c.Review(test.token, test.audience); got.Authenticated || got.Error == "" {
			t.Errorf("for %s: authenticated %v, audiences %q, error %q", test.audience, got.Authenticated, got.Audiences, got.Error)
		}
	}
	// Asked for two, it names the one.
	if got := c.Review(ours, "https://other.test", audience); !slices.Equal(got.Audiences, []string{audience}) {
		t.Errorf("for two audiences: %q", got.Audiences)
	}
}

// A token may be good and yet be no pod's: a CA must ask for the pod.
func unboundTokenNamesNoPod(t *testing.T, c *cluster.Cluster, namespace string) {
	got := c.Review(c.ServiceAccountToken(namespace, "default", audience), audience)
	if !got.Authenticated {
		t.Fatalf("not authenticated: %s", got.Error)
	}
	for _, key := range []string{podName, podUID} {
		if v, ok := got.User.Extra[key]; ok {
			t.Errorf("%s is %q", key, v)
		}
	}
}

// A pod that is being deleted keeps its token until it is gone: a CA must look
// at the deletion timestamp by itself.
func tokenOutlivesThePodsEnd(t *testing.T, c *cluster.Cluster, namespace string) {
	pod, token := run(c, namespace, nil)
	c.TerminatePod(pod)
	if got := c.Review(token, audience); !got.Authenticated {
		t.Errorf("not authenticated: %s; then a CA need not look at the deletion timestamp", got.Error)
	}
}

// A review says yes for ten seconds after the pod is gone, if it said so
// before: a CA must read the pod itself.
func reviewOutlivesThePod(t *testing.T, c *cluster.Cluster, namespace string) {
	pod, token := run(c, namespace, nil)
	fresh := c.Token(pod, audience, time.Hour)
	if got := c.Review(token, audience); !got.Authenticated {
		t.Fatalf("not authenticated: %s", got.Error)
	}
	c.DeletePod(pod)
	deleted := time.Now()
	if got := c.Review(token, audience); !got.Authenticated {
		t.Errorf("not authenticated: %s; then a CA need not read the pod", got.Error)
	}
	refused := func(token string) func(context.Context) error {
		return func(context.Context) error {
			if c.Review(token, audience).Authenticated {
				return errors.New("still authenticated")
			}
			return nil
		}
	}
	c.Eventually(2*time.Second, refused(fresh)) // nobody has asked for this one
	c.Eventually(limit, refused(token))
	t.Logf("refused %.1f s after the pod was gone", time.Since(deleted).Seconds())
}

// A token of a pod that was deleted is not that of a new pod of the same name.
func tokenIsNotItsSuccessors(t *testing.T, c *cluster.Cluster, namespace string) {
	pod, token := run(c, namespace, nil)
	c.DeletePod(pod)
	next, _ := run(c, namespace, nil)
	if next.UID == pod.UID {
		t.Fatal("two pods have one UID")
	}
	c.Eventually(limit, func(context.Context) error {
		got := c.Review(token, audience)
		if uid := got.User.Extra[podUID]; slices.Contains(uid, string(next.UID)) {
			t.Error("the token names the new pod")
		}
		if got.Authenticated {
			return errors.New("still authenticated")
		}
		return nil
	})
}

// The endpoint slice controller labels its slices, and they point at pods by
// UID, ready or not.
func slicesNameThePod(t *testing.T, c *cluster.Cluster, namespace string) {
	labels := map[string]string{"app": "web"}
	pod, _ := run(c, namespace, labels)
	c.Service(namespace, "front", labels)
	for _, ready := range []bool{true, false} {
		pod = c.Ready(pod, ready)
		c.Eventually(limit, func(ctx context.Context) error {
			slice, err := theSlice(ctx, c, namespace, "front")
			if err != nil {
				return err
			}
			e := slice.Endpoints[0]
			switch {
			case slice.Labels[discoveryv1.LabelManagedBy] != cluster.SliceController:
				return fmt.Errorf("labels %v", slice.Labels)
			case !slices.Equal(e.Addresses, []string{"10.9.0.1"}) || *e.Conditions.Ready != ready:
				return fmt.Errorf("addresses %v, ready %v, want ready %v", e.Addresses, *e.Conditions.Ready, ready)
			case e.TargetRef == nil || e.TargetRef.Kind != "Pod" || e.TargetRef.Namespace != namespace || e.TargetRef.Name != pod.Name || e.TargetRef.UID != pod.UID:
				return fmt.Errorf("target %v, want pod %s (%s)", e.TargetRef, pod.Name, pod.UID)
			}
			return nil
		})
	}
	c.DeletePod(pod)
	c.Eventually(limit, func(ctx context.Context) error {
		if _, err := theSlice(ctx, c, namespace, "front"); err == nil {
			return errors.New("the slice still has the deleted pod")
		}
		return nil
	})
}

// theSlice is the service's only slice, with one endpoint.
func theSlice(ctx context.Context, c *cluster.Cluster, namespace, service string) (*discoveryv1.EndpointSlice, error) {
	all, err := c.Client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	if len(all.Items) != 1 || len(all.Items[0].Endpoints) != 1 {
		return nil, fmt.Errorf("%d slices, want 1 with one endpoint: %v", len(all.Items), all.Items)
	}
	return &all.Items[0], nil
}

// A StatefulSet owns its pods, and the slices of its service give them the
// hostnames that are their DNS names.
func statefulPodsHaveHostnames(t *testing.T, c *cluster.Cluster, namespace string) {
	labels := map[string]string{"app": "db"}
	c.Service(namespace, "db", labels)
	_, err := c.Client.AppsV1().StatefulSets(namespace).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "db", Image: "nobody.pulls/it"}}}},
		}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var pod *corev1.Pod
	c.Eventually(limit, func(ctx context.Context) (err error) {
		pod, err = c.Client.CoreV1().Pods(namespace).Get(ctx, "db-0", metav1.GetOptions{})
		return err
	})
	if owner := metav1.GetControllerOf(pod); owner == nil || owner.Kind != "StatefulSet" || owner.Name != "db" {
		t.Errorf("the owner of db-0 is %v", owner)
	}
	if pod.Spec.Hostname != "db-0" || pod.Spec.Subdomain != "db" {
		t.Errorf("hostname %q and subdomain %q, want db-0 and db", pod.Spec.Hostname, pod.Spec.Subdomain)
	}
	c.Run(pod, "n1", "10.9.0.2")
	c.Eventually(limit, func(ctx context.Context) error {
		slice, err := theSlice(ctx, c, namespace, "db")
		if err == nil && (slice.Endpoints[0].Hostname == nil || *slice.Endpoints[0].Hostname != "db-0") {
			err = fmt.Errorf("endpoint %v, want the hostname db-0", slice.Endpoints[0])
		}
		return err
	})
}

// Who may edit a namespace, or administer it, may write services but not their
// slices (CVE-2021-25740): what a slice says is the controller's word. Who may
// write slices forges any label.
func editorsWriteNoSlices(t *testing.T, c *cluster.Cluster, namespace string) {
	for _, role := range []string{"edit", "admin"} {
		c.ServiceAccount(namespace, role)
		c.GrantRole(namespace, role, role)
		may := func(ctx context.Context, verb, group, resource string) bool {
			review, err := c.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User:               "system:serviceaccount:" + namespace + ":" + role,
					ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: group, Resource: resource},
				}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return review.Status.Allowed
		}
		c.Eventually(limit, func(ctx context.Context) error {
			if !may(ctx, "create", "", "services") {
				return errors.New(role + " may not yet make services")
			}
			return nil
		})
		for _, verb := range []string{"create", "update", "patch", "delete"} {
			if may(t.Context(), verb, discoveryv1.GroupName, "endpointslices") {
				t.Errorf("%s may %s endpoint slices", role, verb)
			}
		}
	}
}

// client acts with a configuration of the test's own.
func client(t *testing.T, conf *rest.Config) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
