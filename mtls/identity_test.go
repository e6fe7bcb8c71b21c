package mtls

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/fakeca"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
)

var errTest = errors.New("test error")

// TestFirst: server and client certificates, exactly as asked, from accounts
// that are used once, under our user agent.
func TestFirst(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	w.cfg.Names, w.cfg.UserAgent = []string{"B.test", "a.test", "192.0.2.7", "a.test", "2001:DB8::1"}, "prog/7"
	id := w.ready()
	defer id.Close()
	server, client := serverLeaf(t, id, "a.test"), clientLeaf(t, id)
	if server == client || server.PrivateKey == client.PrivateKey {
		t.Error("one certificate, or key, for both usages")
	}
	for usage, cert := range map[x509.ExtKeyUsage]*tls.Certificate{x509.ExtKeyUsageServerAuth: server, x509.ExtKeyUsageClientAuth: client} {
		leaf := cert.Leaf
		if !slices.Equal(leaf.DNSNames, []string{"b.test", "a.test"}) || len(leaf.IPAddresses) != 2 || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{usage}) || len(cert.Certificate) != 2 {
			t.Errorf("%v: names %v %v, usage %v, chain of %d", usage, leaf.DNSNames, leaf.IPAddresses, leaf.ExtKeyUsage, len(cert.Certificate))
		}
		if _, ok := cert.PrivateKey.(crypto.Signer).Public().(*ecdsa.PublicKey); !ok {
			t.Error("not an ECDSA key")
		}
	}
	for _, name := range []string{"", "a.test", "B.TEST", "else.test"} { // who asks for another name sees for itself
		if serverLeaf(t, id, name) != server {
			t.Errorf("%q gets another certificate", name)
		}
	}
	all := w.issued()
	if len(all) != 2 || all[0].Account == all[1].Account || all[0].Agent != "prog/7 chancery-acme/1" {
		t.Errorf("%+v", all)
	}
	if !id.Health().OK || w.log.count("level=INFO") != 2 {
		t.Errorf("%s", w.log)
	}
}

// TestUsages: who has one usage has no certificate for the other, and one
// leaf does for both where a CA gives such.
func TestUsages(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage = UsageServer
		id := w.ready()
		defer id.Close()
		if cert, err := id.clientCertificate(new(tls.CertificateRequestInfo)); err != nil || cert == nil || cert.Leaf != nil {
			t.Errorf("%v, %v; want an empty certificate", cert, err)
		}
		if serverLeaf(t, id, "a.test"); len(w.issued()) != 1 {
			t.Error("asked for more than the one")
		}
	})
	t.Run("client", func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage = UsageClient
		id := w.ready()
		defer id.Close()
		if _, err := id.serverCertificate(hello("a.test")); err == nil || !strings.Contains(err.Error(), "client's only") {
			t.Errorf("%v", err)
		}
		if clientLeaf(t, id); len(w.issued()) != 1 {
			t.Error("asked for more than the one")
		}
	})
	t.Run("both in one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			defer w.end()
			w.cas[0].Both = true
			var seen atomic.Bool // the CA goes away after the next certificate
			w.cfg.Hooks.Attempted = func(a Attempt) {
				if a.Err == nil && seen.CompareAndSwap(true, false) {
					w.cas[0].Set(fakeca.Away)
				}
			}
			id := w.ready()
			defer id.Close()
			if serverLeaf(t, id, "a.test") != clientLeaf(t, id) {
				t.Error("two certificates")
			}
			old := clientLeaf(t, id)
			time.Sleep(20 * time.Hour)
			if serverLeaf(t, id, "a.test") != clientLeaf(t, id) || clientLeaf(t, id) == old || len(w.issued()) != 2 {
				t.Error("not renewed as one")
			}
			// From now on it is one for each. While the client waits for its
			// own it goes on with what both had.
			w.cas[0].Change(func() { w.cas[0].Both = false })
			seen.Store(true)
			old = clientLeaf(t, id)
			for serverLeaf(t, id, "a.test") == old {
				time.Sleep(time.Minute)
			}
			time.Sleep(5 * time.Minute)
			if clientLeaf(t, id) != old {
				t.Error("the client has another already")
			}
			w.cas[0].Set(fakeca.None)
			time.Sleep(15 * time.Minute)
			if !erased(old) {
				t.Error("the old key is still there")
			}
			server, client := serverLeaf(t, id, "a.test"), clientLeaf(t, id)
			if server == client || len(w.issued()) != 4 || !slices.Equal(client.Leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
				t.Errorf("not parted: %d certificates", len(w.issued()))
			}
		})
	})
	t.Run("one profile for both", func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.CAs[0].ServerProfile, w.cfg.CAs[0].ClientProfile = "peer", "peer"
		id := w.ready()
		defer id.Close()
		if serverLeaf(t, id, "a.test") != clientLeaf(t, id) {
			t.Error("two certificates")
		}
		if one := w.issued(); len(one) != 1 || one[0].Profile != "peer" {
			t.Errorf("%+v", one)
		}
	})
	t.Run("a profile for each", func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.CAs[0].ServerProfile, w.cfg.CAs[0].ClientProfile = "s", "c"
		id := w.ready()
		defer id.Close()
		if all := w.issued(); len(all) != 2 || all[0].Profile != "s" || all[1].Profile != "c" {
			t.Errorf("%+v", all)
		}
	})
}

