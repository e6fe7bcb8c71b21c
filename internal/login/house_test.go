//go:build linux && pcsc && cgo

package login_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// house is a CA of the test's own: it speaks what login needs of ACME, verifies
// what it is sent, and may be bent to do wrong.
type house struct {
	name   string
	server *httptest.Server
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
	ssh    *sshca.Authority
	sshKey *ecdsa.PrivateKey

	mu       sync.Mutex
	accounts map[string]*jose.JSONWebKey
	orders   []*houseOrder
	revoked  int
	bend     bend
}

// bend is what a house does wrong; nil members do right.
type bend struct {
	object  func(kind string, o map[string]any)                            // before it is sent
	answer  func(kind string, w http.ResponseWriter, r *http.Request) bool // in place of an answer
	leaf    func(*x509.Certificate)                                        // before it is signed
	public  func(crypto.PublicKey) crypto.PublicKey                        // the certificate's key
	signer  *ecdsa.PrivateKey                                              // in place of the CA's
	request func(*sshca.Request)                                           // before it is signed
}

type houseOrder struct {
	kind     settings.Kind
	id       map[string]string
	notAfter time.Time
	account  string
	typ      string // that proved it
	token    string
	cert     []byte
}

func newHouse(t testing.TB, name string) *house {
	t.Helper()
	h := &house{name: name, accounts: map[string]*jose.JSONWebKey{}, key: newKey(t), sshKey: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, h.key.Public(), h.key)
	check(t, err)
	h.root, err = x509.ParseCertificate(der)
	check(t, err)
	h.ssh, err = sshca.NewAuthority(h.sshKey.Public())
	check(t, err)
	h.server = httptest.NewUnstartedServer(h)
	h.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	return h
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return k
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ca is the house in the settings.
func (h *house) ca(t testing.TB) settings.CA {
	t.Helper()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	var text []byte
	for _, c := range []*x509.Certificate{h.root, h.server.Certificate()} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	check(t, os.WriteFile(roots, text, 0o600))
	return settings.CA{Name: h.name, Directory: h.server.URL + "/acme/people/directory", Roots: roots}
}

func (h *house) url(path string) string { return h.server.URL + "/acme/people/" + path }

// set bends the house from now on.
func (h *house) set(b bend) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bend = b
}

func (h *house) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	b := h.bend
	h.mu.Unlock()
	kind, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/acme/people/"), "/")
	w.Header().Set("Replay-Nonce", rand.Text())
	if b.answer != nil && b.answer(kind, w, r) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.serve(w, r, kind, id); err != nil {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(map[string]string{"type": "urn:ietf:params:acme:error:unauthorized", "detail": err.Error()})
	}
}

func (h *house) serve(w http.ResponseWriter, r *http.Request, kind, id string) error {
	switch kind {
	case "directory":
		line, err := sshca.KeyLine(h.ssh.PublicKey(), "ca")
		h.send(w, 200, kind, map[string]any{
			"newNonce": h.url("nonce"), "newAccount": h.url("account"), "newOrder": h.url("order"), "revokeCert": h.url("revoke"),
			"meta": map[string]any{"ssh": map[string]any{"userKeys": []string{line}}},
		})
		return err
	case "nonce":
		return nil
	}
	payload, account, err := h.open(r, w, kind)
	if err != nil {
		return err
	}
	var o *houseOrder
	n := 0
	if kind == "order" {
		o, err = h.newOrder(payload, account)
		n = len(h.orders)
		w.Header().Set("Location", h.url(fmt.Sprintf("orders/%d", n)))
	} else if _, err := fmt.Sscan(id, &n); err == nil && n > 0 && n <= len(h.orders) {
		o = h.orders[n-1]
	}
	if err != nil {
		return err
	}
	switch kind {
	case "account":
		h.send(w, 201, kind, map[string]any{"status": "valid"})
	case "revoke":
		h.revoked++
		h.send(w, 200, kind, map[string]any{})
	case "order", "orders":
		h.sendOrder(w, kind, n, o)
	case "authz":
		h.send(w, 200, kind, map[string]any{"status": "pending", "identifier": o.id, "challenges": []any{
			map[string]any{"type": "http-01", "url": h.url(fmt.Sprintf("http/%d", n)), "status": "pending", "token": o.token},
			h.challenge(n, o, "yubikey-01"), h.challenge(n, o, "yubikey-02"),
		}})
	case "yubikey-01", "yubikey-02":
		if err := h.prove(kind, n, o, payload); err != nil {
			return err
		}
		h.send(w, 200, kind, map[string]any{"type": kind, "url": h.url(fmt.Sprintf("%s/%d", kind, n)), "status": "valid", "token": o.token})
	case "finalize":
		if err := h.issue(n, o, payload); err != nil {
			return err
		}
		h.sendOrder(w, kind, n, o)
	case "certificate":
		if o.kind == settings.SSH {
			w.Header().Set("Content-Type", "application/vnd.chancery.ssh-certificate")
		} else {
			w.Header().Set("Content-Type", "application/pem-certificate-chain")
		}
		w.Write(o.cert)
	default:
		return fmt.Errorf("nothing at %s", r.URL)
	}
	return nil
}

