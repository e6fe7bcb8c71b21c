package durability

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// balancer is what stands in front of replicas: it hands each connection to
// the next one in turn, whatever it is for.
type balancer struct {
	targets []string
	next    atomic.Uint64
	counts  []atomic.Int64
}

// newBalancer listens where clients think that the server is.
func newBalancer(w *harness.World, targets ...string) *balancer {
	w.Helper()
	b := &balancer{targets: targets, counts: make([]atomic.Int64, len(targets))}
	l, err := net.Listen("tcp", serverAddr)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.pass(c)
		}
	}()
	return b
}

func (b *balancer) pass(client net.Conn) {
	defer client.Close()
	i := int(b.next.Add(1)) % len(b.targets)
	b.counts[i].Add(1)
	target, err := net.Dial("tcp", b.targets[i])
	if err != nil {
		return
	}
	defer target.Close()
	go func() {
		_, _ = io.Copy(target, client)
		_ = target.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, target)
}

// replicas are two servers with the same keys, configuration and database
// behind a balancer, and the clients' way to them.
type replicas struct {
	one, two *server
	balancer *balancer
	// any takes a new connection for each request, so that two requests in a
	// row meet different replicas; first and second are one replica each.
	any, first, second *http.Client
}

func newReplicas(w *harness.World) *replicas {
	w.Helper()
	pg := newPostgres(w, w.Path("pg"))
	pg.start()
	one := newServer(w, w.Path("one"), pg.dsn())
	one.edit(`    profiles: ["client"]`, "    profiles: [\"client\"]\n    rate_limits:\n      orders_per_account: 6 per 1h")
	two := &server{w: w, dir: w.Path("two"), log: w.Path("two.log")}
	run(w, "cp", "-a", one.dir, two.dir)
	w.Cleanup(func() { two.kill() })
	for s, address := range map[*server]string{one: "127.0.0.1:14001", two: "127.0.0.1:14002"} {
		s.edit(`listen: "`+serverAddr+`"`, `listen: "`+address+`"`)
		s.address = address
	}
	two.edit(`  listen: "`+one.metrics()+`"`, `  listen: "127.0.0.1:14003"`)
	one.start()
	two.start()
	r := &replicas{one: one, two: two, balancer: newBalancer(w, one.address, two.address), any: one.client("")}
	r.any.Transport.(*http.Transport).DisableKeepAlives = true
	r.first, r.second = one.client(one.address), one.client(two.address)
	return r
}

// Every client's life behind a round-robin balancer, where no two requests in
// a row go to the same replica.
func TestReplicas(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		rs := newReplicas(w)
		l := newLoad(w, rs.one)
		l.http = func() *http.Client {
			c := rs.one.client("")
			c.Transport.(*http.Transport).DisableKeepAlives = true
			return c
		}
		l.start(4, 1)
		l.resume()
		time.Sleep(3 * time.Second)
		l.finish()
		l.compare()
		if a, b := rs.balancer.counts[0].Load(), rs.balancer.counts[1].Load(); a < 100 || b < 100 {
			w.Errorf("the replicas had %d and %d connections", a, b)
		}
		w.Logf("%d orders", len(l.orders))
		r := l.responder
		rs.seeEachOther(w, r)
		rs.oneNonce(w)
		rs.oneEABKey(w)
		rs.oneReplacement(w, r)
		rs.oneLimit(w)
	})
}

func TestReplicasFinalize(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		rs := newReplicas(w)
		finalizedByMany(w, rs.one, []*http.Client{rs.first, rs.second}, 5)
		rs.two.census(w)
	})
}

// seeEachOther: what one replica did, the other shows at once.
func (rs *replicas) seeEachOther(w *harness.World, r *harness.Responder) {
	w.Helper()
	ctx := w.Context()
	here := rs.one.register(rs.first, "servers", nil)
	there := through(here, rs.second)
	o := newOrder(w, there, "both.load.test")
	if _, err := here.Accept(ctx, challenge(w, there, r, o.Authorizations[0]), nil); err != nil {
		w.Fatal(err)
	}
	z, err := there.Authorization(ctx, o.Authorizations[0])
	if err != nil || z.Status != acme.StatusValid {
		w.Errorf("a challenge validated on one replica is %s on the other: %v", z.Status, err)
	}
	csr, err := acme.NewCSR(newKey(w), o.Identifiers...)
	if err != nil {
		w.Fatal(err)
	}
	done, err := there.Finalize(ctx, o, csr)
	if err != nil {
		w.Fatal(err)
	}
	if done, err = here.WaitOrder(ctx, done); err != nil {
		w.Fatal(err)
	}
	a, err := here.Certificate(ctx, done.Certificate)
	if err != nil {
		w.Fatal(err)
	}
	b, err := there.Certificate(ctx, done.Certificate)
	if err != nil || !bytes.Equal(a.PEM, b.PEM) {
		w.Errorf("the replicas serve different certificates: %v", err)
	}
	// A revocation by one is one for the other, and so is a deactivation.
	if err := here.Revoke(ctx, a.DER[0], acme.ReasonSuperseded, nil); err != nil {
		w.Error(err)
	}
	refused(w, there.Revoke(ctx, a.DER[0], acme.ReasonSuperseded, nil), acme.ErrAlreadyRevoked, "revoking on the other replica")
	if _, err := here.DeactivateAccount(ctx); err != nil {
		w.Error(err)
	}
	_, err = there.Account(ctx)
	refused(w, err, acme.ErrUnauthorized, "an account that was deactivated on the other replica")
}

