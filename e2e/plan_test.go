package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
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
	planSignature = 30 * time.Millisecond
	planClients   = 4
	planPods      = 800
)

// What `chanceryd plan` says of a drain, fed from the running server, is what
// the same server then does, to within a tenth: p50, p99 and the worst wait,
// and the time until the last is done.
func TestPlan(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it has no slow keys")
		uri := slowToken(w, "slow", planSignature)
		ca := w.InitCA(func(conf string) string { return withSlowKey(w, conf, uri) })
		var clients []*acme.Client
		for range planClients {
			clients = append(clients, preApproved(w, ca))
		}
		drain(w, clients, 10*planClients) // so that the server knows how fast its key is
		planned := askPlan(w)
		measured := drain(w, clients, planPods)
		w.Logf("%d certificates at once, %v a signature:\n%-22s%10s%10s", planPods, planSignature, "seconds", "planned", "measured")
		for _, c := range []struct {
			what              string
			planned, measured float64
		}{
			{"p50 of the waits", planned.Certificates.P50, quantile(measured, .5)},
			{"p99", planned.Certificates.P99, quantile(measured, .99)},
			{"worst", planned.Certificates.Worst, quantile(measured, 1)},
			{"until the last is done", planned.Over, quantile(measured, 1)},
		} {
			w.Logf("%-22s%10.2f%10.2f", c.what, c.planned, c.measured)
			if math.Abs(c.planned/c.measured-1) > .1 {
				w.Errorf("%s: %.2f s planned, %.2f s measured", c.what, c.planned, c.measured)
			}
		}
	})
}

// slowToken makes a SoftHSM token behind the module that makes its signatures
// slow, and returns the URI of a key to be made on it.
func slowToken(w *harness.World, label string, signature time.Duration) string {
	w.Helper()
	const soft = "/usr/lib/softhsm/libsofthsm2.so"
	conf := w.Write("softhsm2.conf", "directories.tokendir = "+w.Mkdir("tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	w.Cmd("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "5678-so").Env("SOFTHSM2_CONF=" + conf).OK()
	pin := w.Write("pin", "1234\n")
	ownersOnly(w, pin)
	source, err := filepath.Abs("../internal/signer/pkcs11/slowhsm/module/slowhsm.c")
	if err != nil {
		w.Fatal(err)
	}
	w.Write("slow/real", soft)
	w.Write("slow/env", "SOFTHSM2_CONF="+conf)
	w.Write("slow/delay", fmt.Sprint(signature.Microseconds()))
	module := w.Path("slow", "slowhsm.so")
	w.Run("gcc", "-std=gnu11", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", module, source, "-ldl", "-lpthread")
	return fmt.Sprintf("pkcs11:token=%s;object=ca?module-path=%s&pin-source=file:%s", url.PathEscape(label), module, pin)
}

// withSlowKey adds an issuer with that key to the configuration, and a
// directory for it. The server's own certificate is another issuer's.
func withSlowKey(w *harness.World, conf, uri string) string {
	w.Helper()
	root, key, ca := w.Path("slow-root.pem"), w.Mkdir("offline")+"/root.key", w.Path("slow-ca.pem")
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

// drain has pods ask for a certificate each, all at once, and returns their
// waits in order, in seconds from the moment when all began.
func drain(w *harness.World, clients []*acme.Client, pods int) []float64 {
	w.Helper()
	var mu sync.Mutex
	var waits []float64
	var all sync.WaitGroup
	begun := time.Now()
	for i := range pods {
		key, c := w.NewKey(), clients[i%len(clients)]
		all.Go(func() {
			name := acme.Identifiers(fmt.Sprintf("pod-%d-%d.slow.test", pods, i))
			csr, err := acme.NewCSR(key, name...)
			if err == nil {
				err = drainOne(w.Context(), c, name, csr)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				w.Error(err)
			}
			waits = append(waits, time.Since(begun).Seconds())
		})
	}
	all.Wait()
	if w.Failed() {
		w.FailNow()
	}
	slices.Sort(waits)
	return waits
}

// drainOne gets one certificate, up to the valid order. It looks a second
// before the server says that it will be there, and then often: what is
// measured is the wait for the key, not that for the next look.
func drainOne(ctx context.Context, c *acme.Client, name []acme.Identifier, csr []byte) error {
	order, err := c.NewOrder(ctx, acme.OrderRequest{Identifiers: name})
	if err != nil {
		return err
	}
	at := order.URL
	order, err = c.Finalize(ctx, order, csr)
	for err == nil && order.Status == acme.StatusProcessing {
		time.Sleep(max(order.RetryAfter-time.Second, 200*time.Millisecond))
		order, err = c.Order(ctx, at)
	}
	if err == nil && order.Status != acme.StatusValid {
		err = fmt.Errorf("the order is %s: %v", order.Status, order.Error)
	}
	return err
}

// quantile is the q-th part of sorted waits, as the planner counts.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
