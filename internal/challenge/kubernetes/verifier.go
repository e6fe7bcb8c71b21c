package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// tryAgain is the Retry-After while the API can't be asked.
const tryAgain = 5 * time.Second

// Verifier proves pods of one cluster for one directory; see [New]. All its
// methods may be called at once from many goroutines. Each blocks for at most
// [Config.Timeout]. Their errors are *protocol.ValidationError, but for the
// caller's own cancellation, which says nothing of the pod.
type Verifier struct {
	cluster       string
	audience      string
	sourceAddress bool
	requireReady  bool
	timeout       time.Duration
	log           *slog.Logger
	names         names
	api           *api
}

// Close lets go of idle connections.
func (v *Verifier) Close() { v.api.close() }

// Validate finds the pod that responds, by its token or its address, and the
// rule that gives it the identifier. The evidence's Subject is that pod.
func (v *Verifier) Validate(ctx context.Context, c protocol.Validation) (protocol.Evidence, error) {
	inner, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	seen, err := v.validate(inner, c)
	if err != nil {
		return protocol.Evidence{}, v.outcome(ctx, err)
	}
	return seen, nil
}

func (v *Verifier) validate(ctx context.Context, c protocol.Validation) (protocol.Evidence, error) {
	if c.Wildcard {
		return protocol.Evidence{}, wildcard()
	}
	token, err := parseResponse(c.Response)
	if err != nil {
		return protocol.Evidence{}, err
	}
	pod, by, err := v.prover(ctx, token, c.Peer)
	if err != nil {
		return protocol.Evidence{}, err
	}
	if err := v.ready(pod); err != nil {
		return protocol.Evidence{}, err
	}
	rule, err := v.rule(ctx, c.Identifier, pod)
	if err != nil {
		return protocol.Evidence{}, err
	}
	return protocol.Evidence{
		Type:    protocol.Kubernetes01,
		Target:  fmt.Sprintf("pod %s/%s (%s)", pod.Namespace, pod.Name, pod.UID),
		Detail:  fmt.Sprintf("%s; the pod by its %s, in cluster %s", rule, by, v.cluster),
		Subject: v.subjectOf(pod).String(),
		SeenAt:  time.Now(),
	}, nil
}

// prover is the live pod that responds, and what says that it is this one.
func (v *Verifier) prover(ctx context.Context, token string, peer netip.AddrPort) (pod *corev1.Pod, by string, err error) {
	switch {
	case token != "":
		s, err := v.podOf(ctx, token)
		if err != nil {
			return nil, "", err
		}
		pod, err = v.read(ctx, s)
		return pod, "token", err
	case v.sourceAddress:
		pod, err = v.podAt(ctx, peer)
		return pod, "address " + peer.Addr().Unmap().String(), err
	}
	return nil, "", no(false, "the response has no serviceAccountToken; project one with audience %q", v.audience)
}

// Recheck reads again, before a certificate is signed, whether the pod of an
// evidence's Subject still is and still has the identifier. No token is asked
// for: UIDs don't come again.
func (v *Verifier) Recheck(ctx context.Context, id protocol.Identifier, subject string) error {
	inner, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	if err := v.recheck(inner, id, subject); err != nil {
		return v.outcome(ctx, err)
	}
	return nil
}

func (v *Verifier) recheck(ctx context.Context, id protocol.Identifier, text string) error {
	s, ok := parseSubject(text)
	if !ok || s.cluster != v.cluster {
		return no(false, "it was not proven by a pod of cluster %s, which this directory asks; make a new order", v.cluster)
	}
	pod, err := v.read(ctx, s)
	if err != nil {
		return err
	}
	if err := v.ready(pod); err != nil {
		return err
	}
	_, err = v.rule(ctx, id, pod)
	return err
}

// Whois is the Subject of the pod that connects from that address: the socket's
// own, never one that a header or a PROXY line tells. It is a no where the
// directory doesn't take addresses for proof.
func (v *Verifier) Whois(ctx context.Context, peer netip.AddrPort) (subject string, err error) {
	if !v.sourceAddress {
		return "", no(false, "this directory doesn't take an address for a proof")
	}
	inner, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	pod, err := v.podAt(inner, peer)
	if err != nil {
		return "", v.outcome(ctx, err)
	}
	return v.subjectOf(pod).String(), nil
}

// outcome is what a caller is told: nothing but its own cancellation where it
// gave up, a no as it is, and where the API couldn't be asked, to come again.
func (v *Verifier) outcome(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	if no, ok := errors.AsType[*protocol.ValidationError](err); ok {
		return no
	}
	v.report(err)
	p := protocol.NewProblem(protocol.ServerInternal, "the Kubernetes API of cluster %s could not be asked just now; please try again", v.cluster)
	return &protocol.ValidationError{Problem: p.After(tryAgain), Retryable: true}
}

// report tells the operator, who alone can do something about it.
func (v *Verifier) report(err error) {
	log := v.log.With("cluster", v.cluster)
	if e, ok := errors.AsType[*apiError](err); ok {
		log = log.With("verb", e.verb, "resource", e.resource)
	}
	switch {
	case apierrors.IsForbidden(err):
		log.Error("kubernetes-01: the API forbids what the verifier must read; add the verb to its ClusterRole", "error", err)
	case apierrors.IsUnauthorized(err):
		log.Error("kubernetes-01: the API doesn't know us; see to the credentials in the kubeconfig", "error", err)
	default:
		log.Warn("kubernetes-01: the API can't be asked", "error", err)
	}
}

func no(retryable bool, format string, args ...any) *protocol.ValidationError {
	return &protocol.ValidationError{Problem: protocol.NewProblem(protocol.Unauthorized, format, args...), Retryable: retryable}
}

func malformed(format string, args ...any) *protocol.ValidationError {
	return &protocol.ValidationError{Problem: protocol.NewProblem(protocol.Malformed, format, args...)}
}

func wildcard() error {
	return malformed("kubernetes-01 can't prove a wildcard; ask for the names themselves")
}
