package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/sshagent/sshdtest"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// TestSSH runs testdata/ssh/*.txtar with a real sshd and two CAs, east and west,
// of which only the SSH part and some of the admin API are there. Beside
// testscript's own commands there are
//
//	away CA, back CA    makes a CA's admin API answer nothing, and again
//	sightings CA        prints what was reported to a CA
//	later FILE REGEXP   waits until a file has something
func TestSSH(t *testing.T) {
	s := sshdtest.Start(t, "Include %D/conf.d/*.conf")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/ssh",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SSHD", s.Dir)
			e.Setenv("SSHD_PID", fmt.Sprint(s.Pid()))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			return addSSHCAs(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"away":      func(ts *testscript.TestScript, _ bool, args []string) { ts.Value(args[0]).(*sshCA).set(true) },
			"back":      func(ts *testscript.TestScript, _ bool, args []string) { ts.Value(args[0]).(*sshCA).set(false) },
			"sightings": sightings,
			"later":     later,
			"usage":     usage,
		},
	})
}

func sightings(ts *testscript.TestScript, _ bool, args []string) {
	ca := ts.Value(args[0]).(*sshCA)
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, s := range ca.seen {
		fmt.Fprintln(ts.Stdout(), s)
	}
}

func later(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		data, _ := os.ReadFile(ts.MkAbs(args[0])) // it comes later
		if strings.Contains(string(data), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s has no %q: %q", args[0], args[1], data)
		}
	}
}

// sshCA is what the SSH verbs see of a CA.
type sshCA struct {
	user, host ed25519.PrivateKey
	socket     string
	url        string

	mu      sync.Mutex
	away    bool
	watched map[string]api.WatchedKey
	seen    []string
}

func (c *sshCA) set(away bool) { c.mu.Lock(); defer c.mu.Unlock(); c.away = away }

func addSSHCAs(e *testscript.Env) error {
	dir, err := os.MkdirTemp("", "chancery-") // $WORK is too long for a socket
	if err != nil {
		return err
	}
	e.Defer(func() { os.RemoveAll(dir) })
	var text strings.Builder
	text.WriteString("cas:\n")
	for _, name := range []string{"east", "west"} {
		ca := &sshCA{socket: filepath.Join(dir, name), watched: map[string]api.WatchedKey{}}
		_, ca.user, _ = ed25519.GenerateKey(rand.Reader)
		_, ca.host, _ = ed25519.GenerateKey(rand.Reader)
		roots := filepath.Join(e.WorkDir, name+".pem")
		if err := ca.start(e, roots); err != nil {
			return err
		}
		e.Values[name] = ca
		e.Setenv(strings.ToUpper(name), ca.url)
		fmt.Fprintf(&text, "  - {name: %s, directory: %q, roots: %q, admin: \"unix:%s\"}\n", name, ca.url, roots, ca.socket)
	}
	if err := os.WriteFile(filepath.Join(e.WorkDir, "other.pem"), []byte(statement()), 0o600); err != nil {
		return err
	}
	settings := filepath.Join(e.WorkDir, "config", "chancery", "config.yaml")
	if err := os.MkdirAll(filepath.Dir(settings), 0o700); err != nil {
		return err
	}
	return os.WriteFile(settings, []byte(text.String()), 0o600)
}

func publicLine(key ed25519.PrivateKey) string {
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
}

// start serves the directory and the KRL over TLS, the admin API on the socket.
func (c *sshCA) start(e *testscript.Env, roots string) error {
	authority, err := sshca.NewAuthority(c.user.Public())
	if err != nil {
		return err
	}
	krl, err := sshca.BuildKRL(sshca.Revocations{Version: 1, Generated: time.Now()})
	if err != nil {
		return err
	}
	sig, err := authority.SignKRL(krl, func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return c.user.Sign(rand.Reader, digest, opts)
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	e.Defer(server.Close)
	c.url = server.URL + "/directory"
	mux.HandleFunc("/directory", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(acme.Directory{NewNonce: server.URL + "/n", NewAccount: server.URL + "/a", NewOrder: server.URL + "/o",
			Meta: acme.Meta{SSH: &acme.SSH{UserKeys: []string{publicLine(c.user)}, HostKeys: []string{publicLine(c.host)}, KRL: server.URL + "/krl"}}})
	})
	mux.HandleFunc("/krl", func(w http.ResponseWriter, _ *http.Request) { w.Write(krl) })
	mux.HandleFunc("/krl.sig", func(w http.ResponseWriter, _ *http.Request) { w.Write(sig) })
	l, err := net.Listen("unix", c.socket)
	if err != nil {
		return err
	}
	admin := &http.Server{Handler: c.admin()}
	go admin.Serve(l)
	e.Defer(func() { admin.Close() })
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	return os.WriteFile(roots, pem.EncodeToMemory(block), 0o600)
}

