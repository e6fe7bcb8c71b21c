package e2e_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// The slow key of TestPlan, and what is asked of it.
const (
	planSignature = 50 * time.Millisecond
	planClients   = 4
	planPods      = 500
)

// What `chanceryd plan` says of a drain, fed from the running server, is what
// the same server then does, to within a tenth: p50, p99 and the worst wait,
// and the time until the last is done. What the server tells the clients while
// they wait (Retry-After) is about as true: at most double and at least half,
// since they are told while all others are still asking, which takes the processor
// from the key and makes it look slower than it is afterwards. A machine that
// has other things to do makes waits longer and forecasts no better, so there are
// three tries, of which one must do.
func TestPlan(t *testing.T) {
	harness.Alone(t, 5*time.Minute, func(w *harness.World) {
		w.Ours("it has no slow keys")
		h := newHSM(w)
		uri := h.token("slow").URI("ca")
		h.SetDelay("slow", planSignature)
		ca := w.InitCA(func(conf string) string { return withSlowKey(w, conf, uri) })
		var clients []*acme.Client
		for range planClients {
			clients = append(clients, preApproved(w, ca))
		}
		drain(w, clients, 10*planClients, 0) // so that the server knows how fast its key is
		for try := 1; ; try++ {
			faults := comparePlan(w, clients, try)
			if len(faults) == 0 {
				return
			}
			if try == 3 {
				w.Fatalf("%s", strings.Join(faults, "\n"))
			}
			w.Logf("try %d: %s", try, strings.Join(faults, "; "))
		}
	})
}

// comparePlan forecasts a drain, makes it, and says where they differ.
func comparePlan(w *harness.World, clients []*acme.Client, try int) (faults []string) {
	w.Helper()
	planned := askPlan(w)
	measured, told := drain(w, clients, planPods, try)
	w.Logf("%d certificates at once, %v a signature:\n%-24s%10s%10s%10s", planPods, planSignature, "seconds", "planned", "measured", "told")
	for _, c := range []struct {
		what    string
		planned float64
		q       float64
	}{
		{"p50 of the waits", planned.Certificates.P50, .5}, {"p99", planned.Certificates.P99, .99},
		{"worst", planned.Certificates.Worst, 1}, {"until the last is done", planned.Over, 1},
	} {
		was, said := quantile(measured, c.q), quantile(told, c.q)
		w.Logf("%-24s%10.2f%10.2f%10.2f", c.what, c.planned, was, said)
		if math.Abs(c.planned/was-1) > .1 {
			faults = append(faults, fmt.Sprintf("%s: %.2f s planned, %.2f s measured", c.what, c.planned, was))
		}
		if said > 2*was || said < was/2 {
			faults = append(faults, fmt.Sprintf("%s: clients were told %.2f s, it was %.2f s", c.what, said, was))
		}
	}
	return faults
}

// withSlowKey adds an issuer with that key to the configuration, and a
// directory for it. The server's own certificate is another issuer's.
func withSlowKey(w *harness.World, conf, uri string) string {
	w.Helper()
	root, key, ca := w.Path("slow-root.pem"), w.Mkdir("a", "drawer")+"/root.key", w.Path("slow-ca.pem")
	chanceryd := w.Tool("chanceryd")
	w.Run(chanceryd, "ca", "create", "--self-signed", "--generate", "--key", "file:"+key, "--name", "Slow Root", "--out", root)
	w.Run(chanceryd, "ca", "create", "--generate", "--key", uri, "--name", "Slow CA", "--parent", root, "--parent-key", "file:"+key, "--out", ca)
	conf = w.Replace(conf,
		"\nissuers:\n", fmt.Sprintf("\nissuers:\n  slow:\n    chain: %q\n    signers: [{key: %q, certificate: %q}]\n", root, uri, ca),
		"\nprofiles:\n", "\nprofiles:\n  slow: {issuer: slow, usages: [server], lifetime: 24h, revocation: none}\n",
		"\ndirectories:\n", "\ndirectories:\n  slow: {profiles: [slow], names: {allow: [\"*.slow.test\"]}, eab: {required: true}}\n")
	before, after, _ := strings.Cut(conf, "\nrate_limits:\n")
	limits, rest, _ := strings.Cut(after, "\n\n")
	var off []string
	for line := range strings.Lines(limits) {
		name, _, _ := strings.Cut(line, ":")
		off = append(off, name+": off")
	}
	return before + "\nrate_limits:\n" + strings.Join(off, "\n") + "\n\n" + rest
}

