package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// sliceController is what the endpoint slice controller of
// kube-controller-manager calls itself in the label of its slices.
const sliceController = "endpointslice-controller.k8s.io"

// rule says by which rule the pod has the name. Its error is a
// *protocol.ValidationError that says why not, or the API's.
func (v *Verifier) rule(ctx context.Context, id protocol.Identifier, pod *corev1.Pod) (string, error) {
	switch {
	case id.IsWildcard():
		return "", wildcard()
	case id.Type == protocol.IP:
		return addressRule(id.Value, pod)
	case id.Type != protocol.DNS || !isName(id.Value):
		return "", malformed("kubernetes-01 can't prove such an identifier; it proves names and addresses")
	}
	name := id.Value
	if pattern := v.names.grant(pod.Namespace, name); pattern != "" {
		return fmt.Sprintf("%s, which namespace %s is granted", pattern, pod.Namespace), nil
	}
	text, why := v.names.made(pod, name)
	if text != "" {
		return "template " + text, nil
	}
	if at, ok := v.names.read(name); ok {
		return v.serviceRule(ctx, name, at, pod)
	}
	if why != "" {
		return "", no(false, "%q: %s", name, why)
	}
	return "", no(false, "%q: no rule of this directory gives such a name to %s; its Services' names end in \".%s.svc.%s\"", name, say(pod), pod.Namespace, v.names.domain)
}

// grant returns the pattern by which every pod of the namespace has the name.
func (n names) grant(namespace, name string) string {
	for _, p := range n.granted[namespace] {
		if below, ok := strings.CutPrefix(p, "*"); p == name || ok && strings.HasSuffix(name, below) {
			return p
		}
	}
	return ""
}

// made returns the template that makes this name of the pod, else why those
// that could make such names don't.
func (n names) made(pod *corev1.Pod, name string) (text, why string) {
	for _, t := range n.templates {
		if !t.couldBe(name) {
			continue
		}
		own, fault := t.fill(pod)
		switch {
		case own == name:
			return t.text, ""
		case fault != "":
			why = fmt.Sprintf("the template %s would give it, but %s %s", t.text, say(pod), fault)
		default:
			why = fmt.Sprintf("the template %s gives %s the name %s", t.text, say(pod), own)
		}
	}
	return "", why
}

// place is what a name under the cluster's domain stands for: a Service, or
// one host under it.
type place struct{ host, service, namespace string }

// read takes a name apart. A name has one reading at most, whatever the
// namespaces and Services are called:
//
//	[host.]service.namespace.svc.DOMAIN   at least four labels; DOMAIN isn't "svc"
//	[host.]service.namespace.svc          three or four labels, the last "svc"
//	service.namespace                     two labels
//	service                               one label
func (n names) read(name string) (place, bool) {
	if above, ok := strings.CutSuffix(name, ".svc."+n.domain); ok {
		return readPlace(above)
	}
	above, svc := strings.CutSuffix(name, ".svc")
	service, namespace, _ := strings.Cut(name, ".")
	switch strings.Count(name, ".") {
	case 0:
		return place{service: name, namespace: n.bare}, n.bare != ""
	case 1:
		return place{service: service, namespace: namespace}, n.short
	}
	if !svc || !n.short {
		return place{}, false
	}
	return readPlace(above)
}

func readPlace(s string) (place, bool) {
	switch labels := strings.Split(s, "."); len(labels) {
	case 2:
		return place{"", labels[0], labels[1]}, true
	case 3:
		return place{labels[0], labels[1], labels[2]}, true
	}
	return place{}, false
}