// oneNonce: a nonce of one replica is taken by the other, and by one of them
// only, even if both are asked at once.
func (rs *replicas) oneNonce(w *harness.World) {
	w.Helper()
	for range 20 {
		nonce := rs.nonce(w, rs.first)
		var taken atomic.Int64
		var both sync.WaitGroup
		for _, h := range []*http.Client{rs.first, rs.second} {
			both.Go(func() {
				// The nonce is looked at before the account, which nobody has.
				c := &acme.Client{DirectoryURL: rs.one.directory("servers"), Key: newKey(w),
					HTTPClient: &http.Client{Transport: sameNonce{h.Transport, nonce}}}
				_, err := c.Register(w.Context(), acme.Registration{OnlyReturnExisting: true})
				switch {
				case acme.HasType(err, acme.ErrAccountDoesNotExist):
					taken.Add(1)
				default:
					refused(w, err, acme.ErrBadNonce, "a nonce used twice")
				}
			})
		}
		both.Wait()
		if taken.Load() != 1 {
			w.Fatalf("a nonce was taken %d times", taken.Load())
		}
	}
}

func (rs *replicas) nonce(w *harness.World, h *http.Client) string {
	w.Helper()
	res, err := h.Head(rs.one.setting("external_url") + "/acme/servers/new-nonce")
	if err != nil {
		w.Fatal(err)
	}
	res.Body.Close()
	return res.Header.Get("Replay-Nonce")
}

// sameNonce shows a client one nonce only.
type sameNonce struct {
	http.RoundTripper
	nonce string
}

func (s sameNonce) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Header.Set("Replay-Nonce", s.nonce)
	}
	return res, err
}

// oneEABKey: a key made on one replica is good on the other, once, and its
// revocation stops its account there.
func (rs *replicas) oneEABKey(w *harness.World) {
	w.Helper()
	var key struct {
		KID     string `json:"kid"`
		HMACKey string `json:"hmac_key"`
	}
	rs.one.admin(http.MethodPost, "/v1/eab-keys", nil, map[string]any{"directory": "servers"}, &key)
	mac, err := base64.RawURLEncoding.DecodeString(key.HMACKey)
	if err != nil {
		w.Fatal(err)
	}
	eab := &acme.ExternalAccount{KeyID: key.KID, MACKey: mac}
	c := rs.one.register(rs.second, "servers", eab)
	newOrder(w, through(c, rs.any), "eab.load.test")
	other := &acme.Client{DirectoryURL: c.DirectoryURL, HTTPClient: rs.first, Key: newKey(w)}
	if _, err := other.Register(w.Context(), acme.Registration{TermsAgreed: true, EAB: eab}); err == nil {
		w.Error("an EAB key for one account opened a second one on the other replica")
	}
	rs.two.admin(http.MethodPost, "/v1/eab-keys/"+key.KID+"/revoke", nil, nil, nil)
	_, err = through(c, rs.first).NewOrder(w.Context(), acme.OrderRequest{Identifiers: acme.Identifiers("eab.load.test")})
	if err == nil {
		w.Error("an order was taken although the account's EAB key was revoked on the other replica")
	}
}

// oneReplacement: renewal information is the same everywhere, and a
// certificate is replaced once (RFC 9773 section 5).
func (rs *replicas) oneReplacement(w *harness.World, r *harness.Responder) {
	w.Helper()
	ctx := w.Context()
	c := rs.one.register(rs.any, "servers", nil)
	leaf := obtain(w, c, r, "ari.load.test")
	a, err := through(c, rs.first).RenewalInfo(ctx, leaf)
	if err != nil {
		w.Fatal(err)
	}
	b, err := through(c, rs.second).RenewalInfo(ctx, leaf)
	if err != nil || !a.SuggestedWindow.Start.Equal(b.SuggestedWindow.Start) || !a.SuggestedWindow.End.Equal(b.SuggestedWindow.End) {
		w.Errorf("the replicas suggest different windows: %v and %v, %v", a.SuggestedWindow, b.SuggestedWindow, err)
	}
	replaces := acme.OrderRequest{Identifiers: acme.Identifiers("ari.load.test"), Replaces: certID(w, leaf)}
	obtainAs(w, c, r, replaces)
	for _, h := range []*http.Client{rs.first, rs.second} {
		_, err := through(c, h).NewOrder(ctx, replaces)
		refused(w, err, acme.ErrAlreadyReplaced, "a second replacement")
	}
}

func certID(t testing.TB, leaf *x509.Certificate) string {
	t.Helper()
	id, err := acme.CertID(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// oneLimit: six orders an hour are six, on however many replicas.
func (rs *replicas) oneLimit(w *harness.World) {
	w.Helper()
	c := rs.one.register(rs.any, "clients", nil)
	for range 6 {
		newOrder(w, c, "limit.load.test")
	}
	for _, h := range []*http.Client{rs.first, rs.second} {
		_, err := through(c, h).NewOrder(w.Context(), acme.OrderRequest{Identifiers: acme.Identifiers("limit.load.test")})
		refused(w, err, acme.ErrRateLimited, "a seventh order")
	}
}
