package mtls

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/acme"
)

const keyAuthorization = "token.thumbprint"

// validator is what a CA connects with (RFC 8737 section 3).
func validator(name string) *tls.Config {
	return &tls.Config{ServerName: name, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true, SessionTicketsDisabled: true}
}

// answers reports whether a connection's server answered the challenge.
func answers(cs tls.ConnectionState) bool {
	if cs.NegotiatedProtocol != acme.ALPNProto || len(cs.PeerCertificates) != 1 {
		return false
	}
	want := sha256.Sum256([]byte(keyAuthorization))
	for _, e := range cs.PeerCertificates[0].Extensions {
		var digest []byte
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) && e.Critical {
			rest, err := asn1.Unmarshal(e.Value, &digest)
			return err == nil && len(rest) == 0 && bytes.Equal(digest, want[:])
		}
	}
	return false
}

// program is one that counts what reaches it.
type program struct {
	addr    string
	reached func() int64
}

// programs are the ways in which a program serves; gRPC's is in mtlsgrpc.
func programs(t *testing.T, id *Identity, config func() *tls.Config, p acl.Policy) map[string]program {
	t.Helper()
	raw := greet(t, config())
	l, err := id.Listen("tcp", "127.0.0.1:0", p)
	if err != nil {
		t.Fatal(err)
	}
	ours := greetOn(t, l)
	var requests, active atomic.Int64
	web := &http.Server{
		Handler:   http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }),
		TLSConfig: config(), ErrorLog: id.ErrorLog(),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateActive {
				active.Add(1)
			}
		},
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { web.ServeTLS(plain, "", ""); close(done) }()
	t.Cleanup(func() { web.Close(); <-done })
	return map[string]program{
		"raw TCP": {raw.addr, raw.reached.Load}, "Listen": {ours.addr, ours.reached.Load},
		"net/http": {plain.Addr().String(), func() int64 { return requests.Load() + active.Load() }},
	}
}

// A CA sees the answer, on each kind of listener, and no program sees the CA.
func TestChallengeIsAnswered(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("web.prod.internal")
	log := id.journal()
	id.pending(t, "web.prod.internal")
	id.pending(t, "10.1.2.3")
	p := acl.Allow("a.batch.internal")
	for kind, prog := range programs(t, id, func() *tls.Config { return id.Server(p) }, p) {
		t.Run(kind, func(t *testing.T) {
			for i := range 30 { // races would show
				name := []string{"web.prod.internal", "3.2.1.10.in-addr.arpa", "WEB.prod.Internal"}[i%3]
				config := validator(name)
				if i%2 > 0 {
					config.MinVersion = tls.VersionTLS13
				}
				conn, err := tls.Dial("tcp", prog.addr, config)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if !answers(conn.ConnectionState()) {
					t.Errorf("%s: %+v", name, conn.ConnectionState())
				}
				conn.Close()
			}
			if n := prog.reached(); n != 0 {
				t.Errorf("%d of them reached the program", n)
			}
			legal := as(h.leaf("a.batch.internal"))
			legal.NextProtos = []string{"http/1.1"}
			conn, err := tls.Dial("tcp", prog.addr, legal)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
				t.Error(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Error("others are kept out:", err)
			}
		})
	}
	if log.String() != "" {
		t.Errorf("it complains: %s", log)
	}
}

// OpenSSL is another validator than our own kind.
func TestChallengeAsOpenSSLSeesIt(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("this test needs the openssl command: ", err)
	}
	h := newHouse(t, "Example")
	id := h.identity("web.prod.internal")
	id.pending(t, "web.prod.internal")
	g := greet(t, id.Server(nil))
	cmd := exec.CommandContext(bounded30(t), "openssl", "s_client", "-connect", g.addr, "-servername", "web.prod.internal", "-alpn", acme.ALPNProto, "-showcerts")
	out, _ := cmd.CombinedOutput() // its exit code is about trust
	for _, want := range []string{"ALPN protocol: acme-tls/1", "TLSv1.3", "CN = ACME challenge", "No client certificate CA names sent"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("openssl doesn't say %q: %s", want, out)
		}
	}
	if strings.Contains(string(out), "handshake failure") || g.reached.Load() != 0 {
		t.Errorf("%s", out)
	}
}

