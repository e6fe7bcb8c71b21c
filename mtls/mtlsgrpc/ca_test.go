package mtlsgrpc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
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

	"github.com/chancery-pki/chancery/mtls/acme"
)

// ca is an ACME server of the barest kind: it believes every signature, and
// proves by tls-alpn-01 at one address.
type ca struct {
	t      *testing.T
	url    string
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
	visit  func(name string) error // proves a name
	mu     sync.Mutex
	serial int64
	orders []*order
}

type order struct {
	ids    []acme.Identifier
	proven int
	chain  []byte
}

// newCA starts one, and sets the environment so that identities find it.
func newCA(t *testing.T, visit func(name string) error) *ca {
	t.Helper()
	c := &ca{t: t, visit: visit, key: newKey(t)}
	der := c.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, c.key.Public())
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.root = root
	own := newKey(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{PrivateKey: own, Certificate: [][]byte{c.sign(&x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, own.Public())}}}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c.url = srv.URL
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CHANCERY_ROOTS", roots)
	t.Setenv("CHANCERY_DIRECTORY", srv.URL+"/directory")
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate that the root signs.
func (c *ca) sign(template *x509.Certificate, pub any) []byte {
	c.mu.Lock()
	c.serial++
	template.SerialNumber = big.NewInt(c.serial)
	c.mu.Unlock()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(24*time.Hour)
	parent := c.root
	if parent == nil {
		template.Subject.CommonName = "Test root"
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, c.key)
	if err != nil {
		c.t.Error(err)
	}
	return der
}

// serve answers every request of RFC 8555 that an issuance needs.
func (c *ca) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Replay-Nonce", rand.Text())
	var frame struct{ Payload string }
	json.NewDecoder(r.Body).Decode(&frame)
	payload, _ := base64.RawURLEncoding.DecodeString(frame.Payload)
	what, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var n, i int
	fmt.Sscanf(rest, "%d/%d", &n, &i)
	switch what {
	case "directory":
		reply(w, 200, map[string]any{"newNonce": c.url + "/nonce", "newAccount": c.url + "/account", "newOrder": c.url + "/new"})
	case "nonce":
	case "account":
		w.Header().Set("Location", c.url+"/account/1")
		reply(w, 201, map[string]any{"status": "valid"})
	case "new":
		o := new(order)
		var asked struct{ Identifiers []acme.Identifier }
		json.Unmarshal(payload, &asked)
		o.ids = asked.Identifiers
		c.mu.Lock()
		c.orders = append(c.orders, o)
		n = len(c.orders) - 1
		c.mu.Unlock()
		w.Header().Set("Location", fmt.Sprintf("%s/order/%d", c.url, n))
		c.replyOrder(w, 201, n)
	case "order":
		c.replyOrder(w, 200, n)
	case "authz", "challenge":
		c.authorize(w, what, n, i)
	case "finalize":
		var asked struct{ CSR string }
		json.Unmarshal(payload, &asked)
		der, _ := base64.RawURLEncoding.DecodeString(asked.CSR)
		c.finalize(der, n)
		c.replyOrder(w, 200, n)
	case "chain":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		w.Write(c.order(n).chain)
	default:
		http.NotFound(w, r)
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (c *ca) order(n int) order {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.orders[n]
}

func (c *ca) replyOrder(w http.ResponseWriter, status, n int) {
	o := c.order(n)
	at := func(what string, i int) string { return fmt.Sprintf("%s/%s/%d/%d", c.url, what, n, i) }
	v := map[string]any{"status": "pending", "identifiers": o.ids, "finalize": at("finalize", 0)}
	var authzs []string
	for i := range o.ids {
		authzs = append(authzs, at("authz", i))
	}
	v["authorizations"] = authzs
	switch {
	case o.chain != nil:
		v["status"], v["certificate"] = "valid", at("chain", 0)
	case o.proven == len(o.ids):
		v["status"] = "ready"
	}
	reply(w, status, v)
}

func (c *ca) authorize(w http.ResponseWriter, what string, n, i int) {
	status := "pending"
	if what == "challenge" {
		if err := c.visit(c.order(n).ids[i].Value); err != nil {
			c.t.Error(err)
		}
		c.mu.Lock()
		c.orders[n].proven++
		c.mu.Unlock()
	}
	if o := c.order(n); o.proven > i {
		status = "valid"
	}
	challenge := map[string]any{"type": acme.TLSALPN01, "url": fmt.Sprintf("%s/challenge/%d/%d", c.url, n, i), "token": "token", "status": status}
	if what == "challenge" {
		reply(w, 200, challenge)
		return
	}
	reply(w, 200, map[string]any{"status": status, "identifier": c.order(n).ids[i], "challenges": []any{challenge}})
}

func (c *ca) finalize(csr []byte, n int) {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		c.t.Error(err)
		return
	}
	der := c.sign(&x509.Certificate{
		DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, r.PublicKey)
	c.mu.Lock()
	c.orders[n].chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.mu.Unlock()
}
