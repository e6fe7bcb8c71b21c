package admin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// authority is an issuing CA whose certificates the database knows.
type authority struct {
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root, err := issuer.NewRoot(k, issuer.CA{CommonName: name, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return &authority{name, root, k}
}

// holder is what a certificate is to be.
type holder struct {
	profile, name, subject string
	usage                  x509.ExtKeyUsage
	life                   time.Duration
	unknown                bool // to the database
}

// issue makes a certificate and the record of it.
func (a *authority) issue(t *testing.T, db *store.DB, h holder) tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now, serial := time.Now(), cert.NewSerial()
	template := &x509.Certificate{
		SerialNumber: serial.Big(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(h.life), DNSNames: []string{h.name},
		ExtKeyUsage: []x509.ExtKeyUsage{h.usage}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if !h.unknown {
		err = db.Update(t.Context(), func(tx *store.Tx) error {
			return tx.InsertCertificate(cert.Certificate{
				Serial: serial, State: cert.Issued, Issuer: a.name, Profile: h.profile, DER: der, Subject: h.subject,
				Names:     []protocol.Identifier{{Type: protocol.DNS, Value: h.name}},
				NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, PlannedAt: now,
			}, time.Time{})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
}

// remote is the API over TLS.
type remote struct {
	t      *testing.T
	db     *store.DB
	url    string
	roots  *x509.CertPool
	people *authority
	access atomic.Pointer[Access]
	device string       // an enrolled device
	ahead  atomic.Int64 // of the real clock, for the gate
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	s, db := newServer(t)
	r := &remote{t: t, db: db, people: newAuthority(t, "people"), roots: x509.NewCertPool()}
	servers := newAuthority(t, "servers")
	r.roots.AddCert(servers.cert)
	own := servers.issue(t, db, holder{"servers", "127.0.0.1", "", x509.ExtKeyUsageServerAuth, time.Hour, false})
	d := protocol.Device{ID: "d1", Owner: "alice", State: protocol.DeviceActive, Key: []byte{1}, KeyHash: strings.Repeat("ab", 32), Serial: 1, Slot: "9a", EnrolledAt: time.Now(),
		Identities: protocol.Identities{Names: []string{"alice.internal", "bob.internal"}}}
	if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertDevice(d) }); err != nil {
		t.Fatal(err)
	}
	r.device = d.Subject()
	r.grant(
		operator.Grant{Issuer: "people", Profile: "operators", Name: "alice.internal", Role: operator.Administrator},
		operator.Grant{Issuer: "people", Profile: "operators", Name: "bob.internal", Role: operator.Auditor},
	)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := s.TLSServer(operator.NewGate(db, func() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }), func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &own, nil }, func() Access { return *r.access.Load() })
	go server.ServeTLS(Bound(l), "", "")
	t.Cleanup(func() { server.Close() })
	r.url = "https://" + l.Addr().String()
	return r
}

func (r *remote) grant(grants ...operator.Grant) {
	a := Access{Grants: grants, Issuers: x509.NewCertPool()}
	a.Issuers.AddCert(r.people.cert)
	r.access.Store(&a)
}

// operator is a certificate as yubikey-01 brings them.
func (r *remote) operator(name string) tls.Certificate {
	r.t.Helper()
	return r.people.issue(r.t, r.db, holder{"operators", name, r.device, x509.ExtKeyUsageClientAuth, time.Hour, false})
}

// client keeps its connection; so one is closed only by the server.
func (r *remote) client(certificates ...tls.Certificate) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: r.roots, ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS13, InsecureSkipVerify: true, // the names aren't the matter here
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certificates) == 0 {
				return &tls.Certificate{}, nil
			}
			return &certificates[0], nil // also one that the server didn't ask for
		},
	}}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// get returns the status of an answer and, for a problem, its detail.
func (r *remote) get(c *http.Client, method, path, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var p api.Problem
	if json.Unmarshal(data, &p); p.Status != 0 {
		return resp.StatusCode, p.Detail
	}
	return resp.StatusCode, string(data)
}

