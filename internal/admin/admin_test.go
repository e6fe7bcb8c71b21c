package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/store"
)

func newServer(t *testing.T) (*Server, *store.DB) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{DSN: filepath.Join(t.TempDir(), "ca.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	authority := ca.New(ca.Options{DB: db, Directories: map[string]*ca.Directory{"main": {Policy: policy.Directory{Name: "main"}}}})
	return &Server{Console: operator.New(authority, db, nil), Version: "test", Logger: slog.New(slog.DiscardHandler)}, db
}

// serve runs the API on its socket and returns a client.
func serve(t *testing.T, s *Server) (string, *http.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin-") // a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "admin.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := s.HTTPServer()
	go server.Serve(l)
	t.Cleanup(func() { server.Close(); os.RemoveAll(dir) })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return path, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
}

// The socket is its owner's only; what is in its way is replaced only when it
// is a dead server's.
func TestListen(t *testing.T) {
	s, _ := newServer(t)
	path, c := serve(t, s)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("over a living server: %v", err)
	}
	if resp, err := c.Get("http://admin/v1/status"); err != nil || resp.StatusCode != 200 {
		t.Errorf("the living server: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
	dead := filepath.Join(filepath.Dir(path), "dead.sock")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	l, err = Listen(dead)
	if err != nil {
		t.Fatal("over a dead server's:", err)
	}
	if l.Addr().String() != dead {
		t.Errorf("it says it is at %s", l.Addr())
	}
	l.Close()
	if _, err := os.Lstat(dead); err == nil {
		t.Error("the socket is left")
	}
}

// Who calls is the kernel's word (SO_PEERCRED); nobody else is anybody.
func TestCallers(t *testing.T) {
	s, db := newServer(t)
	_, c := serve(t, s)
	resp, err := c.Get("http://admin/v1/status")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	found, err := db.AuditEntries(t.Context(), store.AuditFilter{})
	if want := "operator:uid:" + strconv.Itoa(os.Getuid()); err != nil || len(found) != 1 || found[0].Entry.Actor != want {
		t.Errorf("%+v, %v; want %s", found, err, want)
	}
	for _, pattern := range []string{
		"GET /v1/status", "GET /v1/signing", "GET /v1/eab-keys", "POST /v1/eab-keys", "POST /v1/eab-keys/x/revoke", "GET /v1/accounts", "GET /v1/accounts/x",
		"POST /v1/accounts/x/revoke", "GET /v1/certificates", "GET /v1/certificates/00", "POST /v1/certificates/00/revoke", "GET /v1/audit",
		"POST /v1/audit/verify", "POST /v1/backup", "GET /v1/devices", "POST /v1/devices", "GET /v1/devices/x", "POST /v1/devices/x/identities",
		"POST /v1/devices/x/retire", "POST /v1/devices/x/lost", "POST /v1/people/x/revoke", "GET /v1/advisories", "POST /v1/advisories",
		"POST /v1/advisories/x/withdraw", "GET /v1/watched-keys", "POST /v1/watched-keys", "POST /v1/watched-keys/eA/forget", "POST /v1/watched-keys/eA/sightings",
	} {
		method, path, _ := strings.Cut(pattern, " ")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("{}"))) // over no socket of ours
		var p api.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 403 || p.Status != 403 || !strings.HasSuffix(p.Type, ":unauthorized") {
			t.Errorf("%s: %d %s", pattern, w.Code, w.Body)
		}
	}
	tcp, _ := net.Pipe()
	if who := caller(tcp); who.Role != "" {
		t.Errorf("%+v", who)
	}
}