// preApproved is an account with an EAB key of its own, so that it is a client
// of its own to the key.
func preApproved(w *harness.World, ca *harness.CA) *acme.Client {
	w.Helper()
	kid, hmac := ca.NewEAB("--directory", "slow", "--name", "*.slow.test", "--pre-approved")
	mac, err := base64.RawURLEncoding.DecodeString(hmac)
	if err != nil {
		w.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.Read(ca.Root)))
	var d net.Dialer
	h := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: planPods,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, "127.0.0.1:14000")
		},
	}}
	c := &acme.Client{DirectoryURL: "https://ca.test:14000/acme/slow/directory", HTTPClient: h, Key: w.NewKey()}
	if _, err := c.Register(w.Context(), acme.Registration{TermsAgreed: true, EAB: &acme.ExternalAccount{KeyID: kid, MACKey: mac}}); err != nil {
		w.Fatal(err)
	}
	return c
}

// plannedDrain is what `chanceryd plan --json` says of it; spans are seconds.
type plannedDrain struct {
	Certificates struct {
		Count           int
		P50, P99, Worst float64
	}
	Over float64
}

// askPlan asks for a drain of pods with one certificate each.
func askPlan(w *harness.World) plannedDrain {
	w.Helper()
	cmd := w.Cmd(w.Tool("chanceryd"), "plan", "--json", "--socket", w.Path("admin.sock"), "--issuer", "slow",
		"--drain", fmt.Sprint(planPods), "--per-workload", "1", "--clients", fmt.Sprint(planClients))
	out := cmd.OK()
	// What it read and assumed comes first, on standard error.
	notes, text, _ := strings.Cut(out, "{")
	w.Log(strings.TrimSpace(notes))
	var said struct{ Drain plannedDrain }
	if err := json.Unmarshal([]byte("{"+text), &said); err != nil || said.Drain.Certificates.Count != planPods {
		w.Fatalf("chanceryd plan says %s (%v)", out, err)
	}
	return said.Drain
}

// drain has pods ask for a certificate each, all at once, having made their
// orders. It returns when each had it, in order, and when the server first told
// each that it would, in seconds from the moment when all asked.
func drain(w *harness.World, clients []*acme.Client, pods, turn int) (measured, told []float64) {
	w.Helper()
	all := make([]*pod, pods)
	together := func(do func(p *pod) error) {
		var running sync.WaitGroup
		for _, p := range all {
			running.Go(func() {
				if err := do(p); err != nil {
					w.Error(err)
				}
			})
		}
		running.Wait()
		if w.Failed() {
			w.FailNow()
		}
	}
	for i := range all {
		all[i] = &pod{client: clients[i%len(clients)], key: w.NewKey(), name: acme.Identifiers(fmt.Sprintf("pod-%d-%d.slow.test", turn, i))}
	}
	together(func(p *pod) error { return p.begin(w.Context()) })
	asked := time.Now()
	together(func(p *pod) error { return p.finish(w.Context()) })
	for _, p := range all {
		measured, told = append(measured, p.done.Sub(asked).Seconds()), append(told, p.told.Sub(asked).Seconds())
	}
	slices.Sort(measured)
	slices.Sort(told)
	return measured, told
}

// pod is one that gets a certificate.
type pod struct {
	client     *acme.Client
	name       []acme.Identifier
	key        crypto.Signer
	csr        []byte
	order      acme.Order
	told, done time.Time
}

func (p *pod) begin(ctx context.Context) (err error) {
	if p.csr, err = acme.NewCSR(p.key, p.name...); err == nil {
		p.order, err = p.client.NewOrder(ctx, acme.OrderRequest{Identifiers: p.name})
	}
	return err
}

// finish asks for the certificate and waits for it. It looks more often than
// it is told to: what is measured is the wait for the key, not that for the
// next look.
func (p *pod) finish(ctx context.Context) error {
	order, err := p.client.Finalize(ctx, p.order, p.csr)
	for p.told = time.Now().Add(order.RetryAfter); err == nil && order.Status == acme.StatusProcessing; {
		time.Sleep(500 * time.Millisecond)
		order, err = p.client.Order(ctx, p.order.URL)
	}
	if p.done = time.Now(); err == nil && order.Status != acme.StatusValid {
		err = fmt.Errorf("the order is %s: %v", order.Status, order.Error)
	}
	return err
}

// quantile is the q-th part of sorted waits, as the planner counts.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