func (h *house) send(w http.ResponseWriter, status int, kind string, o map[string]any) {
	if h.bend.object != nil {
		h.bend.object(kind, o)
	}
	if kind == "account" {
		w.Header().Set("Location", h.url(fmt.Sprintf("accounts/%d", len(h.accounts))))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(o)
}

func (h *house) sendOrder(w http.ResponseWriter, kind string, n int, o *houseOrder) {
	status := map[string]any{
		"status": "pending", "identifiers": []any{o.id}, "authorizations": []string{h.url(fmt.Sprintf("authz/%d", n))}, "finalize": h.url(fmt.Sprintf("finalize/%d", n)),
	}
	switch {
	case o.cert != nil:
		status["status"], status["certificate"] = "valid", h.url(fmt.Sprintf("certificate/%d", n))
	case o.typ != "":
		status["status"] = "ready"
	}
	code := 200
	if kind == "order" {
		code = 201
	}
	h.send(w, code, kind, status)
}

// open verifies a signed request.
func (h *house) open(r *http.Request, w http.ResponseWriter, kind string) (payload []byte, account string, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, "", err
	}
	signed, err := jose.ParseSignedJSON(string(body), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, "", err
	}
	head := signed.Signatures[0].Protected
	if head.ExtraHeaders["url"] != h.server.URL+r.URL.Path {
		return nil, "", fmt.Errorf("signed for %v", head.ExtraHeaders["url"])
	}
	key, account := head.JSONWebKey, head.KeyID
	if kind == "account" {
		account = h.url(fmt.Sprintf("accounts/%d", len(h.accounts)+1))
		h.accounts[account] = key
	} else if key = h.accounts[account]; key == nil {
		return nil, "", fmt.Errorf("no account %q", account)
	}
	payload, err = signed.Verify(key)
	return payload, account, err
}

func (h *house) newOrder(payload []byte, account string) (*houseOrder, error) {
	var in struct {
		Identifiers []map[string]string
		NotAfter    time.Time
		Profile     string
	}
	if err := json.Unmarshal(payload, &in); err != nil || len(in.Identifiers) != 1 {
		return nil, fmt.Errorf("order %s: %v", payload, err)
	}
	o := &houseOrder{kind: settings.TLS, id: in.Identifiers[0], notAfter: in.NotAfter, account: account, token: rand.Text()}
	if o.id["type"] == "permanent-identifier" {
		o.kind = settings.SSH
	}
	if (o.kind == settings.SSH) != (in.Profile == "ssh-user") {
		return nil, fmt.Errorf("profile %q for %v", in.Profile, o.id)
	}
	h.orders = append(h.orders, o)
	return o, nil
}

func (h *house) challenge(n int, o *houseOrder, typ string) map[string]any {
	ch := map[string]any{
		"type": typ, "url": h.url(fmt.Sprintf("%s/%d", typ, n)), "status": "pending", "token": o.token,
		"challenge": base64.RawURLEncoding.EncodeToString(yubikey.NewChallenge(typ, o.token)),
	}
	if h.bend.object != nil {
		h.bend.object("challenge", ch)
	}
	return ch
}