// Bad requests get a problem that says what is wrong.
func TestMistakes(t *testing.T) {
	s, _ := newServer(t)
	_, c := serve(t, s)
	for _, tt := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/v1/eab-keys", "", 400, "request body"},
		{"POST", "/v1/eab-keys", "{", 400, "request body"},
		{"POST", "/v1/eab-keys", `{"colour":"blue"}`, 400, "colour"},
		{"POST", "/v1/eab-keys", `{"directory":"main"}{}`, 400, "more after"},
		{"POST", "/v1/eab-keys", `{"directory":"main","accounts":-1}`, 400, "accounts"},
		{"POST", "/v1/eab-keys", `{"directory":"` + strings.Repeat("x", maxBody) + `"}`, 400, "request body"},
		{"POST", "/v1/certificates/zz/revoke", `{"reason":0}`, 400, "serial"},
		{"GET", "/v1/certificates/00", "", 404, "no such certificate"},
		{"GET", "/v1/certificates?key=xyz", "", 400, "hexadecimal"},
		{"GET", "/v1/certificates?after=0", "", 400, "hexadecimal"},
		{"GET", "/v1/certificates?revoked=perhaps", "", 400, "true or false"},
		{"GET", "/v1/certificates?expires_before=tomorrow", "", 400, "a time like"},
		{"GET", "/v1/accounts?limit=1001", "", 400, "1 to 1000"},
		{"GET", "/v1/accounts?limit=x", "", 400, "a number"},
		{"GET", "/v1/audit?after=-1", "", 400, "a number"},
		{"GET", "/v1/certificates?format=pgp", "", 400, "x509 or ssh"},
		{"GET", "/v1/certificates?full=perhaps", "", 400, "true or false"},
		{"GET", "/v1/devices?state=stolen", "", 400, "active, retired or lost"},
		{"GET", "/v1/devices/4711", "", 404, "no such device"},
		{"POST", "/v1/devices", `{"owner":"alice","max_lifetime":-1}`, 400, "max_lifetime"},
		{"POST", "/v1/devices", `{"owner":"alice","max_lifetime":1e300}`, 400, "max_lifetime"},
		{"POST", "/v1/devices", `{"owner":"alice","possession":"%"}`, 400, "request body"},
		{"POST", "/v1/devices", `{"owner":"alice"}`, 400, "attestation"},
		{"POST", "/v1/devices/x/identities", `{"max_lifetime":-1}`, 400, "max_lifetime"},
		{"POST", "/v1/devices/x/identities", `{}`, 404, "no such device"},
		{"POST", "/v1/devices/x/retire?revoke=perhaps", "", 400, "true or false"},
		{"POST", "/v1/devices/x/retire", "", 404, "no such device"},
		{"POST", "/v1/devices/x/lost", "", 404, "no such device"},
		{"POST", "/v1/people/alice/revoke", `{"reason":2}`, 400, "reason 2"},
		{"POST", "/v1/people/alice/revoke", `{"reason":0}`, 404, "no device of"},
		{"POST", "/v1/advisories", `{"id":"x","first":"5","last":"6"}`, 400, "firmware"},
		{"POST", "/v1/advisories/x/withdraw", "", 404, "no such advisory"},
		{"POST", "/v1/watched-keys", `{"fingerprint":"x"}`, 400, "fingerprint"},
		{"POST", "/v1/watched-keys/%25/forget", "", 400, "base64url"},
		{"POST", "/v1/watched-keys/eA/forget", "", 404, "no such watched key"},
		{"POST", "/v1/watched-keys/eA/sightings", `{}`, 404, "no such watched key"},
		{"GET", "/v2/status", "", 404, "there is no GET /v2/status"},
		{"DELETE", "/v1/accounts/x", "", 404, "there is no DELETE"},
	} {
		req, err := http.NewRequest(tt.method, "http://admin"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p api.Problem
		err = json.NewDecoder(resp.Body).Decode(&p)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tt.status || p.Status != tt.status || !strings.Contains(p.Detail, tt.says) ||
			resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %+v, %v", tt.method, tt.path, resp.StatusCode, p, err)
		}
	}
}

// A backup says at its end whether it is whole; the server's own trouble is
// not shown to callers.
func TestBackup(t *testing.T) {
	s, db := newServer(t)
	_, c := serve(t, s)
	resp, err := c.Post("http://admin/v1/backup", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Trailer.Get(BackupTrailer) != "whole" || !strings.Contains(string(body), "chancery dump") {
		t.Errorf("%d bytes, %v, %v", len(body), resp.Trailer, err)
	}
	db.Close()
	if resp, err = c.Post("http://admin/v1/backup", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(io.Discard, resp.Body); err == nil && resp.Trailer.Get(BackupTrailer) != "" {
		t.Error("a backup of nothing is called whole")
	}
	if resp, err = c.Get("http://admin/v1/status"); err != nil {
		t.Fatal(err)
	}
	body, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 500 || !strings.Contains(string(body), "its log says why") || strings.Contains(string(body), "sql") {
		t.Errorf("%d %s, %v", resp.StatusCode, body, err)
	}
}