// TestHostileCAs: whatever the first CA does, the second one is asked, in time,
// and the first one is thought less of. What is wrong is said.
func TestHostileCAs(t *testing.T) {
	for _, tc := range []struct {
		fault  fakeca.Fault
		within time.Duration
		want   string // in the hook's error
	}{
		{fakeca.Away, time.Second, "connection refused"},
		{fakeca.Garbage, time.Second, "not what it should be"},
		{fakeca.Endless, time.Second, "more than 1048576 bytes"},
		{fakeca.Limited, time.Second, "rateLimited"},
		{fakeca.Refuses, time.Second, "rejectedIdentifier"},
		{fakeca.Internal, time.Second, "serverInternal"},
		{fakeca.WrongKey, time.Second, "another key"},
		{fakeca.WrongNames, time.Second, "lacks the name a.test"},
		{fakeca.MoreNames, time.Second, `"another.test", for which nobody asked`},
		{fakeca.WrongUsage, time.Second, "not for serverAuth"},
		{fakeca.Expired, time.Second, "ended already"},
		{fakeca.IsCA, time.Second, "is a CA's"},
		{fakeca.WrongRoot, time.Second, "leads to no root"},
		{fakeca.Hang, time.Minute + time.Second, "deadline exceeded"},
		{fakeca.Trickle, 2*time.Minute + time.Second, ""},
	} {
		t.Run(string(tc.fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				defer w.end()
				w.cas[0].Set(tc.fault)
				var mu sync.Mutex
				var failed []Attempt
				w.cfg.Hooks.Attempted = func(a Attempt) {
					mu.Lock()
					defer mu.Unlock()
					if a.Err != nil {
						failed = append(failed, a)
					}
				}
				w.cfg.Usage, w.cfg.HedgeAfter = UsageServer, -1
				begin := time.Now()
				id := w.ready()
				defer id.Close()
				if took := time.Since(begin); took > tc.within {
					t.Errorf("took %v", took)
				}
				serverLeaf(t, id, "a.test")
				if n := len(w.cas[1].Issued()); n != 1 {
					t.Errorf("the other CA issued %d", n)
				}
				h := id.Health().CAs
				if h[0].Score > 0.6 || h[0].Error == "" || h[1].Score != 1 || h[1].Error != "" {
					t.Errorf("%+v", h)
				}
				if len(failed) != 1 || failed[0].Directory != w.cas[0].Directory() || failed[0].Usage != UsageServer || !strings.Contains(failed[0].Err.Error(), tc.want) {
					t.Errorf("%+v, want %q", failed, tc.want)
				}
			})
		})
	}
}

