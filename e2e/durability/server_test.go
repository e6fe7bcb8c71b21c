package durability

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// Where things are in a test's own network.
const (
	serverAddr = "127.0.0.1:14000"
	namesAddr  = "127.0.0.1:53"
)

// requestLimit is how long any request may take. The server bounds its work
// on one by 20 seconds; one that takes longer than this hangs.
const requestLimit = 30 * time.Second

// server is a CA in a folder, and the process that serves it: killed and
// started again as often as a test likes.
type server struct {
	w       *harness.World
	dir     string
	address string // it listens at
	log     string
	*process
}

// newServer makes a CA in an empty folder and doesn't start it. An empty dsn
// means SQLite in that folder.
func newServer(w *harness.World, dir, dsn string) *server {
	w.Helper()
	args := []string{"demo", "--json", "--once", "--listen", serverAddr, "--dir", dir,
		"--http-port", "80", "--tls-port", "443", "--resolver", namesAddr, "--allow", "127.0.0.0/8"}
	if dsn != "" {
		args = append(args, "--database", dsn)
	}
	run(w, program("chanceryd"), args...)
	s := &server{w: w, dir: dir, address: serverAddr, log: w.Path("chanceryd.log")}
	s.edit("  level: info", "  level: warn")
	w.Cleanup(func() {
		if s.process != nil {
			s.kill()
		}
		if w.Failed() {
			w.Logf("the server's log:\n%s", tail(s.log))
		}
	})
	return s
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }
func (s *server) config() string          { return s.path("chancery.yaml") }

// edit replaces each line of the configuration that is old.
func (s *server) edit(old, new string) {
	s.w.Helper()
	text := s.w.Read(s.config())
	found := false
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line == old {
			lines[i], found = new, true
		}
	}
	if !found {
		s.w.Fatalf("%s has no line %q:\n%s", s.config(), old, text)
	}
	if err := os.WriteFile(s.config(), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		s.w.Fatal(err)
	}
}

// setting is what the first line "key: value" of the configuration says.
func (s *server) setting(key string) string {
	s.w.Helper()
	for line := range strings.Lines(s.w.Read(s.config())) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+": "); ok {
			return strings.Trim(value, `"`)
		}
	}
	s.w.Fatalf("%s has no %s", s.config(), key)
	return ""
}

// postgres reports whether the database is PostgreSQL.
func (s *server) postgres() bool {
	return strings.Contains(s.w.Read(s.config()), `dsn: "postgres://`)
}

// metrics is the address of the listener for metrics and health.
func (s *server) metrics() string {
	s.w.Helper()
	_, after, ok := strings.Cut(s.w.Read(s.config()), "\nmetrics:\n  listen: \"")
	address, _, end := strings.Cut(after, "\"\n")
	if !ok || !end {
		s.w.Fatalf("%s has no metrics listener", s.config())
	}
	return address
}

// spawn starts the process and doesn't wait for anything.
func (s *server) spawn() {
	s.w.Helper()
	s.process = spawn(s.w, s.log, nil, program("chanceryd"), "serve", s.config())
}

// start starts it and waits until it listens.
func (s *server) start() {
	s.w.Helper()
	s.spawn()
	until(s.w, startLimit, "the server listens", func() bool {
		if s.ended() {
			s.w.Fatalf("the server ended instead of starting: %v\n%s", s.err, s.output())
		}
		return listens("tcp", s.address) && listens("unix", s.path("admin.sock"))
	})
}

// stop ends it gracefully and wants exit code 0.
func (s *server) stop() {
	s.w.Helper()
	s.signal(os.Interrupt)
	if code := s.wait(stopLimit); code != 0 {
		s.w.Fatalf("the server ended with code %d\n%s", code, s.output())
	}
}

// directory is the URL of the directory of that name.
func (s *server) directory(name string) string {
	return s.setting("external_url") + "/acme/" + name + "/directory"
}

// roots holds the CA's root.
func (s *server) roots() *x509.CertPool {
	s.w.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(s.w.Read(s.path("root/root.pem")))) {
		s.w.Fatal("no root")
	}
	return pool
}

