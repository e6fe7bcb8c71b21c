package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// account is a client with an account: its methods are one step each.
type account struct {
	*world
	Requester
	t   testing.TB
	jwk *jws.JWK
	own *ecdsa.PrivateKey
}

func (w *world) account(t testing.TB, directory string) *account {
	t.Helper()
	k := newKey(t)
	return w.register(t, k, Registration{Directory: directory})
}

func (w *world) register(t testing.TB, k *ecdsa.PrivateKey, r Registration) *account {
	t.Helper()
	r.Key, r.Peer = jwk(t, k), peer
	a, created, err := w.Register(t.Context(), r)
	if err != nil || !created {
		t.Fatalf("created: %v, %v", created, err)
	}
	return &account{w, Requester{r.Directory, a, peer}, t, r.Key, k}
}

func ids(names ...string) []protocol.Identifier {
	var all []protocol.Identifier
	for _, name := range names {
		typ := protocol.DNS
		if _, err := netip.ParseAddr(name); err == nil {
			typ = protocol.IP
		}
		all = append(all, protocol.Identifier{Type: typ, Value: name})
	}
	return all
}

func (a *account) order(names ...string) OrderView {
	a.t.Helper()
	return a.orderAs(OrderRequest{Identifiers: ids(names...)})
}

func (a *account) orderAs(r OrderRequest) OrderView {
	a.t.Helper()
	o, err := a.NewOrder(a.t.Context(), a.Requester, r)
	if err != nil {
		a.t.Fatal(err)
	}
	return o
}

// prove answers one challenge of each authorization.
func (a *account) prove(o OrderView, typ protocol.ChallengeType) OrderView {
	a.t.Helper()
	for _, id := range o.Authorizations {
		if _, err := a.Respond(a.t.Context(), a.Requester, id, typ, nil); err != nil {
			a.t.Fatal(err)
		}
	}
	return a.look(o)
}

// look fetches the order.
func (a *account) look(o OrderView) OrderView {
	a.t.Helper()
	o, err := a.Order(a.t.Context(), a.Requester, o.ID)
	if err != nil {
		a.t.Fatal(err)
	}
	return o
}

// ready orders and proves. The answer to the last challenge may say that the
// order is still pending: a busy machine validates for longer than it is held.
func (a *account) ready(names ...string) OrderView {
	a.t.Helper()
	o := a.prove(a.order(names...), protocol.DNS01)
	until(a.t, "the order is ready", func() bool { o = a.look(o); return o.Status != protocol.OrderPending })
	if o.Status != protocol.OrderReady {
		a.t.Fatalf("the order is %s: %v", o.Status, o.Error)
	}
	return o
}

func (a *account) finalize(o OrderView) OrderView {
	a.t.Helper()
	var names []string
	for _, id := range o.Identifiers {
		names = append(names, id.Value)
	}
	o, err := a.Finalize(a.t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: csr(a.t, newKey(a.t), names...)})
	if err != nil {
		a.t.Fatal(err)
	}
	return o
}

// issue gets a certificate, from the order to the chain.
func (a *account) issue(names ...string) (*x509.Certificate, cert.Serial) {
	a.t.Helper()
	o := a.finalize(a.ready(names...))
	until(a.t, "the order is valid", func() bool { o = a.look(o); return o.Status != protocol.OrderProcessing })
	return a.fetch(o)
}

// fetch downloads an order's certificate.
func (a *account) fetch(o OrderView) (*x509.Certificate, cert.Serial) {
	a.t.Helper()
	if o.Status != protocol.OrderValid {
		a.t.Fatalf("the order is %s: %v", o.Status, o.Error)
	}
	v, err := a.Certificate(a.t.Context(), a.Requester, cert.Serial(o.Certificate), 0)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(v.Certificates[0])
	if err != nil {
		a.t.Fatal(err)
	}
	return leaf, cert.Serial(o.Certificate)
}

func csr(t testing.TB, k crypto.Signer, names ...string) []byte {
	t.Helper()
	return csrOf(t, k, &x509.CertificateRequest{}, names...)
}

func csrOf(t testing.TB, k crypto.Signer, r *x509.CertificateRequest, names ...string) []byte {
	t.Helper()
	for _, id := range ids(names...) {
		if id.Type == protocol.IP {
			r.IPAddresses = append(r.IPAddresses, netip.MustParseAddr(id.Value).AsSlice())
		} else {
			r.DNSNames = append(r.DNSNames, id.Value)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// usageExtension is an extended key usage of one OID, in hexadecimal without
// its tag (RFC 5280 section 4.2.1.12).
func usageExtension(t testing.TB, oid string) []pkix.Extension {
	t.Helper()
	content, err := hex.DecodeString(oid)
	if err != nil {
		t.Fatal(err)
	}
	value := append([]byte{0x30, byte(len(content) + 2), 0x06, byte(len(content))}, content...)
	return []pkix.Extension{{Id: []int{2, 5, 29, 37}, Value: value}}
}

// bind makes an external account binding (RFC 8555 section 7.3.4).
func bind(t testing.TB, account crypto.Signer, kid string, mac []byte) *jws.EAB {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	head := b64(fmt.Appendf(nil, `{"alg":"HS256","kid":%q,"url":"https://ca.test/new-account"}`, kid))
	body := b64([]byte(jwk(t, account).Canonical))
	h := hmac.New(sha256.New, mac)
	h.Write([]byte(head + "." + body))
	raw, err := json.Marshal(map[string]string{"protected": head, "payload": body, "signature": b64(h.Sum(nil))})
	if err != nil {
		t.Fatal(err)
	}
	e, err := jws.ParseEAB(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