// TestHedge: a CA that takes its time is not waited for.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.end()
		w.cas[0].Set(fakeca.Hang)
		w.cas[1].Set(fakeca.Slow)
		w.cfg.Usage = UsageServer
		begin := time.Now()
		id := w.ready()
		if took := time.Since(begin); took < 20*time.Second || took > 21*time.Second || len(w.cas[2].Issued()) != 1 {
			t.Errorf("took %v", took)
		}
		synctest.Wait()
		if h := id.Health().CAs; h[0].Score != 1 || h[0].Latency < 10*time.Second {
			t.Errorf("%+v", h[0])
		}
		id.Close()
	})
}

// TestLastResort: the second tier is asked when the first one has failed.
func TestLastResort(t *testing.T) {
	w := newWorld(t, 3)
	defer w.end()
	w.cfg.Usage, w.cfg.CAs[0].Tier = UsageServer, 1
	id := w.ready()
	id.Close()
	if len(w.cas[1].Issued()) != 1 {
		t.Error("the last resort was asked first")
	}
	w.cas[1].Set(fakeca.Away)
	w.cas[2].Set(fakeca.Away)
	id = w.ready()
	id.Close()
	if len(w.cas[0].Issued()) != 1 {
		t.Error("the last resort was not asked")
	}
}

// TestProcessing: an order that the CA is at work on is waited for longer than
// an attempt, though not for ever, and the next CA is asked beside.
func TestProcessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage = UsageServer
		w.cas[0].Set(fakeca.Processing)
		begin := time.Now()
		id := w.start()
		defer id.Close()
		time.Sleep(20 * time.Minute)
		if n := w.cas[0].Requests(); n > 50 {
			t.Errorf("%d requests; the Retry-After is 30 s", n)
		}
		w.cas[0].Set(fakeca.None)
		if err := id.Ready(t.Context()); err != nil || time.Since(begin) > 21*time.Minute || len(w.issued()) != 1 {
			t.Errorf("%v after %v, %d orders", err, time.Since(begin), len(w.issued()))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage = UsageServer
		w.cas[0].Set(fakeca.Processing)
		id := w.start()
		defer id.Close()
		time.Sleep(70 * time.Minute)
		if err := id.Health().CAs[0].Error; !strings.Contains(err, "took too long") {
			t.Errorf("still waiting after 70 minutes: %q", err)
		}
	})
}

// TestNewFails: New says what the CA said, and leaves nothing behind.
func TestNewFails(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t, 1)
	w.cas[0].Set(fakeca.Refuses)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	id, err := New(ctx, w.cfg)
	if id != nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not these names") || !acme.HasType(err, acme.ErrRejectedIdentifier) {
		t.Errorf("%v, %v", id, err)
	}
	w.end()
	settled(t, before)
}

// TestNewGivesUp: without a deadline it takes five minutes.
func TestNewGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cas[0].Set(fakeca.Away)
		begin := time.Now()
		if _, err := New(context.Background(), w.cfg); err == nil || time.Since(begin) != newTime {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// TestStart: a program may start without any CA; its handshakes fail until one
// answers, and say why.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cas[0].Set(fakeca.Away)
		id := w.start()
		defer id.Close()
		time.Sleep(time.Hour)
		for _, err := range []error{func() error { _, err := id.serverCertificate(hello("a.test")); return err }(),
			func() error { _, err := id.clientCertificate(new(tls.CertificateRequestInfo)); return err }()} {
			if err == nil || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("%v", err)
			}
		}
		if h := id.Health(); h.OK || h.Able || !h.DarkAt.Equal(id.life.began) {
			t.Errorf("%+v", h)
		}
		w.cas[0].Set(fakeca.None)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		serverLeaf(t, id, "a.test")
		clientLeaf(t, id)
	})
}