// Operators get in by their certificates and do what their roles may.
func TestOperatorsOverTLS(t *testing.T) {
	r := newRemote(t)
	alice := r.client(r.operator("alice.internal"))
	if status, said := r.get(alice, "GET", "/v1/status", ""); status != 200 || !strings.Contains(said, `"version":"test"`) {
		t.Errorf("%d %s", status, said)
	}
	if status, said := r.get(alice, "POST", "/v1/eab-keys", `{"directory":"main"}`); status != 200 {
		t.Errorf("%d %s", status, said)
	}
	bob := r.client(r.operator("bob.internal"))
	if status, said := r.get(bob, "GET", "/v1/eab-keys", ""); status != 200 {
		t.Errorf("%d %s", status, said)
	}
	if status, said := r.get(bob, "POST", "/v1/eab-keys", `{"directory":"main"}`); status != 403 || said != `role "auditor" may not do eab.create` {
		t.Errorf("%d %s", status, said)
	}
	found, err := r.db.AuditEntries(t.Context(), store.AuditFilter{Action: "eab.create"})
	if err != nil || len(found) != 2 {
		t.Fatalf("%+v, %v", found, err)
	}
	for i, name := range []string{"alice", "bob"} {
		e := found[i].Entry
		if e.Actor != "operator:people/operators/"+name+".internal" || e.Peer != "127.0.0.1" || e.Detail["operator_certificate"] == "" {
			t.Errorf("%+v", e)
		}
	}
	resp, err := alice.Post(r.url+"/v1/backup", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.Trailer.Get(BackupTrailer) != "whole" || !bytes.Contains(body, []byte("chancery dump")) {
		t.Errorf("a backup of %d bytes, %v, %v", len(body), resp.Trailer, err)
	}
}

// A page of another site can't act through an operator's browser, which has the
// certificate.
func TestOtherSites(t *testing.T) {
	r := newRemote(t)
	alice := r.client(r.operator("alice.internal"))
	for _, c := range []struct {
		header, value string
		status        int
	}{
		{"Sec-Fetch-Site", "cross-site", 403}, {"Sec-Fetch-Site", "same-site", 403}, {"Origin", "https://evil.example", 403}, {"Origin", "null", 403},
		{"Sec-Fetch-Site", "none", 200}, {"User-Agent", "chancery", 200},
	} {
		req, err := http.NewRequest("POST", r.url+"/v1/eab-keys", strings.NewReader(`{"directory":"main"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/plain") // as a form may without being asked
		req.Header.Set(c.header, c.value)
		resp, err := alice.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %d", c.header, c.value, resp.StatusCode)
		}
	}
	made, err := r.db.AuditEntries(t.Context(), store.AuditFilter{Action: "eab.create"})
	refused, err2 := r.db.AuditEntries(t.Context(), store.AuditFilter{Action: "operator.identify"})
	if err != nil || err2 != nil || len(made) != 2 || len(refused) != 1 || !strings.Contains(refused[0].Entry.Denied, "cross-origin") {
		t.Errorf("%d made, %+v, %v, %v", len(made), refused, err, err2)
	}
}

// Whoever else comes: no handler sees them, and they learn nothing.
func TestStrangersOverTLS(t *testing.T) {
	r := newRemote(t)
	other := newAuthority(t, "people") // another CA of that name
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for _, c := range []struct {
		name        string
		certificate []tls.Certificate
		shut        bool // the handshake fails
	}{
		{"no certificate", nil, true},
		{"another CA", []tls.Certificate{other.issue(t, r.db, holder{"operators", "alice.internal", r.device, client, time.Hour, false})}, true},
		{"a server's certificate", []tls.Certificate{r.people.issue(t, r.db, holder{"operators", "alice.internal", r.device, server, time.Hour, false})}, true},
		{"expired", []tls.Certificate{r.people.issue(t, r.db, holder{"operators", "alice.internal", r.device, client, -time.Second, false})}, true},
		{"another profile", []tls.Certificate{r.people.issue(t, r.db, holder{"clients", "alice.internal", r.device, client, time.Hour, false})}, false},
		{"without a security key", []tls.Certificate{r.people.issue(t, r.db, holder{"operators", "alice.internal", "", client, time.Hour, false})}, false},
		{"another name", []tls.Certificate{r.operator("carol.internal")}, false},
		{"without a record", []tls.Certificate{r.people.issue(t, r.db, holder{"operators", "alice.internal", r.device, client, time.Hour, true})}, false},
	} {
		status, said := r.get(r.client(c.certificate...), "GET", "/v1/status", "")
		if c.shut && (status != 0 || !strings.Contains(said, "remote error: tls")) || !c.shut && (status != 403 || said != "this certificate is not an operator's") {
			t.Errorf("%s: %d %s", c.name, status, said)
		}
		if status, said := r.get(r.client(c.certificate...), "GET", "/v2", ""); !c.shut && (status != 403 || said != "this certificate is not an operator's") {
			t.Errorf("%s is told what paths there are: %d %s", c.name, status, said)
		}
	}
	if found, err := r.db.AuditEntries(t.Context(), store.AuditFilter{Action: "status.show"}); err != nil || len(found) != 0 {
		t.Errorf("a handler was reached: %+v, %v", found, err)
	}
	if found, err := r.db.AuditEntries(t.Context(), store.AuditFilter{Action: "operator.identify"}); err != nil || len(found) != 4 {
		t.Errorf("%d refusals audited, %v", len(found), err)
	}
	c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		c.Close()
		t.Error("TLS 1.2 was taken")
	}
}

// reused makes a request and reports whether its connection was used before.
func (r *remote) reused(c *http.Client) (status int, reused bool) {
	r.t.Helper()
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(r.t.Context(), trace), "GET", r.url+"/v1/status", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, reused
}

// What ends while a connection is open ends at its next request: a revoked
// certificate, one that expires, one that a reload makes nobody's.
func TestOpenConnections(t *testing.T) {
	r := newRemote(t)
	revoked, dropped := r.operator("alice.internal"), r.operator("bob.internal")
	clients := []*http.Client{r.client(revoked), r.client(dropped), r.client(r.operator("alice.internal"))}
	for i, c := range clients {
		if status, _ := r.reused(c); status != 200 {
			t.Fatalf("%d: %d", i, status)
		}
	}
	err := r.db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.RevokeCertificate(cert.SerialOf(revoked.Leaf.SerialNumber), cert.Revoked{At: time.Now()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.grant(operator.Grant{Issuer: "people", Profile: "operators", Name: "alice.internal", Role: operator.Administrator})
	want := []int{403, 403, 200}
	for i, c := range clients {
		if status, reused := r.reused(c); status != want[i] || !reused {
			t.Errorf("%d: %d, on the same connection: %v", i, status, reused)
		}
	}
	r.ahead.Store(int64(2 * time.Hour))
	if status, reused := r.reused(clients[2]); status != 403 || !reused {
		t.Errorf("an expired certificate: %d, on the same connection: %v", status, reused)
	}
}

// Many operators at once, while the configuration changes.
func TestConcurrentOperators(t *testing.T) {
	r := newRemote(t)
	alice := r.operator("alice.internal")
	grants := r.access.Load().Grants
	var group sync.WaitGroup
	for range 8 {
		c := r.client(alice)
		group.Go(func() {
			for i := range 10 {
				if status, said := r.get(c, "GET", "/v1/accounts?limit="+strconv.Itoa(i+1), ""); status != 200 {
					t.Errorf("%d %s", status, said)
				}
			}
		})
	}
	for range 20 {
		r.grant(grants...)
	}
	group.Wait()
}

// A writer of an answer that is taken slowly gets its time; it is never lost.
func TestPatient(t *testing.T) {
	var b bytes.Buffer
	if n, err := (patient{plainWriter{&b}}).Write([]byte("abc")); n != 3 || err != nil || b.String() != "abc" {
		t.Errorf("%d, %v, %q", n, err, b.String())
	}
}

type plainWriter struct{ io.Writer }

func (plainWriter) Header() http.Header { return nil }
func (plainWriter) WriteHeader(int)     {}

// An operator's name is nobody else's to give; a reporting host's is.
func TestReserved(t *testing.T) {
	a := Access{Grants: []operator.Grant{{Name: "Alice.People.Internal", Role: operator.Auditor}, {Name: "web.internal", Role: operator.Reporter}}}
	for name, want := range map[string]bool{"alice.people.internal": true, "web.internal": false, "people.internal": false, "": false} {
		if a.Reserved(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
