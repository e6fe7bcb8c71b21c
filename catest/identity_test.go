package catest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

// A web server and its client, by the one line of the package's comment; a
// connection lives on when its certificates are replaced, and a new one has new
// ones with new keys.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := catest.New(t, catest.InMemory())
		id := run(t, ca.Config("web.test"))
		old := mustCallSelf(t, id)
		old.talk(t)
		time.Sleep(14 * time.Hour)
		if again := mustCallSelf(t, id); !again.shown().Equal(old.shown()) {
			t.Error("renewed too soon")
		}
		time.Sleep(3*time.Hour + 15*time.Minute)
		now := mustCallSelf(t, id)
		for _, pair := range []struct {
			usage string
			same  bool
		}{
			{"server", now.shown().PublicKey.(*ecdsa.PublicKey).Equal(old.shown().PublicKey)},
			{"client", now.came().PublicKey.(*ecdsa.PublicKey).Equal(old.came().PublicKey)},
		} {
			if pair.same {
				t.Errorf("the %s's key is the old one", pair.usage)
			}
		}
		if left := time.Until(now.shown().NotAfter); left < 21*time.Hour { // jitter, and the test's own steps
			t.Errorf("the new one lives for %v", left)
		}
		time.Sleep(24 * time.Hour) // the old ones have ended
		old.talk(t)
		mustCallSelf(t, id).talk(t)
	})
}

// The same over HTTP.
func TestHTTP(t *testing.T) {
	ca := catest.New(t)
	id := run(t, ca.Config("localhost"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rules := acl.Allow("localhost")
	srv := &http.Server{TLSConfig: id.Server(rules), ErrorLog: id.ErrorLog(), Handler: id.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := mtls.PeerFromContext(r.Context())
		fmt.Fprint(w, "hello ", peer.Name())
	}), rules)}
	defer srv.Close()
	go srv.ServeTLS(l, "", "")
	url := fmt.Sprintf("https://localhost:%d/", portOf(t, l.Addr().String()))
	for range 3 {
		res, err := id.HTTPClient().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "hello localhost" || err != nil || res.Proto != "HTTP/2.0" {
			t.Errorf("%q, %v, %s", body, err, res.Proto)
		}
	}
	nobody := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Roots()}}}
	if _, err := nobody.Get(url); err == nil {
		t.Error("somebody without a certificate was let in")
	}
}

// On a clock that stands, what is overdue is done after one Advance, however
// the identity and the test run beside each other.
func TestRenewalOnStoppedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := catest.New(t, catest.InMemory(), catest.StoppedAt(noon))
		id := start(t, ca.Config("web.test"))
		ca.Advance(time.Hour) // while it is at its first certificate
		id.ready(t)
		last := mustCallSelf(t, id).shown()
		for range 14 {
			ca.Advance(21 * time.Hour) // past every time that it may choose to renew at
			time.Sleep(time.Second)    // of the machine's, for the CA's work
			leaf := mustCallSelf(t, id).shown()
			if leaf.Equal(last) {
				t.Fatalf("not renewed at %v", ca.Clock().Now())
			}
			last = leaf
		}
	})
}

// One directory for servers, another for clients.
func TestDirectoriesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := catest.New(t, catest.InMemory())
		clients := catest.New(t, catest.InMemory(), servers.Clock())
		c := together(t, servers, clients)
		c.CAs[0].Usage, c.CAs[1].Usage = mtls.UsageServer, mtls.UsageClient
		id := run(t, c)
		for range 5 {
			got := mustCallSelf(t, id)
			got.talk(t)
			by := got.shown().CheckSignatureFrom(servers.Issuer().Leaf)
			if err := got.came().CheckSignatureFrom(clients.Issuer().Leaf); by != nil || err != nil {
				t.Fatalf("from the wrong one: %v, %v", by, err)
			}
			time.Sleep(20 * time.Hour)
		}
		servers.Down()
		time.Sleep(time.Until(mustCallSelf(t, id).shown().NotAfter) + time.Minute)
		if h := id.Health(); h.Able || h.Dark != "server web.test" || h.CAs[1].Error != "" || h.Certificates[1].Error != "" {
			t.Errorf("%+v", h)
		}
	})
}

