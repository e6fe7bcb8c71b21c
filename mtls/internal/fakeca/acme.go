package fakeca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

var errUnknownAccount = errors.New("no such account")

// signed is a verified POST.
type signed struct {
	payload json.RawMessage // empty: POST-as-GET
	kid     string
	jwk     json.RawMessage
	key     crypto.PublicKey
	thumb   string
}

func unb64(s string) []byte {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}

// open holds a POST to RFC 8555 section 6.2 to 6.5; ES256 only.
func (ca *CA) open(r *http.Request) (*signed, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	var j struct{ Protected, Payload, Signature string }
	var head struct {
		Alg, Kid, Nonce, URL string
		JWK                  json.RawMessage
	}
	if err := errors.Join(json.Unmarshal(body, &j), json.Unmarshal(unb64(j.Protected), &head)); err != nil {
		return nil, err
	}
	req := &signed{payload: unb64(j.Payload), kid: head.Kid, jwk: head.JWK}
	ca.mu.Lock()
	fresh := ca.nonces[head.Nonce]
	delete(ca.nonces, head.Nonce)
	acct := ca.accounts[head.Kid]
	ca.mu.Unlock()
	switch {
	case !fresh:
		return nil, fmt.Errorf("nonce %q", head.Nonce)
	case head.URL != "https://"+r.Host+r.URL.RequestURI():
		return nil, fmt.Errorf("url %q", head.URL)
	case head.Kid != "" && acct == nil:
		return nil, errUnknownAccount
	case head.Kid != "":
		req.key, req.thumb = acct.key, acct.thumb
	default:
		if req.key, err = parseJWK(head.JWK); err != nil {
			return nil, err
		}
		if req.thumb, err = acme.Thumbprint(req.key); err != nil {
			return nil, err
		}
	}
	sum, sig := sha256.Sum256([]byte(j.Protected+"."+j.Payload)), unb64(j.Signature)
	key, ok := req.key.(*ecdsa.PublicKey)
	if !ok || head.Alg != "ES256" || len(sig) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return nil, errors.New("the signature does not verify")
	}
	return req, nil
}

func parseJWK(raw json.RawMessage) (crypto.PublicKey, error) {
	var k struct{ Kty, Crv, X, Y string }
	if err := json.Unmarshal(raw, &k); err != nil || k.Crv != "P-256" {
		return nil, fmt.Errorf("jwk %s: %v", raw, err)
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, unb64(k.X)...), unb64(k.Y)...))
}

func (ca *CA) route(w http.ResponseWriter, r *http.Request, req *signed) {
	base := "https://" + r.Host
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch r.Method + " " + kind {
	case "GET directory":
		dir := acme.Directory{NewNonce: base + "/nonce", NewAccount: base + "/new-account", NewOrder: base + "/new-order", RenewalInfo: base + "/ari"}
		if ca.NoInfo {
			dir.RenewalInfo = ""
		}
		reply(w, 200, dir)
	case "HEAD nonce":
	case "GET ari":
		ca.renewalInfo(w, rest)
	case "POST new-account":
		ca.newAccount(w, base, req)
	case "POST new-order":
		ca.newOrder(w, base, req)
	default:
		n, tail, _ := strings.Cut(rest, "/")
		o := ca.orders[n]
		if req == nil || o == nil || o.account != req.kid {
			problem(w, 404, acme.ErrMalformed, "no such resource")
			return
		}
		ca.orderResource(w, r, req, o, kind, tail)
	}
}

func (ca *CA) newAccount(w http.ResponseWriter, base string, req *signed) {
	for url, acct := range ca.accounts {
		if acct.thumb == req.thumb {
			w.Header().Set("Location", url)
			reply(w, 200, acme.Account{Status: acme.StatusValid})
			return
		}
	}
	var body struct {
		Terms bool                                            `json:"termsOfServiceAgreed"`
		EAB   *struct{ Protected, Payload, Signature string } `json:"externalAccountBinding"`
	}
	json.Unmarshal(req.payload, &body)
	if !body.Terms || req.jwk == nil {
		problem(w, 403, acme.ErrUserActionRequired, "agree to the terms")
		return
	}
	if ca.EAB != nil {
		if body.EAB == nil {
			problem(w, 403, acme.ErrExternalAccountRequired, "no external account")
			return
		}
		var head struct{ Kid string }
		json.Unmarshal(unb64(body.EAB.Protected), &head)
		mac := hmac.New(sha256.New, ca.EAB[head.Kid])
		mac.Write([]byte(body.EAB.Protected + "." + body.EAB.Payload))
		if ca.EAB[head.Kid] == nil || !hmac.Equal(mac.Sum(nil), unb64(body.EAB.Signature)) {
			problem(w, 403, acme.ErrUnauthorized, "wrong MAC")
			return
		}
		if ca.byKID[head.Kid]++; ca.EABAccounts > 0 && ca.byKID[head.Kid] > ca.EABAccounts {
			problem(w, 403, acme.ErrUnauthorized, "the external account key has opened all the accounts it may")
			return
		}
	}
	ca.count++
	url := fmt.Sprintf("%s/account/%d", base, ca.count)
	ca.accounts[url] = &account{req.key, req.thumb}
	w.Header().Set("Location", url)
	reply(w, 201, acme.Account{Status: acme.StatusValid})
}

