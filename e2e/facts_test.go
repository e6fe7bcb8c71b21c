package e2e_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// What real clients were seen to ask of a server, fact by fact, numbered as
// they were found, with the requests that those clients send. The clients that
// can be had cheaply show the same in their own files.

// facts is the world of the tests of facts.
type facts struct {
	ca        *harness.CA
	names     *harness.Names
	responder *harness.Responder
}

func newFacts(w *harness.World) facts {
	return facts{names: w.Names(), ca: w.CA(harness.Options{}), responder: w.Responder()}
}

// client is a raw client of the directory for servers, with an account.
func (f facts) client(w *harness.World) *harness.Raw {
	w.Helper()
	r := w.Raw(f.ca, f.ca.Directory)
	r.Want(http.StatusCreated, r.Account(nil))
	return r
}

// ready is an order that is ready to be finalized, and its URL.
func (f facts) ready(r *harness.Raw, members map[string]any, names ...string) (harness.Answer, string) {
	order := r.Want(http.StatusCreated, r.Order(members, names...))
	return r.Prove(order, f.responder), order.Header.Get("Location")
}

// j is a JSON object.
type j = map[string]any

func TestFacts01To13(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		f := newFacts(w)
		w.Sub("01 Location with the answer to finalize", func(w *harness.World) {
			w.Ours("it sends none")
			r := f.client(w)
			order, url := f.ready(r, nil, "a.test")
			a := r.Want(http.StatusOK, r.Finalize(order, w.NewKey(), "a.test"))
			if got := a.Header.Get("Location"); got != url {
				w.Errorf("Location %q with the answer to finalize, want the order's URL %q", got, url)
			}
		})
		w.Sub("02 finalize answers valid, and takes the same again", func(w *harness.World) {
			w.Ours("it refuses the second one")
			r := f.client(w)
			order, _ := f.ready(r, nil, "a.test")
			first := r.Want(http.StatusOK, r.Finalize(order, w.NewKey(), "a.test"))
			if first.S("status") != "valid" { // what @root/acme does then
				for i := 0; first.S("status") == "processing" && i < 20; i++ {
					time.Sleep(500 * time.Millisecond)
					first = r.Want(http.StatusOK, r.Finalize(order, w.NewKey(), "a.test"))
				}
			}
			if first.S("status") != "valid" || first.S("certificate") == "" {
				w.Errorf("finalize ends with %s", first.Body)
			}
		})
		w.Sub("03 a meta object with termsOfService", func(w *harness.World) {
			for _, url := range []string{f.ca.Directory, f.ca.Clients} {
				if url == "" && harness.Pebble {
					continue
				}
				if d := readDirectory(w, f.ca, url); d.Meta == nil || d.Meta.TermsOfService == "" {
					w.Errorf("%s has meta %+v", url, d.Meta)
				}
			}
		})
		w.Sub("04 a token in every challenge", func(w *harness.World) {
			w.Ours("dns-persist-01 has none")
			r := f.client(w)
			for _, z := range r.Authz(r.Want(http.StatusCreated, r.Order(nil, "a.test", "*.a.test"))) {
				for _, c := range z.JSON["challenges"].([]any) {
					if token, _ := c.(j)["token"].(string); len(token) < 22 { // 128 bits, RFC 8555, 8.1
						w.Errorf("a challenge has the token %q: %v", token, c)
					}
				}
			}
		})
		w.Sub("05 no port in Host when it is 80", func(w *harness.World) {
			w.Ours("it sends name:80")
			r := f.client(w)
			f.ready(r, nil, "host.test")
			if hosts := f.responder.Hosts(); !slices.Contains(hosts, "host.test") || slices.Contains(hosts, "host.test:80") {
				w.Errorf("http-01 came with Host %q", hosts)
			}
		})
		w.Sub("06 a failed challenge makes authorization and order invalid", func(w *harness.World) {
			r := f.client(w)
			order := r.Want(http.StatusCreated, r.Order(nil, "a.test"))
			z := r.Authz(order)[0]
			url := order.JSON["authorizations"].([]any)[0].(string)
			r.Want(http.StatusOK, r.Post(r.Challenge(z, "http-01")["url"].(string), j{})) // nothing answers this token
			w.Until("the authorization is invalid", func() bool {
				z = r.Want(http.StatusOK, r.Post(url, nil))
				return z.S("status") == "invalid"
			})
			ch := r.Challenge(z, "http-01")
			if ch["status"] != "invalid" || ch["error"] == nil {
				w.Errorf("the failed challenge is %v", ch)
			}
			if o := r.Post(order.Header.Get("Location"), nil); o.S("status") != "invalid" {
				w.Errorf("the order of an invalid authorization is %s", o.Body)
			}
		})
		w.Sub("07 members it does not know", func(w *harness.World) {
			w.Ours("-strict it refuses them")
			r := w.Raw(f.ca, f.ca.Directory)
			r.Want(http.StatusCreated, r.Account(j{"resource": "new-reg", "x": 1}))
			order := r.Want(http.StatusCreated, r.Order(j{"resource": "new-order", "x": j{"y": nil}}, "a.test"))
			r.Want(http.StatusOK, r.Post(r.KID, j{"resource": "reg", "contact": []string{}}))
			// x/crypto deactivates an authorization with ACMEv1's members.
			z := order.JSON["authorizations"].([]any)[0].(string)
			a := r.Want(http.StatusOK, r.Post(z, j{"resource": "authz", "status": "deactivated", "delete": true}))
			if a.S("status") != "deactivated" {
				w.Errorf("the authorization is %s", a.Body)
			}
		})
		w.Sub("08 an empty account update", func(w *harness.World) {
			w.Ours("-strict it refuses it")
			r := f.client(w)
			if a := r.Want(http.StatusOK, r.Post(r.KID, j{})); a.S("status") != "valid" {
				w.Errorf("an empty update is answered by %s", a.Body)
			}
		})
		w.Sub("09 contact next to onlyReturnExisting", func(w *harness.World) {
			r := f.client(w)
			url := r.KID
			r.KID = ""
			a := r.Want(http.StatusOK, r.Post(r.URL("newAccount"), j{"onlyReturnExisting": true, "contact": []string{"mailto:a@example.org"}}))
			if got := a.Header.Get("Location"); got != url {
				w.Errorf("the account is at %q, want %q", got, url)
			}
		})
		w.Sub("10 dates of year 1 are none", func(w *harness.World) {
			w.Ours("it obeys them")
			r := f.client(w)
			const none = "0001-01-01T00:00:00Z"
			chain := w.Chain(r.Issue(f.responder, w.NewKey(), j{"notBefore": none, "notAfter": none}, "a.test"))
			if now := time.Now(); chain[0].NotBefore.After(now) || chain[0].NotAfter.Before(now.Add(time.Hour)) {
				w.Errorf("the certificate lasts from %v to %v", chain[0].NotBefore, chain[0].NotAfter)
			}
		})
		w.Sub("11 a contact without mailto:", func(w *harness.World) {
			w.Ours("it refuses it")
			r := w.Raw(f.ca, f.ca.Directory)
			r.Want(http.StatusCreated, r.Account(j{"contact": []string{"a@example.org"}}))
		})
		w.Sub("12 a nonce that was handed out stays good, once", func(w *harness.World) {
			r := f.client(w)
			var nonces []string
			for range 300 {
				nonces = append(nonces, r.Nonce())
			}
			time.Sleep(2 * time.Second)
			slices.Reverse(nonces)
			for i, n := range nonces {
				if a := r.PostNonce(r.KID, nil, n); a.Status != http.StatusOK {
					w.Fatalf("nonce %d of %d: %d %s", i, len(nonces), a.Status, a.Body)
				}
			}
			again := r.PostNonce(r.KID, nil, nonces[0])
			r.Problem(again, "badNonce")
			if again.Header.Get("Replay-Nonce") == "" {
				w.Error("badNonce came without a nonce to try again with")
			}
		})
		w.Sub("12 no nonce with the directory", func(w *harness.World) {
			// ruby-acme-client 2.0.9 throws on one: it has no client yet to keep it.
			r := w.Raw(f.ca, f.ca.Directory)
			if n := r.Get(f.ca.Directory).Header.Get("Replay-Nonce"); n != "" {
				w.Errorf("the directory came with a nonce: %q", n)
			}
		})
		w.Sub("12 what is not there is 4xx", func(w *harness.World) {
			// npm's acme-client repeats the same nonce after a 5xx.
			r := f.client(w)
			base := strings.TrimSuffix(r.URL("newOrder"), "/")
			if a := r.Post(base+"/no/such/resource", j{}); a.Status/100 != 4 {
				w.Errorf("an unknown resource is answered by %d", a.Status)
			}
		})
		w.Sub("13 validation is over before the answer to the challenge", func(w *harness.World) {
			w.Ours("it validates later")
			r := f.client(w)
			z := r.Authz(r.Want(http.StatusCreated, r.Order(nil, "a.test")))[0]
			ch := r.Challenge(z, "http-01")
			f.responder.HTTP(ch["token"].(string), r.KeyAuth(ch["token"].(string)))
			a := r.Want(http.StatusOK, r.Post(ch["url"].(string), j{}))
			if a.S("status") != "valid" {
				w.Errorf("a quick challenge is answered by %s", a.Body)
			}
		})
		w.Sub("13 Retry-After 1 with the answer to a slow challenge", func(w *harness.World) {
			w.Ours("it sends none there")
			r := f.client(w)
			free := make(chan struct{})
			f.responder.Slow(func() { <-free })
			defer f.responder.Slow(nil)
			order := r.Want(http.StatusCreated, r.Order(nil, "a.test"))
			ch := r.Challenge(r.Authz(order)[0], "http-01")
			f.responder.HTTP(ch["token"].(string), r.KeyAuth(ch["token"].(string)))
			start := time.Now()
			a := r.Want(http.StatusOK, r.Post(ch["url"].(string), j{}))
			if took := time.Since(start); took > 3*time.Second {
				w.Errorf("the POST was held for %v", took)
			}
			if s := a.S("status"); s != "processing" && s != "pending" || a.Header.Get("Retry-After") != "1" {
				w.Errorf("a slow challenge is answered with Retry-After %q by %s", a.Header.Get("Retry-After"), a.Body)
			}
			z := r.Want(http.StatusOK, r.Post(order.JSON["authorizations"].([]any)[0].(string), nil))
			if s := z.Header.Get("Retry-After"); s != "" {
				if n, err := strconv.Atoi(s); err != nil || n > 3 {
					w.Errorf("a pending authorization comes with Retry-After %q", s)
				}
			}
			close(free)
			r.Wait(order.Header.Get("Location"), "ready")
		})
	})
}
