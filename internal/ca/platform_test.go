package ca

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca/proof"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// platform is a cluster as a validator sees it: who has which token and which
// address, and who is gone. down is that it can't be asked.
type platform struct {
	mu     sync.Mutex
	tokens map[string]string // to subjects
	homes  map[netip.Addr]string
	gone   map[string]bool
	down   bool
	before func(ctx context.Context) // ahead of every answer

	asked, rechecked, located int
}

func (p *platform) set(change func(*platform)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func refused(format string, args ...any) error {
	return &protocol.ValidationError{Problem: protocol.NewProblem(protocol.Unauthorized, format, args...)}
}

// answer counts and says whether the platform answers.
func (p *platform) answer(ctx context.Context, count *int) error {
	p.mu.Lock()
	*count++
	before := p.before
	p.mu.Unlock()
	if before != nil {
		before(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return &protocol.ValidationError{Problem: protocol.NewProblem(protocol.ServerInternal, "the platform is away").After(7 * time.Second), Retryable: true}
	}
	return nil
}

func (p *platform) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	if err := p.answer(ctx, &p.asked); err != nil {
		return protocol.Evidence{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var payload struct{ ServiceAccountToken string }
	if err := json.Unmarshal(v.Response, &payload); err != nil {
		return protocol.Evidence{}, refused("no payload")
	}
	subject := p.tokens[payload.ServiceAccountToken]
	if payload.ServiceAccountToken == "" {
		subject = p.homes[v.Peer.Addr()]
	}
	seen := protocol.Evidence{Type: v.Type, Target: "pod", Subject: subject}
	if subject == "" || p.gone[subject] || strings.HasPrefix(v.Identifier.Value, "theirs.") {
		return seen, refused("not that pod's")
	}
	return seen, nil
}

func (p *platform) Recheck(ctx context.Context, id protocol.Identifier, subject string) error {
	if err := p.answer(ctx, &p.rechecked); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone[subject] {
		return refused("the pod of %q is gone", id.Value)
	}
	return nil
}

// located is a platform to which addresses are proofs.
type located struct{ *platform }

func (l located) Whois(ctx context.Context, peer netip.AddrPort) (string, error) {
	if err := l.answer(ctx, &l.located); err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.homes[peer.Addr()]; s != "" {
		return s, nil
	}
	return "", refused("no pod is at %s", peer.Addr())
}

// gadget is a validator whose proofs can't be looked at again.
type gadget struct{}

const device01 protocol.ChallengeType = "device-01"

func (gadget) Validate(_ context.Context, v protocol.Validation) (protocol.Evidence, error) {
	return protocol.Evidence{Type: v.Type, Subject: string(v.Response)}, nil
}

// The pods of the platform, where they are, and where none is.
var (
	web1, web2 = netip.MustParseAddrPort("10.1.0.1:1111"), netip.MustParseAddrPort("10.1.0.2:2222")
	elsewhere  = netip.MustParseAddrPort("192.0.2.99:9999")
)

// platform adds directories to the world whose pods may prove: "pods" by a
// token, "homes" by their addresses too; "both" takes http-01 besides, and
// "devices" a device. All but the last two have nothing else.
func (w *world) platform(t testing.TB) *platform {
	t.Helper()
	p := &platform{
		tokens: map[string]string{"token-1": "web-1", "token-2": "web-2"},
		homes:  map[netip.Addr]string{web1.Addr(): "web-1", web2.Addr(): "web-2"},
		gone:   map[string]bool{},
	}
	main := w.options.Directories["main"]
	for name, all := range map[string]proof.Validators{
		"pods":    {protocol.Kubernetes01: struct{ platformProof }{p}},
		"homes":   {protocol.Kubernetes01: located{p}},
		"both":    {protocol.HTTP01: w.looks, protocol.Kubernetes01: located{p}},
		"devices": {device01: gadget{}, protocol.Kubernetes01: p},
	} {
		d := *main
		d.Validators, d.Policy.Name, d.Policy.Challenges, d.Policy.Profiles = all, name, nil, nil
		for _, typ := range []protocol.ChallengeType{protocol.HTTP01, protocol.Kubernetes01, device01} {
			if all[typ] != nil {
				d.Policy.Challenges = append(d.Policy.Challenges, typ)
			}
		}
		for _, usage := range []cert.Usage{cert.Server, cert.Client} {
			profile := main.Policy.Profiles[0]
			profile.Name, profile.Usages, profile.Challenges = string(usage), []cert.Usage{usage}, d.Policy.Challenges
			d.Policy.Profiles = append(d.Policy.Profiles, profile)
		}
		w.options.Directories[name] = &d
	}
	w.validations.delays = []time.Duration{0, time.Millisecond, time.Millisecond}
	w.Reload(w.options.Directories, w.options.Issuers, nil)
	return p
}

// platformProof hides that the platform knows addresses.
type platformProof interface {
	Validator
	proof.Rechecker
}

// from is the same account at another address.
func (a *account) from(peer netip.AddrPort) *account {
	b := *a
	b.Peer = peer
	return &b
}

// pod answers the challenge of an order's n-th authorization; token "" leaves
// it to the address.
func (a *account) pod(o OrderView, n int, token string) (protocol.Authorization, error) {
	payload := "{}"
	if token != "" {
		payload = fmt.Sprintf(`{"serviceAccountToken":%q}`, token)
	}
	return a.Respond(a.t.Context(), a.Requester, o.Authorizations[n], protocol.Kubernetes01, []byte(payload))
}

// podReady orders names and proves them all.
func (a *account) podReady(token string, names ...string) OrderView {
	a.t.Helper()
	o := a.order(names...)
	for n := range names {
		if z, err := a.pod(o, n, token); err != nil || z.Status != protocol.AuthorizationValid {
			a.t.Fatalf("%s: %+v, %v", names[n], z, err)
		}
	}
	return a.look(o)
}

// tryFinalize is finalize that may be refused.
func (a *account) tryFinalize(o OrderView) (OrderView, error) {
	var names []string
	for _, id := range o.Identifiers {
		names = append(names, id.Value)
	}
	return a.Finalize(a.t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: csr(a.t, newKey(a.t), names...)})
}
