package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// fileSigner is the signer of the issuer for servers that init made.
const fileSigner = "      - key: \"file:ca/servers.key\"\n        certificate: \"ca/servers.pem\"\n"

// cardTime is what one signature takes on the tokens here.
const cardTime = 200 * time.Millisecond

// caCreate makes a CA certificate for a key under the site's root, and returns
// the lines of the configuration for the signer.
func (s *site) caCreate(name, uri, pinFile string, options ...string) string {
	s.w.Helper()
	args := append([]string{"ca", "create", "--key", uri, "--name", "E2E Server CA " + name, "--usage", "server", "--out", s.dir + "/ca/" + name + ".pem"},
		s.byRoot()...)
	lines := fmt.Sprintf("      - key: %q\n        certificate: \"ca/%s.pem\"\n", uri, name)
	if pinFile != "" {
		args = append(args, "--pin-file", pinFile)
		lines += fmt.Sprintf("        pin_file: %q\n", pinFile)
	}
	s.w.Run(s.w.Tool("chanceryd"), append(args, options...)...)
	return lines
}

// byRoot are the options that have the site's root sign.
func (s *site) byRoot() []string {
	return []string{"--parent", s.dir + "/root/root.pem", "--parent-key", "file:" + s.dir + "/root/root.key", "--parent-password-file", s.passphrase}
}

// crowd is many clients that order all the time.
type crowd struct {
	s      *site
	end    chan struct{}
	finish func() // waits for the orders under way
	all    sync.WaitGroup

	mu    sync.Mutex
	files []string          // leafs
	above map[string]string // issuers' names, and their files
	by    map[string]int    // certificates by their issuer's name
	worst time.Duration     // of an order
}

// crowd starts n clients, each with an account of its own.
func (r *replica) crowd(n int) *crowd {
	r.w.Helper()
	c := &crowd{s: r.site, end: make(chan struct{}), above: map[string]string{}, by: map[string]int{}}
	c.finish = sync.OnceFunc(func() {
		close(c.end)
		c.all.Wait()
	})
	r.w.Cleanup(c.finish) // before the server is stopped
	r.site.responder()
	for i := range n {
		account := r.account()
		c.all.Go(func() {
			for {
				select {
				case <-c.end:
					return
				default:
					c.order(account, fmt.Sprintf("client-%d.test", i))
				}
			}
		})
	}
	return c
}

// order gets one certificate; that none comes fails the test.
func (c *crowd) order(account *acme.Client, name string) {
	start := time.Now()
	i, err := c.s.tryObtain(account, acme.OrderRequest{Identifiers: acme.Identifiers(name)})
	if err != nil {
		c.s.w.Errorf("an order of %s is lost: %v", name, err)
		time.Sleep(time.Second)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	by := strings.TrimPrefix(i.issuer.Subject.CommonName, "E2E Server CA ")
	c.files, c.above[by] = append(c.files, i.file), i.issuerFile
	c.by[by]++
	c.worst = max(c.worst, time.Since(start))
}

// signed is how many certificates there are so far, by who signed them.
func (c *crowd) signed() (by map[string]int, sum int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.by), len(c.files)
}

// more waits until n more certificates have come.
func (c *crowd) more(r *replica, n int) {
	r.w.Helper()
	_, before := c.signed()
	r.Until(fmt.Sprintf("%d more certificates", n), func() bool {
		_, sum := c.signed()
		return sum >= before+n
	})
}

// stop ends the ordering, and has OpenSSL verify all that came of it.
func (c *crowd) stop() {
	w := c.s.w
	w.Helper()
	c.finish()
	args := []string{"verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", c.s.root}
	for _, file := range c.above {
		args = append(args, "-untrusted", file)
	}
	if n := strings.Count(w.Run("openssl", append(args, c.files...)...), ": OK"); n != len(c.files) {
		w.Errorf("openssl verifies %d of %d certificates", n, len(c.files))
	}
	w.Logf("%d certificates: %v; the longest wait was %v", len(c.files), c.by, c.worst.Round(time.Millisecond))
}

// listedKey is what `chanceryd ca list --json` says of a CA certificate.
type listedKey struct {
	Issuer, Subject, State string
	KeyID                  string `json:"key_id"`
	Keys                   []string
	DaysLeft               int `json:"days_left"`
	Ending                 string
	Server                 *struct {
		Reason  string
		Live    int64
		LastEnd time.Time `json:"last_end"`
	}
}

// list is `chanceryd ca list --json`, by the certificates' common names.
func (r *replica) list() map[string]listedKey {
	r.w.Helper()
	out := r.w.Run(r.w.Tool("chanceryd"), "ca", "list", "--config", r.conf, "--json")
	var all []listedKey
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		r.w.Fatalf("ca list prints %v: %s", err, out)
	}
	by := map[string]listedKey{}
	for _, l := range all {
		by[strings.TrimPrefix(strings.Split(l.Subject, ",")[0], "CN=")] = l
	}
	return by
}

// wantSaid checks that one line of a log has all of the words.
func wantSaid(w *harness.World, log string, words ...string) {
	w.Helper()
	for line := range strings.Lines(log) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			return
		}
	}
	w.Errorf("no line of the log has %q:\n%s", words, log)
}

// dial shows the certificate of a replica's ACME listener.
func (s *site) dial(r *replica) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.w.Read(s.root)))
	c, err := tls.Dial("tcp", r.acme, &tls.Config{RootCAs: roots, ServerName: "ca.test", MinVersion: tls.VersionTLS13})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

// place is "file:line:" of the first line of the configuration that begins so.
func (r *replica) place(begins string) string {
	r.w.Helper()
	for n, text := range strings.Split(r.w.Read(r.conf), "\n") {
		if strings.HasPrefix(strings.TrimSpace(text), begins) {
			return fmt.Sprintf("%s:%d:", r.conf, n+1)
		}
	}
	r.w.Fatalf("no line of the configuration begins with %s", begins)
	return ""
}
