package cluster

import (
	"context"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Namespace makes a namespace, with the service account "default" that pods
// have which name none.
func (c *Cluster) Namespace(name string) {
	c.t.Helper()
	_, err := c.Client.CoreV1().Namespaces().Create(c.t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	c.check("namespace "+name, err)
	if c.options.Controllers {
		c.Eventually(startLimit, func(ctx context.Context) error { return c.furnished(ctx, name) })
		return
	}
	c.ServiceAccount(name, "default")
}

// furnished is nil when the controllers have made what every namespace gets.
func (c *Cluster) furnished(ctx context.Context, namespace string) error {
	if _, err := c.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return err
	}
	_, err := c.Client.CoreV1().ConfigMaps(namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	return err
}

// ServiceAccount makes a service account.
func (c *Cluster) ServiceAccount(namespace, name string) *corev1.ServiceAccount {
	c.t.Helper()
	account, err := c.Client.CoreV1().ServiceAccounts(namespace).Create(c.t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	c.check("service account "+name, err)
	return account
}

// Grant lets a service account do in the whole cluster what the rules say.
func (c *Cluster) Grant(namespace, account string, rules ...rbacv1.PolicyRule) {
	c.t.Helper()
	meta := metav1.ObjectMeta{GenerateName: account + "-"}
	role, err := c.Client.RbacV1().ClusterRoles().Create(c.t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	c.check("cluster role", err)
	c.GrantRole(namespace, account, role.Name)
}

// GrantRole gives a service account a role of the cluster, in all namespaces.
func (c *Cluster) GrantRole(namespace, account, role string) {
	c.t.Helper()
	_, err := c.Client.RbacV1().ClusterRoleBindings().Create(c.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: account + "-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}, metav1.CreateOptions{})
	c.check("cluster role binding", err)
}

// Node makes a node, which nobody runs.
func (c *Cluster) Node(name string) *corev1.Node {
	c.t.Helper()
	node, err := c.Client.CoreV1().Nodes().Create(c.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	c.check("node "+name, err)
	return node
}

// Pod makes a pod of the service account, after what edit does to it. It is
// pending, as a pod is that no scheduler has seen: see [Cluster.Run].
func (c *Cluster) Pod(namespace, name, account string, edit ...func(*corev1.Pod)) *corev1.Pod {
	c.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			Containers:         []corev1.Container{{Name: "main", Image: "nobody.pulls/it"}},
		},
	}
	for _, f := range edit {
		f(pod)
	}
	pod, err := c.Client.CoreV1().Pods(namespace).Create(c.t.Context(), pod, metav1.CreateOptions{})
	c.check("pod "+name, err)
	return pod
}

// Run does with a pod what scheduler and kubelet do: it is bound to the node
// if it wasn't, and is running and ready at the address.
func (c *Cluster) Run(pod *corev1.Pod, node, ip string) *corev1.Pod {
	c.t.Helper()
	if pod.Spec.NodeName == "" {
		err := c.Client.CoreV1().Pods(pod.Namespace).Bind(c.t.Context(), &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{})
		c.check("binding pod "+pod.Name, err)
	}
	return c.Status(pod, func(s *corev1.PodStatus) {
		s.Phase = corev1.PodRunning
		s.PodIP, s.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		setReady(s, true)
	})
}

// Ready makes a pod ready or not, as its probes would.
func (c *Cluster) Ready(pod *corev1.Pod, ready bool) *corev1.Pod {
	c.t.Helper()
	return c.Status(pod, func(s *corev1.PodStatus) { setReady(s, ready) })
}

func setReady(s *corev1.PodStatus, ready bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	s.Conditions = []corev1.PodCondition{
		{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()},
		{Type: corev1.ContainersReady, Status: status, LastTransitionTime: metav1.Now()},
	}
}

// Status changes the status of the pod as it is now, and returns the pod as it
// is then.
func (c *Cluster) Status(pod *corev1.Pod, change func(*corev1.PodStatus)) *corev1.Pod {
	c.t.Helper()
	pod, err := c.Client.CoreV1().Pods(pod.Namespace).Get(c.t.Context(), pod.Name, metav1.GetOptions{})
	c.check("the pod", err)
	change(&pod.Status)
	pod, err = c.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(c.t.Context(), pod, metav1.UpdateOptions{})
	c.check("the pod's status", err)
	return pod
}

// DeletePod deletes the very pod at once, as a kubelet does in the end, and
// returns when it is gone.
func (c *Cluster) DeletePod(pod *corev1.Pod) {
	c.t.Helper()
	c.deletePod(pod, 0)
	c.Eventually(requestLimit, func(ctx context.Context) error {
		now, err := c.Client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && now.UID != pod.UID {
			return nil // its successor
		}
		return gone(err)
	})
}

// TerminatePod asks for the pod's end, and returns the pod as it stays then for
// as long as no kubelet says that it ended: with a deletion timestamp.
func (c *Cluster) TerminatePod(pod *corev1.Pod) *corev1.Pod {
	c.t.Helper()
	c.deletePod(pod, 600)
	pod, err := c.Client.CoreV1().Pods(pod.Namespace).Get(c.t.Context(), pod.Name, metav1.GetOptions{})
	c.check("the pod", err)
	if pod.DeletionTimestamp == nil {
		c.t.Fatalf("pod %s has no deletion timestamp", pod.Name)
	}
	return pod
}

func (c *Cluster) deletePod(pod *corev1.Pod, grace int64) {
	c.t.Helper()
	err := c.Client.CoreV1().Pods(pod.Namespace).Delete(c.t.Context(), pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &grace, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	c.check("deleting pod "+pod.Name, err)
}

// Service makes a service at port 443. With a selector, and with controllers,
// the endpoint slice controller writes its slices; else [Cluster.EndpointSlice]
// does.
func (c *Cluster) Service(namespace, name string, selector map[string]string) *corev1.Service {
	c.t.Helper()
	svc, err := c.Client.CoreV1().Services(namespace).Create(c.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: selector, Ports: []corev1.ServicePort{{Port: 443, TargetPort: intstr.FromInt32(443)}}},
	}, metav1.CreateOptions{})
	c.check("service "+name, err)
	return svc
}

// SliceController is who writes the EndpointSlices of services with selectors,
// as the slices' label [discoveryv1.LabelManagedBy] names it.
const SliceController = "endpointslice-controller.k8s.io"

// EndpointSlice makes a slice of the service with the pods as they are, just as
// the endpoint slice controller would, but for what edit does to it.
func (c *Cluster) EndpointSlice(svc *corev1.Service, pods []*corev1.Pod, edit ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	c.t.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName:    svc.Name + "-",
			Labels:          map[string]string{discoveryv1.LabelManagedBy: SliceController, discoveryv1.LabelServiceName: svc.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, pod := range pods {
		slice.Endpoints = append(slice.Endpoints, endpoint(pod))
	}
	for _, f := range edit {
		f(slice)
	}
	slice, err := c.Client.DiscoveryV1().EndpointSlices(svc.Namespace).Create(c.t.Context(), slice, metav1.CreateOptions{})
	c.check("endpoint slice of "+svc.Name, err)
	return slice
}

// endpoint is what a slice says of a pod.
func endpoint(pod *corev1.Pod) discoveryv1.Endpoint {
	ready := false
	for _, cond := range pod.Status.Conditions {
		ready = ready || cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue
	}
	terminating := pod.DeletionTimestamp != nil
	serves := ready && !terminating
	return discoveryv1.Endpoint{
		Addresses:  []string{pod.Status.PodIP},
		Conditions: discoveryv1.EndpointConditions{Ready: &serves, Serving: &ready, Terminating: &terminating},
		NodeName:   &pod.Spec.NodeName,
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
}

// Token is a token of the pod's service account that is bound to the very pod,
// for one audience: what a projected volume would hold. The API server gives
// no less than ten minutes.
func (c *Cluster) Token(pod *corev1.Pod, audience string, life time.Duration) string {
	c.t.Helper()
	return c.token(pod.Namespace, pod.Spec.ServiceAccountName, life, &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}, audience)
}

// ServiceAccountToken is a token of a service account that is bound to nothing
// else, for an hour; without audiences it is for the API server.
func (c *Cluster) ServiceAccountToken(namespace, account string, audiences ...string) string {
	c.t.Helper()
	return c.token(namespace, account, time.Hour, nil, audiences...)
}

func (c *Cluster) token(namespace, account string, life time.Duration, bound *authenticationv1.BoundObjectReference, audiences ...string) string {
	c.t.Helper()
	seconds := int64(life.Seconds())
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, ExpirationSeconds: &seconds, BoundObjectRef: bound}}
	req, err := c.Client.CoreV1().ServiceAccounts(namespace).CreateToken(c.t.Context(), account, req, metav1.CreateOptions{})
	c.check("a token of "+account, err)
	return req.Status.Token
}

// Review is the API server's own opinion of a token, for the audiences or else
// its own.
func (c *Cluster) Review(token string, audiences ...string) authenticationv1.TokenReviewStatus {
	c.t.Helper()
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}
	review, err := c.Client.AuthenticationV1().TokenReviews().Create(c.t.Context(), review, metav1.CreateOptions{})
	c.check("a token review", err)
	return review.Status
}