// TestClose erases every key, ends every goroutine and refuses handshakes.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t, 1)
	w.cfg.OneAccount = true
	w.cfg.SNI = func(string) error { return nil }
	id := w.ready()
	server, client, other := serverLeaf(t, id, "a.test"), clientLeaf(t, id), serverLeaf(t, id, "other.test")
	if err := id.Close(); err != nil {
		t.Error(err)
	}
	id.Close()
	for name, cert := range map[string]*tls.Certificate{"server": server, "client": client, "on demand": other} {
		if !erased(cert) {
			t.Errorf("the %s key is still there", name)
		}
	}
	for _, name := range []string{"a.test", "other.test", "new.test"} {
		if _, err := id.serverCertificate(hello(name)); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := id.clientCertificate(new(tls.CertificateRequestInfo)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if id.Health().Certificates == nil {
		t.Error("no health after Close")
	}
	w.end()
	settled(t, before)
}

// TestCloseWhileObtaining ends what hangs.
func TestCloseWhileObtaining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.end()
		w.cas[0].Set(fakeca.Hang)
		w.cas[1].Set(fakeca.Slow)
		id := w.start()
		time.Sleep(15 * time.Second)
		begin := time.Now()
		id.Close()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
		if err := id.Ready(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Ready: %v", err)
		}
	})
}

// TestIdle: an identity at rest has one goroutine.
func TestIdle(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	w.ready().Close()
	before := runtime.NumGoroutine()
	for range 10 {
		defer w.ready().Close()
	}
	settled(t, before+10)
}

// onLoopback serves a CA behind TLS on a port of the machine.
func onLoopback(t testing.TB, ca *fakeca.CA) (directory string, root *x509.Certificate) {
	srv := httptest.NewUnstartedServer(ca)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL + "/directory", srv.Certificate()
}

// TestOwnTransport: our own HTTP client checks the directory's certificate,
// and leaves no connection behind.
func TestOwnTransport(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	directory, root := onLoopback(t, w.cas[0])
	roots := x509.NewCertPool()
	roots.AddCert(root)
	w.cfg.CAs[0] = CA{Directory: directory, Roots: roots}
	before := runtime.NumGoroutine()
	id := w.ready()
	settled(t, before+1)
	id.Close()

	w.cfg.CAs[0].Roots = nil // the Trust's don't know the test server
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, w.cfg); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("%v", err)
	}
	w.cfg.Trust = believing(t, roots) // knows the server, but not what it issues
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, w.cfg); err == nil || !strings.Contains(err.Error(), "leads to no root") {
		t.Errorf("%v", err)
	}
	roots.AddCert(w.cas[0].Root)
	w.cfg.Trust = believing(t, roots)
	w.ready().Close()
}

// prover looks for each kind of proof, as a CA does.
func prover(id *atomic.Pointer[Identity]) func(acme.Identifier, acme.Challenge, string, json.RawMessage) error {
	return func(name acme.Identifier, ch acme.Challenge, _ string, payload json.RawMessage) error {
		switch ch.Type {
		case acme.TLSALPN01:
			if id.Load().challengeCertificate(&tls.ClientHelloInfo{ServerName: name.Value, SupportedProtos: []string{"acme-tls/1"}}) == nil {
				return errors.New("no challenge certificate")
			}
			for _, wrong := range []*tls.ClientHelloInfo{{ServerName: name.Value}, {ServerName: name.Value, SupportedProtos: []string{"acme-tls/1", "h2"}}, {ServerName: "x.test", SupportedProtos: []string{"acme-tls/1"}}} {
				if id.Load().challengeCertificate(wrong) != nil {
					return errors.New("the challenge certificate is shown to everybody")
				}
			}
			return nil
		case "kubernetes-01":
			return errors.New("payload " + string(payload))
		}
		return errTest
	}
}