func (ca *CA) newOrder(w http.ResponseWriter, base string, req *signed) {
	o := &order{account: req.kid}
	if err := json.Unmarshal(req.payload, &o.Order); err != nil || req.kid == "" {
		problem(w, 400, acme.ErrMalformed, "bad order")
		return
	}
	if ca.NoProfile != "" && o.Profile == ca.NoProfile {
		problem(w, 400, acme.ErrInvalidProfile, "not this profile")
		return
	}
	if o.Replaces != "" {
		if ca.replaces++; ca.NoReplaces {
			problem(w, 409, acme.ErrAlreadyReplaced, "replaced already")
			return
		}
		for _, old := range ca.issued {
			if id, _ := acme.CertID(old.Leaf); id == o.Replaces && old.Account != req.kid {
				problem(w, 404, acme.ErrMalformed, "no such certificate")
				return
			}
			if old.Replaces == o.Replaces {
				problem(w, 409, acme.ErrAlreadyReplaced, "replaced already")
				return
			}
		}
	}
	ca.count++
	n := fmt.Sprint(ca.count)
	o.Status, o.Finalize = acme.StatusPending, base+"/finalize/"+n
	for i, id := range o.Identifiers {
		url := fmt.Sprintf("%s/authz/%s/%d", base, n, i)
		authz := acme.Authorization{Identifier: id, Status: acme.StatusPending}
		if ca.PreApproved {
			authz.Status = acme.StatusValid
		}
		token := rand.Text()
		for _, typ := range ca.Challenges {
			authz.Challenges = append(authz.Challenges, acme.Challenge{Type: typ, Status: authz.Status, Token: token, URL: fmt.Sprintf("%s/challenge/%s/%d/%s", base, n, i, typ)})
		}
		o.authz, o.Authorizations = append(o.authz, authz), append(o.Authorizations, url)
	}
	if ca.PreApproved {
		o.Status = acme.StatusReady
	}
	ca.orders[n] = o
	w.Header().Set("Location", base+"/order/"+n)
	reply(w, 201, o.Order)
}

func (ca *CA) orderResource(w http.ResponseWriter, r *http.Request, req *signed, o *order, kind, tail string) {
	i := 0
	at, typ, _ := strings.Cut(tail, "/")
	fmt.Sscan(at, &i)
	switch kind {
	case "order":
		ca.told(w, o)
	case "authz":
		reply(w, 200, o.authz[i])
	case "challenge":
		authz := &o.authz[i]
		c := slices.IndexFunc(authz.Challenges, func(ch acme.Challenge) bool { return ch.Type == typ })
		ch := &authz.Challenges[c]
		ca.validate(authz, ch, req)
		if !slices.ContainsFunc(o.authz, func(a acme.Authorization) bool { return a.Status != acme.StatusValid }) {
			o.Status = acme.StatusReady
		}
		reply(w, 200, ch)
	case "finalize":
		ca.finalize(w, r, req, o)
	case "certificate":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		if tail == "1" {
			w.Write(o.other)
			return
		}
		if ca.Alternate {
			w.Header().Set("Link", "<"+r.URL.Path+`/1>;rel="alternate"`)
		}
		w.Write(o.chain)
	}
}

func (ca *CA) validate(authz *acme.Authorization, ch *acme.Challenge, req *signed) {
	authz.Status = acme.StatusValid
	if ca.Validate != nil {
		look := ca.Validate
		ca.mu.Unlock() // it may take its time
		err := look(authz.Identifier, *ch, ch.Token+"."+req.thumb, req.payload)
		ca.mu.Lock()
		if err != nil {
			authz.Status, ch.Error = acme.StatusInvalid, &acme.Problem{Type: acme.ErrUnauthorized, Detail: err.Error(), Status: 403}
		}
	}
	ch.Status = authz.Status
}