// Losing one CA, all but one, and all: nothing stops until certificates really
// end, and it was said when that is, and which. Then one comes back.
func TestLosingAllCAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := catest.New(t, catest.InMemory())
		cas := []*catest.CA{one, catest.New(t, catest.InMemory(), one.Clock()), catest.New(t, catest.InMemory(), one.Clock())}
		id := run(t, together(t, cas...))
		long := mustCallSelf(t, id)
		for _, lost := range cas[:2] {
			lost.Down()
			for range 16 {
				time.Sleep(3 * time.Hour)
				mustCallSelf(t, id)
				if h := id.Health(); !h.OK || !h.Able {
					t.Fatalf("%+v", h)
				}
			}
		}
		cas[2].Down()
		last := mustCallSelf(t, id)
		end, which := last.shown().NotAfter, "server web.test"
		if last.came().NotAfter.Before(end) {
			end, which = last.came().NotAfter, "client web.test"
		}
		for h := id.Health(); time.Until(end) > 10*time.Minute; h = id.Health() {
			if !h.DarkAt.Equal(end) || h.Dark != which || !h.Able {
				t.Fatalf("%+v, want %s at %v", h, which, end)
			}
			if left := time.Until(end); h.OK && left < time.Hour || !h.OK && left > 4*time.Hour {
				t.Errorf("OK is %t with %v left", h.OK, left)
			}
			mustCallSelf(t, id)
			time.Sleep(9 * time.Minute)
		}
		time.Sleep(time.Until(end) + time.Second)
		if _, err := callSelf(t, id); err == nil {
			t.Error("goes on with certificates that have ended")
		}
		if h := id.Health(); h.Able || h.OK {
			t.Errorf("%+v", h)
		}
		for _, h := range id.Health().CAs {
			if h.Error == "" {
				t.Errorf("%s isn't known to be lost", h.Directory)
			}
		}
		long.talk(t)
		cas[1].Up()
		time.Sleep(2 * time.Minute) // it is asked once a minute
		mustCallSelf(t, id).talk(t)
		if h := id.Health(); !h.OK {
			t.Errorf("%+v", h)
		}
	})
}

// answer spoils what a CA answers to requests whose path has a part in it.
func answer(part string, spoil http.HandlerFunc) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, part) {
				spoil(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Whatever a CA answers, the next one is asked, soon, and Health says what was
// wrong with the first.
func TestTroubledCA(t *testing.T) {
	for _, tc := range []struct {
		name   string
		within time.Duration
		want   string // in Health
		spoil  func(bad, stranger *catest.CA)
	}{
		{"away", time.Second, "directory", func(bad, _ *catest.CA) { bad.Down() }},
		// One after the other: the server's may have done for both.
		{"slow", 21 * time.Second, "", func(bad, _ *catest.CA) { bad.Slow(time.Hour) }},
		{"busy", time.Second, "503", func(bad, _ *catest.CA) {
			bad.Answer(answer("", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
		}},
		{"garbage for a directory", time.Second, "directory", func(bad, _ *catest.CA) {
			bad.Answer(answer("/directory", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>login here</html>") }))
		}},
		{"garbage for an order", time.Second, "order", func(bad, _ *catest.CA) {
			bad.Answer(answer("/new-order", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusCreated)
				io.WriteString(w, "{")
			}))
		}},
		{"garbage for a certificate", time.Second, "certificate", func(bad, _ *catest.CA) {
			bad.Answer(answer("/cert", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/pem-certificate-chain")
				io.WriteString(w, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
			}))
		}},
		{"an endless directory", time.Second, "bytes", func(bad, _ *catest.CA) {
			bad.Answer(answer("/directory", func(w http.ResponseWriter, r *http.Request) {
				for line := strings.Repeat(" ", 1<<12); r.Context().Err() == nil; {
					if _, err := io.WriteString(w, line); err != nil {
						return
					}
				}
			}))
		}},
		{"another's certificate", time.Second, "another key", func(bad, stranger *catest.CA) {
			c := bad.Issue(mtls.UsageBoth, "web.test")
			bad.Answer(answer("/cert", func(w http.ResponseWriter, _ *http.Request) { writeChain(w, c) }))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad := catest.New(t, catest.InMemory())
				good := catest.New(t, catest.InMemory(), bad.Clock())
				tc.spoil(bad, good)
				c := together(t, bad, good)
				c.Pick = mtls.PickOrdered
				var mu sync.Mutex
				var took time.Duration
				begun := time.Now()
				c.Hooks.Attempted = func(a mtls.Attempt) {
					mu.Lock()
					defer mu.Unlock()
					if a.Err == nil {
						took = max(took, time.Since(begun))
					}
				}
				id := run(t, c)
				mustCallSelf(t, id).talk(t)
				mu.Lock()
				defer mu.Unlock()
				if took > tc.within {
					t.Errorf("the other one's came after %v", took)
				}
				h := id.Health()
				if !strings.Contains(h.CAs[0].Error, tc.want) || !h.OK || tc.want != "" && (h.CAs[0].Score > 0.6 || h.CAs[1].Score < 0.9) {
					t.Errorf("%+v", h)
				}
			})
		})
	}
}

// New says what the only CA answered.
func TestNewSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := catest.New(t, catest.InMemory())
		c := ca.Config("web.test")
		c.CAs[0].EAB.KeyID, c.Logger = "mistyped", quiet
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := mtls.New(ctx, c)
		tells(t, "a wrong EAB key", err, "server web.test", "client web.test", ca.Directory(), "unauthorized")
	})
}

// A client's program has no listener and proves nothing: an EAB key is enough.
func TestClientOnly(t *testing.T) {
	ca := catest.New(t)
	c := ca.Config("batch.test")
	c.Usage = mtls.UsageClient
	id := run(t, c)
	server := run(t, ca.Config("web.test"))
	got, err := dial(t, server.Server(acl.Allow("batch.test")), id.ClientTo("web.test"))
	if err != nil {
		t.Fatal(err)
	}
	got.talk(t)
	_, err = dial(t, id.Server(acl.Allow("web.test")), server.ClientTo("batch.test"))
	tells(t, "calling the client", err, "client's only")
}
