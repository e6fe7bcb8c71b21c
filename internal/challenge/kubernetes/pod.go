package kubernetes

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// subject is one pod for ever: names come again, UIDs don't.
type subject struct{ cluster, namespace, pod, uid, account string }

const subjectPrefix = "kubernetes:"

// String is "kubernetes:CLUSTER/NAMESPACE/POD/UID/SERVICEACCOUNT".
func (s subject) String() string {
	return subjectPrefix + strings.Join([]string{s.cluster, s.namespace, s.pod, s.uid, s.account}, "/")
}

// valid reports whether the parts are what the API allows there, so that none
// has a slash and the string says the same as the parts.
func (s subject) valid() bool {
	return isCluster(s.cluster) &&
		len(validation.IsDNS1123Label(s.namespace)) == 0 &&
		len(validation.IsDNS1123Subdomain(s.pod)) == 0 &&
		len(validation.IsDNS1123Subdomain(s.account)) == 0 &&
		s.uid != "" && len(s.uid) <= 128 && !strings.ContainsFunc(s.uid, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' })
}

func parseSubject(text string) (subject, bool) {
	rest, ok := strings.CutPrefix(text, subjectPrefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 5 {
		return subject{}, false
	}
	s := subject{parts[0], parts[1], parts[2], parts[3], parts[4]}
	return s, s.valid()
}

// subjectOf is the subject of a pod as it is.
func (v *Verifier) subjectOf(pod *corev1.Pod) subject {
	return subject{v.cluster, pod.Namespace, pod.Name, string(pod.UID), pod.Spec.ServiceAccountName}
}

// say is how a pod is called in problems.
func say(pod *corev1.Pod) string { return "pod " + pod.Name }

// read reads the subject's pod as it is now, and refuses another of its name.
func (v *Verifier) read(ctx context.Context, s subject) (*corev1.Pod, error) {
	pod, err := v.api.pod(ctx, s.namespace, s.pod)
	switch {
	case errors.Is(err, errMissing):
		return nil, no(false, "pod %s in namespace %s is gone", s.pod, s.namespace)
	case err != nil:
		return nil, err
	case string(pod.UID) != s.uid:
		return nil, no(false, "pod %s in namespace %s is gone; another has its name now", s.pod, s.namespace)
	case pod.Spec.ServiceAccountName != s.account:
		return nil, no(false, "%s doesn't run as service account %s", say(pod), s.account)
	}
	return pod, alive(pod)
}

// alive refuses pods that end or have ended.
func alive(pod *corev1.Pod) error {
	switch {
	case pod.DeletionTimestamp != nil:
		return no(false, "%s is being deleted", say(pod))
	case finished(pod):
		return no(false, "%s has ended: %s", say(pod), pod.Status.Phase)
	}
	return nil
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// ready refuses pods that aren't, where the directory wants them so.
func (v *Verifier) ready(pod *corev1.Pod) error {
	if !v.requireReady || slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}) {
		return nil
	}
	return no(true, "%s is not ready", say(pod))
}

// podAt finds the one pod whose primary address a connection comes from.
// Finished pods keep their address in the API although another may have it; a
// pod that is being deleted may still use it.
func (v *Verifier) podAt(ctx context.Context, peer netip.AddrPort) (*corev1.Pod, error) {
	addr := peer.Addr().Unmap()
	switch {
	case !addr.IsValid():
		return nil, no(false, "the order wasn't made from an address that is one pod's alone; make a new order from the pod, not on its host's network and with no address translation between, or show a token made for %q", v.audience)
	case addr.Zone() != "" || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsMulticast():
		return nil, no(false, "the address %s can't be one pod's alone", addr)
	}
	pods, err := v.api.podsAt(ctx, addr.String())
	if err != nil {
		return nil, err
	}
	pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return finished(&p) || !hasAddress(&p, addr) })
	switch {
	case len(pods) == 0:
		return nil, no(true, "no pod of cluster %s has the primary address %s, from which the request came", v.cluster, addr)
	case slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Spec.HostNetwork }):
		return nil, no(false, "%s is a node's address; pods on their host's network must use a token", addr)
	case len(pods) > 1:
		return nil, no(false, "more than one pod has the address %s; use a token", addr)
	}
	pod := &pods[0]
	if !v.subjectOf(pod).valid() {
		return nil, no(false, "%s has no service account or no UID", say(pod))
	}
	return pod, alive(pod)
}

// hasAddress reports whether the address is one of the pod's.
func hasAddress(pod *corev1.Pod, addr netip.Addr) bool {
	return slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool {
		own, err := netip.ParseAddr(ip.IP)
		return err == nil && own == addr
	})
}