// TestProofs: the first way that is offered, in the order of the fields.
func TestProofs(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	os.WriteFile(token, []byte("e30.e30.c2ln\n"), 0o600)
	for _, tc := range []struct {
		name    string
		offered []string
		change  func(*Config)
		want    string // of what the CA says; "" a certificate
	}{
		{"tls-alpn-01 on our own listener", []string{"dns-01", "tls-alpn-01", "kubernetes-01"}, func(*Config) {}, ""},
		{"the token before", []string{"tls-alpn-01", "kubernetes-01"}, func(c *Config) { c.Proof.TokenFile = token }, `payload {"serviceAccountToken":"e30.e30.c2ln"}`},
		{"the CA's own token", []string{"kubernetes-01"}, func(c *Config) { c.CAs[0].TokenFile, c.Proof.TokenFile = token, "" }, `payload {"serviceAccountToken":"e30.e30.c2ln"}`},
		{"the source address where nothing else fits", []string{"dns-01", "kubernetes-01"}, func(*Config) {}, "payload {}"},
		{"no tls-alpn-01", []string{"tls-alpn-01", "kubernetes-01"}, func(c *Config) { c.Proof.NoALPN = true }, "payload {}"},
		{"a client has no listener", []string{"tls-alpn-01", "kubernetes-01"}, func(c *Config) { c.Usage = UsageClient }, "payload {}"},
		{"what is handed in comes first", []string{"tls-alpn-01", "kubernetes-01", "http-01"}, func(c *Config) { c.Proof.Solvers, c.Proof.TokenFile = []acme.Solver{new(acme.HTTP01Solver)}, token }, "test error"},
		{"nothing fits", []string{"dns-01", "http-01"}, func(*Config) {}, "the server offers dns-01, http-01"},
	} {
		w := newWorld(t, 1)
		ca := w.cas[0]
		var id atomic.Pointer[Identity]
		ca.PreApproved, ca.Challenges, ca.Validate = false, tc.offered, prover(&id)
		w.cfg.Usage = UsageServer
		tc.change(&w.cfg)
		failed := make(chan error, 100)
		w.cfg.Hooks.Attempted = func(a Attempt) { failed <- a.Err }
		id.Store(w.startHeld(&id))
		err := <-failed
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		id.Load().Close()
		w.end()
	}
}

// startHeld is start for CAs that look back at the identity: it is known to
// them before they can.
func (w *world) startHeld(held *atomic.Pointer[Identity]) *Identity {
	look := w.cas[0].Validate
	known := make(chan struct{})
	w.cas[0].Validate = func(id acme.Identifier, ch acme.Challenge, keyAuth string, payload json.RawMessage) error {
		<-known
		return look(id, ch, keyAuth, payload)
	}
	id := w.start()
	held.Store(id)
	close(known)
	return id
}

// TestTokensStayHome: with several CAs a token goes only to whom it is meant
// for.
func TestTokensStayHome(t *testing.T) {
	w := newWorld(t, 2)
	defer w.end()
	token := filepath.Join(t.TempDir(), "token")
	os.WriteFile(token, []byte("e30.eyJhdWQiOiJodHRwczovL2NhMS50ZXN0L2RpcmVjdG9yeSJ9.c2ln"), 0o600) // {"aud":"https://ca1.test/directory"}
	w.cfg.Usage, w.cfg.Proof.TokenFile = UsageServer, token
	var got [2]atomic.Int32
	for i, ca := range w.cas {
		ca.PreApproved, ca.Challenges = false, []string{"kubernetes-01"}
		ca.Validate = func(_ acme.Identifier, _ acme.Challenge, _ string, payload json.RawMessage) error {
			if strings.Contains(string(payload), "serviceAccountToken") {
				got[i].Add(1)
			}
			return nil
		}
	}
	id := w.ready()
	defer id.Close()
	if got[0].Load() != 0 || got[1].Load() != 1 {
		t.Errorf("the first got %d tokens, the second, whose it is, %d", got[0].Load(), got[1].Load())
	}
	if h := id.Health().CAs[0]; !strings.Contains(h.Error, "give each CA a token of its own") {
		t.Errorf("%q", h.Error)
	}
}