// serviceRule asks the API whether the Service of that name leads to this pod.
func (v *Verifier) serviceRule(ctx context.Context, name string, at place, pod *corev1.Pod) (string, error) {
	if at.namespace != pod.Namespace {
		return "", no(false, "%q is a name of namespace %q; %s is in another", name, at.namespace, say(pod))
	}
	if why := statefulFault(at, pod); why != "" {
		return "", no(false, "%q: %s %s", name, say(pod), why)
	}
	svc, err := v.api.service(ctx, at.namespace, at.service)
	if errors.Is(err, errMissing) {
		return "", no(false, "%q: there is no Service %s in namespace %s", name, at.service, at.namespace)
	}
	if err != nil {
		return "", err
	}
	if why := serviceFault(svc, at, pod); why != "" {
		return "", no(false, "%q: Service %s in namespace %s %s", name, at.service, at.namespace, why)
	}
	found, err := v.api.anySlice(ctx, svc.Namespace, svc.Name, func(s *discoveryv1.EndpointSlice) bool { return targets(s, svc, pod) })
	switch {
	case err != nil:
		return "", err
	case !found: // the controller follows the pod by some tenths of a second
		return "", no(true, "%q: no EndpointSlice of Service %s in namespace %s targets %s; the endpoint slice controller adds a pod once it has an address", name, at.service, at.namespace, say(pod))
	case at.host != "":
		return fmt.Sprintf("StatefulSet pod of Service %s/%s", svc.Namespace, svc.Name), nil
	}
	return fmt.Sprintf("Service %s/%s", svc.Namespace, svc.Name), nil
}

// statefulFault says why a host's name isn't the pod's own, as the
// continuation of the pod. Hostname and subdomain are what the StatefulSet
// controller sets; that the pod's name must be the same leaves one pod for
// each such name, whoever may write pods.
func statefulFault(at place, pod *corev1.Pod) string {
	if at.host == "" {
		return ""
	}
	owner := metav1.GetControllerOf(pod)
	switch {
	case owner == nil || owner.Kind != "StatefulSet" || !strings.HasPrefix(owner.APIVersion, "apps/"):
		return "is not controlled by a StatefulSet, whose pods alone have such names"
	case at.host != pod.Name || at.host != pod.Spec.Hostname:
		return "has another name"
	case at.service != pod.Spec.Subdomain:
		return "is not governed by that Service, but by " + pod.Spec.Subdomain
	}
	ordinal, ok := strings.CutPrefix(pod.Name, owner.Name+"-")
	if !ok || ordinal == "" || strings.Trim(ordinal, "0123456789") != "" {
		return "is not called as a pod of its StatefulSet is"
	}
	return ""
}

// serviceFault says why a Service's name can't be the pod's, as the
// continuation of the Service.
func serviceFault(svc *corev1.Service, at place, pod *corev1.Pod) string {
	switch {
	case svc.UID == "":
		return "has no UID"
	case svc.DeletionTimestamp != nil:
		return "is being deleted"
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return "is of type ExternalName: its name is somebody else's"
	case len(svc.Spec.Selector) == 0:
		return "has no selector, so that the cluster can't say which pods are its own"
	case at.host != "" && svc.Spec.ClusterIP != corev1.ClusterIPNone:
		return "is not headless, so that its pods have no names under it"
	}
	for key, value := range svc.Spec.Selector {
		if own, there := pod.Labels[key]; !there || own != value {
			return "doesn't select " + say(pod) + ": the pod's labels lack what the selector wants"
		}
	}
	return ""
}

// targets reports whether a slice is the endpoint slice controller's for this
// very Service, and leads to this very pod.
func targets(s *discoveryv1.EndpointSlice, svc *corev1.Service, pod *corev1.Pod) bool {
	if s.Namespace != svc.Namespace || s.Labels[discoveryv1.LabelServiceName] != svc.Name ||
		s.Labels[discoveryv1.LabelManagedBy] != sliceController || !metav1.IsControlledBy(s, svc) {
		return false
	}
	for _, e := range s.Endpoints {
		if r := e.TargetRef; r != nil && r.Kind == "Pod" && r.UID == pod.UID && r.Name == pod.Name && r.Namespace == pod.Namespace {
			return true
		}
	}
	return false
}

// addressRule allows a pod its own addresses.
func addressRule(address string, pod *corev1.Pod) (string, error) {
	addr, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		return "", malformed("the identifier is not an IP address")
	case pod.Spec.HostNetwork:
		return "", no(false, "%q: %s is on its host's network and has no address of its own", address, say(pod))
	case !hasAddress(pod, addr):
		return "", no(len(pod.Status.PodIPs) == 0, "%q is not an address of %s", address, say(pod))
	}
	return "the pod's own address", nil
}
