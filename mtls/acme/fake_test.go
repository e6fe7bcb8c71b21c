package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeCA is a small ACME server for these tests, written from RFC 8555 and
// strict about all that it says of a client. It answers everything at once.
type fakeCA struct {
	t   testing.TB
	srv *httptest.Server

	// hook sees each request first and may answer it; req is nil for
	// anything but a POST. It reports whether it has.
	hook func(w http.ResponseWriter, r *http.Request, req *signedRequest) bool

	httpAddr string // where http-01 looks
	tlsAddr  string // where tls-alpn-01 looks
	eab      map[string][]byte

	caKey  *ecdsa.PrivateKey
	caCert *x509.Certificate

	mu       sync.Mutex
	nonces   map[string]bool
	counter  int
	accounts map[string]*fakeAccount // by URL
	orders   map[string]*fakeOrder   // by number
	posts    []string                // paths
	agents   map[string]bool
}

type fakeAccount struct {
	Account
	key   crypto.PublicKey
	thumb string
}

type fakeOrder struct {
	Order
	authz   Authorization
	account *fakeAccount
	chain   []byte
	payload map[string]json.RawMessage // of the challenge's response
}

// signedRequest is a verified POST.
type signedRequest struct {
	payload []byte // empty: POST-as-GET
	account *fakeAccount
	key     crypto.PublicKey
	jwk     json.RawMessage
	thumb   string
}

func newFakeCA(t testing.TB) *fakeCA {
	ca := &fakeCA{t: t, nonces: map[string]bool{}, accounts: map[string]*fakeAccount{}, orders: map[string]*fakeOrder{}, agents: map[string]bool{},
		eab: map[string][]byte{"kid \"1\"": []byte("0123456789abcdef0123456789abcdef")}}
	ca.caKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte{1, 2, 3, 4}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.caKey.Public(), ca.caKey)
	if err != nil {
		t.Fatal(err)
	}
	ca.caCert, _ = x509.ParseCertificate(der)
	ca.srv = httptest.NewTLSServer(ca)
	t.Cleanup(ca.srv.Close)
	return ca
}

func (ca *fakeCA) client(key crypto.Signer) *Client {
	return &Client{DirectoryURL: ca.srv.URL + "/directory", HTTPClient: ca.srv.Client(), Key: key, UserAgent: "test/1"}
}

func (ca *fakeCA) nonce() string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	nonce := rand.Text()
	ca.nonces[nonce] = true
	return nonce
}

func (ca *fakeCA) next() string {
	ca.counter++
	return fmt.Sprint(ca.counter)
}

func (ca *fakeCA) postPaths() []string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return append([]string(nil), ca.posts...)
}