// client is an HTTP client of the server, with connections of its own. With
// an address it connects there, whatever the URL says.
func (s *server) client(address string) *http.Client {
	s.w.Helper()
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots(), MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 32}
	if address != "" {
		var d net.Dialer
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, address)
		}
	}
	return &http.Client{Transport: t, Timeout: requestLimit}
}

// admin asks the admin API; in and out are JSON, either may be nil.
func (s *server) admin(method, path string, query url.Values, in, out any) {
	s.w.Helper()
	var d net.Dialer
	c := &http.Client{Timeout: requestLimit, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", s.path("admin.sock"))
		},
		DisableKeepAlives: true,
	}}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			s.w.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(s.w.Context(), method, "http://admin"+path+"?"+query.Encode(), body)
	if err != nil {
		s.w.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		s.w.Fatalf("admin API: %v", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.w.Fatalf("admin API: %s %s: %s %v\n%s", method, path, res.Status, err, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			s.w.Fatal(err)
		}
	}
}

// page is what the admin API's listings answer.
type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"`
}

// list reads all pages of a listing.
func list[T any](s *server, path string, query url.Values) []T {
	s.w.Helper()
	q := url.Values{"limit": {"1000"}}
	for k, v := range query {
		q[k] = v
	}
	var all []T
	for {
		var p page[T]
		s.admin(http.MethodGet, path, q, nil, &p)
		all = append(all, p.Items...)
		if p.Next == "" {
			return all
		}
		q.Set("after", p.Next)
	}
}

// certificate and auditEntry are the parts of the admin API's objects that
// the tests look at.
type certificate struct {
	Serial, State, Account, Order, Chain string
}

type auditEntry struct {
	Action, Object, Denied string
}

// census compares what the CA itself has recorded: the audit chain holds, and
// tells of the issuance of exactly the certificates that there are, each
// once, no two for one order, and none left planned. (One that the server
// makes for itself at its start has no order; killed in between, it leaves a
// plan that nobody waits for.) It returns the certificates by order.
func (s *server) census(t testing.TB) map[string]certificate {
	t.Helper()
	// PostgreSQL chains audit entries a moment after they are written, or when
	// the lease of the replica that did so before it was killed has ended.
	for end := time.Now().Add(45 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		byOrder, missing := s.count(t)
		if missing == "" {
			run(s.w, program("chancery"), "admin", "--socket", s.path("admin.sock"), "audit", "verify")
			return byOrder
		}
		if time.Now().After(end) {
			t.Fatal(missing)
		}
	}
}

// count is one look of census; missing says what may still come.
func (s *server) count(t testing.TB) (byOrder map[string]certificate, missing string) {
	t.Helper()
	certificates := list[certificate](s, "/v1/certificates", nil)
	logged := map[string]int{}
	for _, e := range list[auditEntry](s, "/v1/audit", url.Values{"action": {"certificate.issue"}}) {
		if e.Denied == "" {
			logged[e.Object]++
		}
		if logged[e.Object] > 1 {
			t.Fatalf("certificate %s was issued twice, the audit log says", e.Object)
		}
	}
	carried := map[string]bool{} // by a restore, from the database that was there
	for _, e := range list[auditEntry](s, "/v1/audit", url.Values{"action": {"restore.carry"}}) {
		carried[e.Object] = true
	}
	byOrder = map[string]certificate{}
	for _, c := range certificates {
		if c.State != "issued" {
			if c.Order != "" {
				missing = "certificate " + c.Serial + " is still " + c.State
			}
			continue
		}
		if logged[c.Serial] != 1 && !carried[c.Serial] {
			missing = "the audit log has nothing about the issued certificate " + c.Serial
		}
		delete(logged, c.Serial)
		if c.Order == "" {
			continue
		}
		if other, ok := byOrder[c.Order]; ok {
			t.Fatalf("order %s has two certificates: %s and %s", c.Order, other.Serial, c.Serial)
		}
		byOrder[c.Order] = c
	}
	for serial := range logged {
		missing = "the audit log tells of certificate " + serial + ", which there isn't"
	}
	return byOrder, missing
}