// told answers with an order, with Retry-After while it is processing.
func (ca *CA) told(w http.ResponseWriter, o *order) {
	if o.Status == acme.StatusProcessing && ca.fault != Processing {
		o.Status = acme.StatusValid
	}
	answer := o.Order
	if o.Status == acme.StatusProcessing {
		w.Header().Set("Retry-After", "30")
		answer.Certificate = ""
	}
	reply(w, 200, answer)
}

func (ca *CA) finalize(w http.ResponseWriter, r *http.Request, req *signed, o *order) {
	var body struct{ CSR string }
	json.Unmarshal(req.payload, &body)
	csr, err := x509.ParseCertificateRequest(unb64(body.CSR))
	if err != nil || csr.CheckSignature() != nil || o.Status != acme.StatusReady {
		problem(w, 400, acme.ErrBadCSR, "bad CSR, or not ready")
		return
	}
	leaf := ca.issue(o, csr)
	ca.issued = append(ca.issued, Issued{leaf, o.account, o.Replaces, o.Profile, csr, o.NotAfter, ca.Now(), r.UserAgent()})
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	o.chain = append(block(leaf.Raw), block(ca.issuer.Raw)...)
	o.other = append(block(leaf.Raw), block(ca.cross.Raw)...)
	if ca.OtherLeaf {
		o.other = append(block(ca.issue(o, csr).Raw), block(ca.cross.Raw)...)
	}
	o.Status, o.Certificate = acme.StatusValid, "https://"+r.Host+"/certificate/"+strings.TrimPrefix(r.URL.Path, "/finalize/")
	if ca.fault == Processing {
		o.Status = acme.StatusProcessing
	}
	ca.told(w, o)
}

// issue signs a leaf for the CSR's key and Extended Key Usage, or one that is
// wrong as the fault says.
func (ca *CA) issue(o *order, csr *x509.CertificateRequest) *x509.Certificate {
	now := ca.Now()
	template := &x509.Certificate{SerialNumber: serial(), DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(ca.Life - time.Minute), ExtKeyUsage: ekus(csr)}
	if !o.NotAfter.IsZero() {
		template.NotAfter = o.NotAfter
	}
	if ca.OCSP != "" {
		template.OCSPServer = []string{ca.OCSP}
	}
	if ca.Both {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	pub, issuer, key := csr.PublicKey, ca.issuer, ca.issuerKey
	switch ca.fault {
	case WrongKey:
		pub = newKey().Public()
	case WrongNames:
		template.DNSNames = []string{"another.test"}
	case MoreNames:
		template.DNSNames = append(slices.Clone(template.DNSNames), "another.test")
	case WrongUsage:
		other := x509.ExtKeyUsageServerAuth
		if slices.Contains(template.ExtKeyUsage, other) {
			other = x509.ExtKeyUsageClientAuth
		}
		template.ExtKeyUsage = []x509.ExtKeyUsage{other}
	case Expired:
		template.NotBefore, template.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour)
	case IsCA:
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	case WrongRoot:
		key = newKey()
		issuer = ca.authority("fake issuer", key, nil, nil)
	}
	return sign(template, issuer, pub, key)
}

// ekus reads the CSR's extension request, byte for byte.
func ekus(csr *x509.CertificateRequest) (usages []x509.ExtKeyUsage) {
	for _, ext := range csr.Extensions {
		if ext.Id.String() != "2.5.29.37" {
			continue
		}
		for usage, oid := range map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "\x2b\x06\x01\x05\x05\x07\x03\x01", x509.ExtKeyUsageClientAuth: "\x2b\x06\x01\x05\x05\x07\x03\x02"} {
			if strings.Contains(string(ext.Value), oid) {
				usages = append(usages, usage)
			}
		}
	}
	return usages
}

func (ca *CA) renewalInfo(w http.ResponseWriter, id string) {
	for _, c := range ca.issued {
		if got, _ := acme.CertID(c.Leaf); got != id {
			continue
		}
		life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
		window := acme.Window{Start: c.Leaf.NotBefore.Add(life / 3 * 2), End: c.Leaf.NotBefore.Add(life/3*2 + life/24)}
		if ca.Window != nil {
			window = ca.Window(c.Leaf)
		}
		w.Header().Set("Retry-After", fmt.Sprint(int(ca.RetryAfter.Seconds())))
		reply(w, 200, map[string]any{"suggestedWindow": window})
		return
	}
	problem(w, 404, acme.ErrMalformed, "no such certificate")
}