// admin is the part of the admin API that the SSH verbs call.
func (c *sshCA) admin() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(*http.Request) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c.mu.Lock()
			defer c.mu.Unlock()
			var answer any = &api.Problem{Status: 503, Detail: "away"}
			if !c.away {
				answer = do(r)
			}
			if p, ok := answer.(*api.Problem); ok {
				w.WriteHeader(p.Status)
			}
			json.NewEncoder(w).Encode(answer)
		})
	}
	handle("GET /v1/watched-keys", func(*http.Request) any {
		l := api.List[api.WatchedKey]{Items: []api.WatchedKey{}}
		for _, k := range c.watched {
			l.Items = append(l.Items, k)
		}
		return l
	})
	handle("POST /v1/watched-keys", func(r *http.Request) any {
		var k api.WatchedKey
		json.NewDecoder(r.Body).Decode(&k)
		if _, ok := c.watched[k.Fingerprint]; ok {
			return &api.Problem{Status: 409, Detail: "watched already"}
		}
		c.watched[k.Fingerprint] = k
		return k
	})
	of := func(r *http.Request) string {
		print, _ := base64.RawURLEncoding.DecodeString(r.PathValue("fingerprint"))
		return string(print)
	}
	handle("POST /v1/watched-keys/{fingerprint}/forget", func(r *http.Request) any {
		if _, ok := c.watched[of(r)]; !ok {
			return &api.Problem{Status: 404, Detail: "not watched"}
		}
		delete(c.watched, of(r))
		return struct{}{}
	})
	handle("POST /v1/watched-keys/{fingerprint}/sightings", func(r *http.Request) any {
		var s api.Sighting
		json.NewDecoder(r.Body).Decode(&s)
		c.seen = append(c.seen, fmt.Sprintf("%s %s %s %s", of(r), s.Host, s.User, s.From))
		return struct{}{}
	})
	device := api.Device{ID: "d1", Owner: "alice", State: "active", Serial: 4711, Slot: "9a"}
	handle("GET /v1/devices", func(r *http.Request) any {
		l := api.List[api.Device]{Items: []api.Device{}}
		if r.FormValue("owner") == "alice" && r.FormValue("state") == "active" {
			l.Items = append(l.Items, device)
		}
		return l
	})
	handle("GET /v1/devices/d1", func(*http.Request) any {
		d := device
		d.Attestation = statement()
		return d
	})
	return mux
}

// statement is the one attestation of both CAs.
var statement = sync.OnceValue(func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "YubiKey PIV Attestation 9a"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
})

// The listeners that answer challenges do so, and end with the command.
func TestProofListeners(t *testing.T) {
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	end := new(ending)
	p := proofFlags{HTTP: free(), TLSALPN: free(), DNSHook: "true", Token: "token"}
	all, err := p.solvers(end)
	if err != nil || len(all) != 4 {
		t.Fatal(all, err)
	}
	proof := acme.Proof{
		Authorization: acme.Authorization{Identifier: acme.Identifier{Type: "dns", Value: "web.example"}},
		Challenge:     acme.Challenge{Token: "tok"}, KeyAuthorization: "tok.thumb",
	}
	for _, s := range all[:2] {
		if _, err := s.Present(t.Context(), proof); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.Get("http://" + p.HTTP + acme.HTTP01Path("tok"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "tok.thumb" {
		t.Errorf("%q, %v", body, err)
	}
	conn, err := tls.Dial("tcp", p.TLSALPN, &tls.Config{ServerName: "web.example", NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s := conn.ConnectionState(); s.NegotiatedProtocol != acme.ALPNProto || len(s.PeerCertificates) != 1 || s.PeerCertificates[0].DNSNames[0] != "web.example" {
		t.Errorf("negotiated %q", s.NegotiatedProtocol)
	}
	end.run()
	if _, err := http.Get("http://" + p.HTTP); err == nil {
		t.Error("it still listens")
	}
}