func problem(w http.ResponseWriter, status int, typ, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(Problem{Type: typ, Detail: detail, Status: status})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (ca *fakeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ca.mu.Lock()
	ca.agents[r.UserAgent()] = true
	ca.mu.Unlock()
	w.Header().Set("Replay-Nonce", ca.nonce())
	var req *signedRequest
	if r.Method == http.MethodPost {
		ca.mu.Lock()
		ca.posts = append(ca.posts, r.URL.Path)
		ca.mu.Unlock()
		var typ string
		var err error
		if req, typ, err = ca.verify(r); err != nil {
			if typ != ErrBadNonce {
				ca.t.Errorf("%s: the client's request is wrong: %v", r.URL.Path, err)
			}
			problem(w, 400, typ, err.Error())
			return
		}
	}
	if ca.hook != nil && ca.hook(w, r, req) {
		return
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.route(w, r, req)
}

func (ca *fakeCA) route(w http.ResponseWriter, r *http.Request, req *signedRequest) {
	base := ca.srv.URL
	kind, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch r.Method + " " + kind {
	case "GET directory":
		reply(w, 200, Directory{NewNonce: base + "/nonce", NewAccount: base + "/new-account", NewOrder: base + "/new-order", NewAuthz: base + "/new-authz",
			RevokeCert: base + "/revoke", KeyChange: base + "/key-change", RenewalInfo: base + "/ari",
			Meta: Meta{Website: "https://example.com", CAAIdentities: []string{"example.com"}, Profiles: map[string]string{"short": "https://example.com/short"}}})
	case "HEAD nonce":
	case "GET ari":
		w.Header().Set("Retry-After", "1")
		now := time.Now().Truncate(time.Second)
		reply(w, 200, map[string]any{"suggestedWindow": Window{now, now.Add(time.Hour)}, "explanationURL": base + "/why?" + id})
	case "POST new-account":
		ca.newAccount(w, req)
	case "POST account":
		ca.account(w, r, req)
	case "POST key-change":
		ca.keyChange(w, r, req)
	case "POST new-order":
		ca.newOrder(w, req)
	case "POST new-authz":
		var body struct{ Identifier Identifier }
		json.Unmarshal(req.payload, &body)
		o := ca.addOrder(req.account, Order{Identifiers: []Identifier{body.Identifier}})
		w.Header().Set("Location", o.Authorizations[0])
		reply(w, 201, o.authz)
	case "POST orders":
		page := 0
		fmt.Sscan(r.URL.Query().Get("page"), &page)
		if page < 2 {
			w.Header().Set("Link", fmt.Sprintf(`<%s/directory>;rel="index", </orders/%s?page=%d>;rel="next"`, base, id, page+1))
		}
		reply(w, 200, map[string]any{"orders": []string{fmt.Sprintf("%s/order/%d", base, 2*page), fmt.Sprintf("%s/order/%d", base, 2*page+1)}})
	case "POST revoke":
		ca.revoke(w, req)
	default:
		ca.orderResource(w, kind, id, req)
	}
}

func (ca *fakeCA) newAccount(w http.ResponseWriter, req *signedRequest) {
	var body struct {
		Contact            []string
		Terms              bool `json:"termsOfServiceAgreed"`
		OnlyReturnExisting bool
		EAB                json.RawMessage `json:"externalAccountBinding"`
	}
	if err := json.Unmarshal(req.payload, &body); err != nil || req.jwk == nil {
		problem(w, 400, ErrMalformed, "newAccount needs jwk and a JSON body")
		return
	}
	for url, acct := range ca.accounts {
		if acct.thumb == req.thumb {
			w.Header().Set("Location", url)
			reply(w, 200, acct)
			return
		}
	}
	if body.OnlyReturnExisting {
		problem(w, 400, ErrAccountDoesNotExist, "no such account")
		return
	}
	if body.EAB != nil {
		if err := ca.checkEAB(body.EAB, req.jwk); err != nil {
			ca.t.Errorf("external account binding: %v", err)
			problem(w, 403, ErrUnauthorized, err.Error())
			return
		}
	}
	n := ca.next()
	acct := &fakeAccount{key: req.key, thumb: req.thumb, Account: Account{Status: StatusValid, Contact: body.Contact, TermsOfServiceAgreed: body.Terms,
		ExternalAccountBinding: body.EAB, Orders: ca.srv.URL + "/orders/" + n}}
	url := ca.srv.URL + "/account/" + n
	ca.accounts[url] = acct
	w.Header().Set("Location", url)
	reply(w, 201, acct)
}

// checkEAB follows RFC 8555 section 7.3.4, word by word.
func (ca *fakeCA) checkEAB(eab, jwk json.RawMessage) error {
	var j struct{ Protected, Payload, Signature string }
	var head struct{ Alg, Kid, URL, Nonce string }
	if err := errors.Join(json.Unmarshal(eab, &j), json.Unmarshal(unb64(j.Protected), &head)); err != nil {
		return err
	}
	mac := hmac.New(sha256.New, ca.eab[head.Kid])
	mac.Write([]byte(j.Protected + "." + j.Payload))
	switch {
	case head.Alg != "HS256" || head.URL != ca.srv.URL+"/new-account" || head.Nonce != "" || ca.eab[head.Kid] == nil:
		return fmt.Errorf("protected header %s", unb64(j.Protected))
	case !bytes.Equal(unb64(j.Payload), jwk):
		return errors.New("the payload is not the account key")
	case !hmac.Equal(mac.Sum(nil), unb64(j.Signature)):
		return errors.New("wrong MAC")
	}
	return nil
}

func (ca *fakeCA) account(w http.ResponseWriter, r *http.Request, req *signedRequest) {
	if ca.accounts[ca.srv.URL+r.URL.Path] != req.account {
		problem(w, 403, ErrUnauthorized, "another's account")
		return
	}
	var body map[string]json.RawMessage
	json.Unmarshal(req.payload, &body)
	if c, ok := body["contact"]; ok {
		req.account.Contact = nil
		json.Unmarshal(c, &req.account.Contact)
	}
	if string(body["status"]) == `"deactivated"` {
		req.account.Status = StatusDeactivated
	}
	reply(w, 200, req.account)
}

// keyChange follows RFC 8555 section 7.3.5.
func (ca *fakeCA) keyChange(w http.ResponseWriter, r *http.Request, req *signedRequest) {
	inner, head, err := openJWS(req.payload)
	var body struct {
		Account string
		OldKey  json.RawMessage
	}
	switch {
	case err != nil || head.Nonce != "" || head.Kid != "" || head.JWK == nil || head.URL != ca.srv.URL+"/key-change":
		err = fmt.Errorf("inner JWS: %v", err)
	case json.Unmarshal(inner.payload, &body) != nil || ca.accounts[body.Account] != req.account:
		err = errors.New("inner account")
	default:
		if _, thumb, e := parseJWK(body.OldKey); e != nil || thumb != req.account.thumb {
			err = errors.New("oldKey")
		}
	}
	if err != nil {
		ca.t.Errorf("key change: %v", err)
		problem(w, 400, ErrMalformed, err.Error())
		return
	}
	req.account.key, req.account.thumb = inner.key, inner.thumb
	reply(w, 200, req.account)
}

func (ca *fakeCA) newOrder(w http.ResponseWriter, req *signedRequest) {
	var body Order
	if err := json.Unmarshal(req.payload, &body); err != nil || req.account == nil {
		problem(w, 400, ErrMalformed, "bad order")
		return
	}
	o := ca.addOrder(req.account, body)
	w.Header().Set("Location", o.URL)
	reply(w, 201, o.Order)
}

// addOrder makes an order with one authorization, for its first name.
func (ca *fakeCA) addOrder(acct *fakeAccount, o Order) *fakeOrder {
	n, base := ca.next(), ca.srv.URL
	o.URL, o.Status, o.Finalize = base+"/order/"+n, StatusPending, base+"/finalize/"+n
	o.Authorizations = []string{base + "/authz/" + n}
	order := &fakeOrder{Order: o, account: acct, authz: Authorization{Identifier: o.Identifiers[0], Status: StatusPending, Expires: time.Now().Add(time.Hour)}}
	token := rand.Text()
	for _, typ := range []string{HTTP01, TLSALPN01, "example-private-01"} {
		order.authz.Challenges = append(order.authz.Challenges, Challenge{Type: typ, URL: base + "/challenge/" + n + "/" + typ, Status: StatusPending, Token: token,
			Extra: map[string]json.RawMessage{"challenge": json.RawMessage(`"AAEC"`)}})
	}
	ca.orders[n] = order
	return order
}

func (ca *fakeCA) orderResource(w http.ResponseWriter, kind, id string, req *signedRequest) {
	n, typ, _ := strings.Cut(id, "/")
	o := ca.orders[n]
	if o == nil || req == nil || req.account != o.account {
		problem(w, 404, ErrMalformed, "no such resource")
		return
	}
	switch kind {
	case "order":
		reply(w, 200, o.Order)
	case "authz":
		if len(req.payload) > 0 {
			o.authz.Status = StatusDeactivated
		}
		reply(w, 200, o.authz)
	case "challenge":
		for i := range o.authz.Challenges {
			if ch := &o.authz.Challenges[i]; ch.Type == typ {
				if len(req.payload) > 0 {
					json.Unmarshal(req.payload, &o.payload)
					ca.validate(o, ch)
				}
				w.Header().Set("Link", `<`+o.Authorizations[0]+`>;rel="up"`)
				reply(w, 200, ch)
			}
		}
	case "finalize":
		ca.finalize(w, o, req)
	case "certificate":
		w.Header().Add("Link", `<`+ca.srv.URL+`/directory>;rel="index"`)
		w.Header().Add("Link", `</certificate/`+n+`/1>;rel="alternate"`)
		w.Header().Set("Content-Type", pemChain)
		w.Write(o.chain)
	}
}

// validate looks for the proof itself, from the RFCs.
func (ca *fakeCA) validate(o *fakeOrder, ch *Challenge) {
	want := ch.Token + "." + o.account.thumb
	sum := sha256.Sum256([]byte(want))
	var err error
	switch ch.Type {
	case HTTP01:
		var resp *http.Response
		if resp, err = http.Get("http://" + ca.httpAddr + "/.well-known/acme-challenge/" + ch.Token); err == nil {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
			resp.Body.Close()
			if resp.StatusCode != 200 || string(body) != want {
				err = fmt.Errorf("got %d %q", resp.StatusCode, body)
			}
		}
	case TLSALPN01:
		err = ca.dialALPN(o.authz.Identifier, sum[:])
	}
	o.authz.Status, o.Status = StatusValid, StatusReady
	if err != nil {
		ch.Error = &Problem{Type: ErrIncorrectResponse, Detail: err.Error()}
		o.authz.Status, o.Status = StatusInvalid, StatusInvalid
	}
	ch.Status, ch.Validated = o.authz.Status, time.Now()
}

// dialALPN follows RFC 8737 section 3.
func (ca *fakeCA) dialALPN(id Identifier, digest []byte) error {
	name := id.Value
	if id.Type == TypeIP {
		name = map[string]string{"192.0.2.7": "7.2.0.192.in-addr.arpa"}[id.Value]
	}
	conn, err := tls.Dial("tcp", ca.tlsAddr, &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	cert := state.PeerCertificates[0]
	want, _ := asn1.Marshal(digest)
	if state.NegotiatedProtocol != "acme-tls/1" || len(cert.DNSNames)+len(cert.IPAddresses) != 1 || cert.VerifyHostname(id.Value) != nil {
		return fmt.Errorf("protocol %q, names %v %v", state.NegotiatedProtocol, cert.DNSNames, cert.IPAddresses)
	}
	for _, ext := range cert.Extensions {
		if ext.Id.String() == "1.3.6.1.5.5.7.1.31" && ext.Critical && bytes.Equal(ext.Value, want) {
			return nil
		}
	}
	return errors.New("no acmeIdentifier")
}

func (ca *fakeCA) finalize(w http.ResponseWriter, o *fakeOrder, req *signedRequest) {
	var body struct{ CSR, SSHPublicKey string }
	json.Unmarshal(req.payload, &body)
	if o.Status != StatusReady {
		problem(w, 403, ErrOrderNotReady, "not ready")
		return
	}
	n := o.URL[strings.LastIndex(o.URL, "/")+1:]
	o.Status, o.Certificate = StatusValid, ca.srv.URL+"/certificate/"+n
	if body.SSHPublicKey == "" {
		csr, err := x509.ParseCertificateRequest(unb64(body.CSR))
		if err != nil || csr.CheckSignature() != nil {
			problem(w, 400, ErrBadCSR, "bad CSR")
			return
		}
		serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, ca.caCert, csr.PublicKey, ca.caKey)
		if err != nil {
			ca.t.Error(err)
		}
		o.chain = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.caCert.Raw})...)
	}
	w.Header().Set("Location", o.URL)
	reply(w, 200, o.Order)
}

func (ca *fakeCA) revoke(w http.ResponseWriter, req *signedRequest) {
	var body struct {
		Certificate string
		Reason      int
	}
	json.Unmarshal(req.payload, &body)
	cert, err := x509.ParseCertificate(unb64(body.Certificate))
	if err != nil {
		problem(w, 400, ErrMalformed, "not a certificate")
		return
	}
	if byKey := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(req.key); !byKey && req.account == nil {
		problem(w, 403, ErrUnauthorized, "neither the account nor the certificate's key")
		return
	}
	if body.Reason == 2 {
		problem(w, 400, ErrBadRevocationReason, "not that reason")
	}
}