// TestListenALPN: the identity's own listener is there until the first
// certificates are.
func TestListenALPN(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := probe.Addr().String()
	probe.Close()
	w.cfg.Usage, w.cfg.Proof.ListenALPN, w.cfg.Proof.NoALPN = UsageServer, addr, true
	w.cas[0].PreApproved, w.cas[0].Challenges = false, []string{"tls-alpn-01"}
	w.cas[0].Validate = func(name acme.Identifier, _ acme.Challenge, _ string, _ json.RawMessage) error {
		conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name.Value, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
		if err == nil {
			conn.Close()
		}
		return err
	}
	id := w.ready()
	defer id.Close()
	again, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the program can't have its port: %v", err)
	}
	defer again.Close()
	if _, err := Start(w.cfg); err == nil || !strings.Contains(err.Error(), "Config.Proof.ListenALPN") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// TestEAB: one account, the same one after a restart, for operators count
// them.
func TestEAB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		ca := w.cas[0]
		mac := []byte("0123456789abcdef0123456789abcdef")
		ca.EAB, ca.EABAccounts, ca.NoInfo = map[string][]byte{"k1": mac}, 1, true
		w.cfg.CAs[0].EAB = &acme.ExternalAccount{KeyID: "k1", MACKey: mac}
		id := w.ready()
		time.Sleep(20 * time.Hour)
		id.Close()
		id = w.ready()
		defer id.Close()
		all := w.issued()
		if len(all) != 6 || ca.Accounts() != 1 {
			t.Fatalf("%d certificates of %d accounts", len(all), ca.Accounts())
		}
		// The renewals replace what they replaced (RFC 9773 section 5).
		for i, one := range all {
			var want string
			if i == 2 || i == 3 {
				for _, old := range all[:2] {
					if slices.Equal(old.Leaf.ExtKeyUsage, one.Leaf.ExtKeyUsage) {
						want, _ = acme.CertID(old.Leaf)
					}
				}
			}
			if one.Replaces != want {
				t.Errorf("certificate %d replaces %q, want %q", i, one.Replaces, want)
			}
		}
		ca.Forget() // a server that has lost its accounts
		ca.Change(func() { ca.EABAccounts = 0 })
		time.Sleep(20 * time.Hour)
		if !id.Health().OK || len(w.issued()) != 8 {
			t.Errorf("%+v", id.Health())
		}
	})
}

// TestOneAccount: one for both certificates and for renewals, another in the
// next identity.
func TestOneAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.OneAccount = true
		id := w.ready()
		time.Sleep(20 * time.Hour)
		id.Close()
		if len(w.issued()) != 4 || w.cas[0].Accounts() != 1 || w.issued()[3].Replaces == "" {
			t.Errorf("%d certificates of %d accounts", len(w.issued()), w.cas[0].Accounts())
		}
		w.ready().Close()
		if w.cas[0].Accounts() != 2 {
			t.Errorf("%d accounts", w.cas[0].Accounts())
		}
		w.cas[0].Change(func() { w.cas[0].NoReplaces = true }) // then without
		id = w.ready()
		defer id.Close()
		before := w.cas[0].Replaces()
		time.Sleep(20 * time.Hour)
		if !id.Health().OK || w.cas[0].Replaces() == before || w.log.count("level=WARN") > 0 {
			t.Errorf("%+v", id.Health())
		}
	})
}