// prove verifies a response as a server does.
func (h *house) prove(typ string, n int, o *houseOrder, payload []byte) error {
	var in yubikey.Response
	if err := json.Unmarshal(payload, &in); err != nil {
		return err
	}
	decode := base64.RawURLEncoding.DecodeString
	statement, err1 := decode(in.Attestation)
	device, err2 := decode(in.Intermediate)
	signature, err3 := decode(in.Signature)
	if err1 != nil || err2 != nil || err3 != nil {
		return fmt.Errorf("the response %s", payload)
	}
	s, err := x509.ParseCertificate(statement)
	if err != nil {
		return err
	}
	d, err := x509.ParseCertificate(device)
	if err != nil {
		return err
	}
	a, err := yubikey.ParseAttestation(s, d)
	if err != nil {
		return err
	}
	if err := a.Verify(maker.Issuers(), time.Now()); err != nil {
		return err
	}
	print, err := h.accounts[o.account].Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	message, err := yubikey.ResponseMessage(yubikey.NewChallenge(typ, o.token), base64.RawURLEncoding.EncodeToString(print), typ, h.url(fmt.Sprintf("%s/%d", typ, n)))
	if err != nil {
		return err
	}
	if !public.Equal(s.PublicKey) {
		return fmt.Errorf("an unknown key")
	}
	o.typ = typ
	return yubikey.VerifyMessage(s.PublicKey, message, signature)
}

// issue certifies the device's key under yubikey-01, else the one sent.
func (h *house) issue(n int, o *houseOrder, payload []byte) error {
	var in struct{ CSR, SSHPublicKey, Possession string }
	if err := json.Unmarshal(payload, &in); err != nil {
		return err
	}
	if o.typ == "" {
		return fmt.Errorf("nothing was proven")
	}
	if o.kind == settings.SSH {
		return h.issueSSH(n, o, in.SSHPublicKey, in.Possession)
	}
	der, err := base64.RawURLEncoding.DecodeString(in.CSR)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil || len(csr.DNSNames) != 1 || csr.DNSNames[0] != o.id["value"] {
		return fmt.Errorf("the CSR is for %v: %v", csr.DNSNames, err)
	}
	var key crypto.PublicKey = public
	if o.typ == "yubikey-02" {
		key = csr.PublicKey
		if public.Equal(key) {
			return fmt.Errorf("the device's key under yubikey-02")
		}
	}
	if h.bend.public != nil {
		key = h.bend.public(key)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: csr.DNSNames, NotBefore: time.Now().Add(-time.Minute), NotAfter: o.notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if h.bend.leaf != nil {
		h.bend.leaf(leaf)
	}
	signer := h.key
	if h.bend.signer != nil {
		signer = h.bend.signer
	}
	made, err := x509.CreateCertificate(rand.Reader, leaf, h.root, key, signer)
	o.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})
	return err
}

func (h *house) issueSSH(n int, o *houseOrder, line, possession string) error {
	var key, err = sshca.NewKey(public)
	if err != nil {
		return err
	}
	if o.typ == "yubikey-02" {
		if key, err = sshca.ParseKey(line); err != nil {
			return err
		}
		if err := sshca.VerifyPossession(key, h.url(fmt.Sprintf("orders/%d", n)), possession); err != nil {
			return err
		}
	}
	if h.bend.public != nil {
		if key, err = sshca.NewKey(h.bend.public(sshca.CryptoKey(key))); err != nil {
			return err
		}
	}
	id, err := sshca.KeyID(o.id["value"], "1001-9a")
	if err != nil {
		return err
	}
	req := sshca.Request{
		Kind: sshca.User, Key: key, Serial: sshca.NewSerial(), KeyID: id, Principals: []string{"alice", "admin"},
		ValidAfter: time.Now().Add(-time.Minute).Truncate(time.Second), ValidBefore: o.notAfter.Truncate(time.Second),
		Extensions: map[string]string{"permit-pty": ""},
	}
	if h.bend.request != nil {
		h.bend.request(&req)
	}
	authority, signer := h.ssh, h.sshKey
	if h.bend.signer != nil {
		signer = h.bend.signer
		if authority, err = sshca.NewAuthority(signer.Public()); err != nil {
			return err
		}
	}
	p, err := authority.Prepare(req)
	if err != nil {
		return err
	}
	wire, err := p.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return signer.Sign(rand.Reader, digest, opts)
	})
	if err != nil {
		return err
	}
	text, err := sshca.CertificateLine(wire)
	o.cert = bytes.TrimSpace([]byte(text))
	return err
}