// Nobody gets in by pretending to be a CA.
func TestNobodyComesInAsValidator(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("web.prod.internal")
	log := id.journal()
	id.pending(t, "web.prod.internal")
	p := acl.Allow("a.batch.internal")
	withTickets := func() *tls.Config {
		c := id.Server(p)
		c.SessionTicketsDisabled = false
		return c
	}
	request := "GET / HTTP/1.1\r\nHost: web.prod.internal\r\n\r\n"
	legal := h.leaf("a.batch.internal")
	for kind, prog := range programs(t, id, withTickets, p) {
		for _, v := range []struct {
			what   string
			name   string
			protos []string
			alert  string // of the handshake or the first read; "": the challenge is answered
		}{
			{"data after the handshake", "web.prod.internal", []string{acme.ALPNProto}, ""},
			{"the name in capitals", "WEB.PROD.INTERNAL", []string{acme.ALPNProto}, ""},
			{"another protocol after it", "web.prod.internal", []string{acme.ALPNProto, "h2"}, "bad certificate"},
			{"another protocol before it", "web.prod.internal", []string{"http/1.1", acme.ALPNProto}, "bad certificate"},
			{"the protocol twice", "web.prod.internal", []string{acme.ALPNProto, acme.ALPNProto}, "no application protocol"},
			{"the protocol in capitals", "web.prod.internal", []string{"ACME-TLS/1"}, "no application protocol"},
			{"no pending name", "db.prod.internal", []string{acme.ALPNProto}, "no application protocol"},
			{"no name", "", []string{acme.ALPNProto}, "no application protocol"},
			{"no protocol", "web.prod.internal", nil, "bad certificate"},
		} {
			t.Run(kind+"/"+v.what, func(t *testing.T) {
				before := prog.reached()
				config := validator(v.name)
				config.NextProtos = v.protos
				config.SessionTicketsDisabled, config.ClientSessionCache = false, tls.NewLRUClientSessionCache(4)
				conn, err := tls.Dial("tcp", prog.addr, config)
				if err == nil {
					defer conn.Close()
					if answered := answers(conn.ConnectionState()); answered != (v.alert == "") {
						t.Errorf("answered: %t", answered)
					}
					conn.SetDeadline(time.Now().Add(20 * time.Second))
					conn.Write([]byte(request))
					conn.NetConn().(*net.TCPConn).CloseWrite() // not waiting to be sent away
					var got []byte
					got, err = io.ReadAll(io.LimitReader(conn, 1<<10))
					if len(got) > 0 {
						t.Errorf("it got an answer: %q", got)
					}
				}
				if v.alert != "" && (err == nil || !strings.Contains(err.Error(), v.alert)) {
					t.Errorf("%v, want %s", err, v.alert)
				}
				// Nor by resuming what was begun there.
				config.NextProtos = nil
				if cs, err := (&greeter{addr: prog.addr}).visit(t, config); err == nil || cs.DidResume {
					t.Errorf("then: resumed %t, %v", cs.DidResume, err)
				}
				if prog.reached() != before {
					t.Error("the program was reached")
				}
			})
		}
	}
	// A legal client's session doesn't become a validator's, nor its
	// certificate a way in.
	g := greet(t, withTickets())
	config := as(legal)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		if _, err := g.visit(t, config); err != nil {
			t.Fatal(err)
		}
	}
	config.NextProtos = []string{acme.ALPNProto}
	conn, err := tls.Dial("tcp", g.addr, config)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if cs := conn.ConnectionState(); cs.DidResume || !answers(cs) || g.reached.Load() != 2 {
		t.Errorf("resumed %t", cs.DidResume)
	}
	if !strings.Contains(log.String(), "no challenge is pending") {
		t.Errorf("the log has no word of a CA that looked in vain: %s", log)
	}
}

// NoALPN keeps challenges off.
func TestNoALPN(t *testing.T) {
	id := newHouse(t, "Example").identity("web.prod.internal")
	id.noALPN = true
	id.pending(t, "web.prod.internal")
	g := greet(t, id.Server(nil))
	if _, err := tls.Dial("tcp", g.addr, validator("web.prod.internal")); err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Error(err)
	}
}

// One who stays after the handshake is sent away.
func TestValidatorWhoStays(t *testing.T) {
	for _, endless := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			id := newHouse(t, "Example").identity("web.prod.internal")
			id.pending(t, "web.prod.internal")
			here, there := net.Pipe()
			defer here.Close()
			ended := make(chan error, 1)
			go func() {
				err := tls.Server(there, id.Server(nil)).Handshake()
				there.Close()
				ended <- err
			}()
			conn := tls.Client(here, validator("web.prod.internal"))
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			go io.Copy(io.Discard, here)
			for endless {
				if _, err := here.Write(make([]byte, 1<<10)); err != nil {
					break
				}
			}
			if err := <-ended; !errors.Is(err, errChallengeAnswered) {
				t.Error(err)
			}
			if took := time.Since(begun); endless && took != 0 || took > challengeWait {
				t.Errorf("after %s", took)
			}
		})
	}
}

// The certificate shown isn't one the program could be known by.
func TestChallengeCertificateIsOfNoOtherUse(t *testing.T) {
	id := newHouse(t, "Example").identity("web.prod.internal")
	id.pending(t, "web.prod.internal")
	g := greet(t, id.Server(nil))
	conn, err := tls.Dial("tcp", g.addr, validator("web.prod.internal"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	leaf := conn.ConnectionState().PeerCertificates[0]
	roots, _ := id.trust.pool(UsageServer)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err == nil || !slices.Equal(leaf.DNSNames, []string{"web.prod.internal"}) {
		t.Error(leaf.DNSNames, err)
	}
}