// TestTwoChains: while a CA rotates, a client shows the chain that the server
// asks for.
func TestTwoChains(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	ca := w.cas[0]
	ca.Alternate = true
	w.cfg.Trust = believing(t, ca.Pool())
	id := w.ready()
	defer id.Close()
	ask := func(acceptable ...[]byte) *tls.Certificate {
		cert, err := id.clientCertificate(&tls.CertificateRequestInfo{AcceptableCAs: acceptable})
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first, other := ask(ca.Root.RawSubject), ask([]byte("x"), ca.Other.RawSubject)
	if first.Leaf == nil || first != ask() || first == other || first.Leaf != other.Leaf || first.PrivateKey != other.PrivateKey {
		t.Error("the chains aren't two of one leaf")
	}
	for cert, root := range map[*tls.Certificate]*x509.Certificate{first: ca.Root, other: ca.Other} {
		issuer, _ := x509.ParseCertificate(cert.Certificate[1])
		if issuer.CheckSignatureFrom(root) != nil {
			t.Errorf("the chain for %s is another's", root.Subject)
		}
	}
	if cert := ask([]byte("stranger")); cert.Certificate != nil {
		t.Error("shown to who accepts another CA only")
	}
	if len(serverLeaf(t, id, "a.test").Certificate) != 2 {
		t.Error("no default chain for the server")
	}
	ca.Change(func() { ca.OtherLeaf = true }) // which is another certificate's
	id = w.ready()
	defer id.Close()
	if cert := ask(ca.Other.RawSubject); cert.Certificate != nil {
		t.Error("a chain of another leaf is shown")
	}
}

// TestNewKey: a program's own keys are used, never erased, and what goes wrong
// with them is told.
func TestNewKey(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	w.cfg.Usage, w.cfg.NewKey = UsageServer, func() (crypto.Signer, error) { return key, nil }
	id := w.ready()
	if got := serverLeafOf(t, id).PrivateKey.(ed25519.PrivateKey); !got.Equal(key) {
		t.Error("another key")
	}
	id.Close()
	if ed25519.NewKeyFromSeed(key.Seed()).Equal(key) == false {
		t.Error("touched")
	}
	for _, bad := range []func() (crypto.Signer, error){
		func() (crypto.Signer, error) { return nil, errTest },
		func() (crypto.Signer, error) { return nil, nil },
		func() (crypto.Signer, error) { return &other{}, nil },
	} {
		w.cfg.NewKey = bad
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := New(ctx, w.cfg); err == nil {
			t.Error("no error")
		}
		cancel()
	}
}

func serverLeafOf(t *testing.T, id *Identity) *tls.Certificate {
	cert, err := id.serverCertificate(hello("a.test"))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// other is a signer of a kind that nothing knows.
type other struct{ memkey.Key }

// Public is of no known type.
func (*other) Public() crypto.PublicKey { return elliptic.P256() }

// TestDNS01 writes the records of RFC 8555 section 8.4.
func TestDNS01(t *testing.T) {
	records := map[string]string{}
	s := DNS01(zone(records))
	proof := acme.Proof{Authorization: acme.Authorization{Identifier: acme.Identifier{Type: "dns", Value: "a.test"}, Wildcard: true}, KeyAuthorization: "x.y"}
	if payload, err := s.Present(t.Context(), proof); payload != nil || err != nil || s.Type() != "dns-01" {
		t.Error(payload, err)
	}
	// printf x.y | openssl dgst -sha256 -binary | basenc --base64url
	if records["_acme-challenge.a.test"] != "skypt163t1d1tf3UHg71z7ttIz_PMF3509WzR7s7jKg" {
		t.Errorf("%v", records)
	}
	if s.CleanUp(t.Context(), proof); len(records) != 0 {
		t.Errorf("%v", records)
	}
}

type zone map[string]string

func (z zone) Present(_ context.Context, name, value string) error { z[name] = value; return nil }
func (z zone) CleanUp(_ context.Context, name, value string) error {
	if z[name] == value {
		delete(z, name)
	}
	return nil
}
