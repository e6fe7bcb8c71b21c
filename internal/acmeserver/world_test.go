package acmeserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// world is a whole server: the real authority, store, nonces and issuer. Only
// the validators are told what to see.
type world struct {
	handler   http.Handler
	authority *ca.Authority
	console   *operator.Console
	roots     *x509.CertPool
	db        *store.DB
	maker     *softcard.Maker // of the devices of directory "people"
}

// sees is a validator that judges by the name: "bad…" fails for good, "later…"
// for now, "slow…" takes longer than a POST is held, "away…" can't be asked
// about, all else passes.
type sees struct{}

func (sees) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	switch name, _, _ := strings.Cut(v.Identifier.Value, "."); name {
	case "bad":
		return protocol.Evidence{}, &protocol.ValidationError{Problem: protocol.NewProblem(protocol.IncorrectResponse, "not what it should be")}
	case "later":
		return protocol.Evidence{}, &protocol.ValidationError{Problem: protocol.NewProblem(protocol.ConnectionFailed, "refused"), Retryable: true}
	case "away":
		p := protocol.NewProblem(protocol.ServerInternal, "the cluster is away").After(7 * time.Second)
		return protocol.Evidence{}, &protocol.ValidationError{Problem: p, Retryable: true}
	case "slow":
		<-ctx.Done()
		return protocol.Evidence{}, ctx.Err()
	}
	return protocol.Evidence{Type: v.Type, Target: v.Identifier.Value, Subject: "pod", SeenAt: time.Now()}, nil
}

func newWorld(t testing.TB) *world {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{DSN: filepath.Join(t.TempDir(), "ca.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	nonces, err := db.Nonces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	local, roots := newIssuer(t)
	all, err := policy.NewNameSet("*")
	if err != nil {
		t.Fatal(err)
	}
	types := []protocol.ChallengeType{protocol.HTTP01, protocol.DNS01, protocol.DNSPersist01}
	profiles := []cert.Profile{{
		Name: "server", Description: "servers", Usages: []cert.Usage{cert.Server}, Challenges: types,
		Lifetime: 24 * time.Hour, MaxLifetime: 48 * time.Hour, Backdate: time.Minute,
		KeyTypes: []cert.KeyType{cert.P256}, Revocation: cert.RevocationNone, Issuer: "local",
	}}
	validators := map[protocol.ChallengeType]ca.Validator{}
	for _, typ := range types {
		validators[typ] = sees{}
	}
	directories, metas := map[string]*ca.Directory{}, map[string]Meta{}
	for _, name := range []string{"main", "eab", "terms"} {
		directories[name] = &ca.Directory{
			Policy: policy.Directory{
				Name: name, Profiles: profiles, DefaultProfile: "server", Challenges: types,
				Names: policy.Names{Allow: all, Wildcards: true}, EABRequired: name == "eab",
			},
			Validators: validators,
			AccountURL: func(id protocol.AccountID) string { return AccountURL(base, name, id) },
		}
		metas[name] = Meta{Profiles: profiles, ExternalAccountRequired: name == "eab", RequireTerms: name == "terms", IssuerNames: []string{"ca.test"}}
	}
	pods := *directories["main"] // where only pods prove
	pods.Validators = map[protocol.ChallengeType]ca.Validator{protocol.Kubernetes01: sees{}}
	pods.Policy.Name, pods.Policy.Challenges = "pods", []protocol.ChallengeType{protocol.Kubernetes01}
	pods.Policy.Profiles = slices.Clone(profiles)
	pods.Policy.Profiles[0].Challenges = pods.Policy.Challenges
	directories["pods"], metas["pods"] = &pods, Meta{Profiles: pods.Policy.Profiles}
	w := &world{roots: roots, db: db}
	directories["people"] = w.people(t, *directories["main"])
	metas["people"] = Meta{Profiles: directories["people"].Policy.Profiles}
	w.authority = ca.New(ca.Options{
		DB: db, Directories: directories, Issuers: map[string]ca.Issuer{"local": local},
		Hold: 200 * time.Millisecond, RetryDelays: []time.Duration{time.Hour},
	})
	w.console = operator.New(w.authority, db, nil)
	w.handler = (&Server{Authority: w.authority, Nonces: nonces, BaseURL: base + "/", Directories: metas}).Handler()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.authority.Run(ctx, time.Second) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// newIssuer makes an issuing CA under two roots: one default chain and one
// alternate.
func newIssuer(t testing.TB) (*issuer.Local, *x509.CertPool) {
	t.Helper()
	key := newKey(t).PrivateKey
	roots, chains := x509.NewCertPool(), [][]*x509.Certificate(nil)
	for _, name := range []string{"Root A", "Root B"} {
		rootKey := newKey(t).PrivateKey
		root := certify(t, name, &rootKey.PublicKey, nil, rootKey)
		roots.AddCert(root)
		chains = append(chains, []*x509.Certificate{certify(t, "Issuing", &key.PublicKey, root, rootKey), root})
	}
	queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: key, Parallel: 4})
	if err != nil {
		t.Fatal(err)
	}
	local, err := issuer.New(issuer.Config{Name: "local", Authorities: []issuer.Authority{{Queue: queue, Chains: chains}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return local, roots
}

func certify(t testing.TB, name string, pub *ecdsa.PublicKey, parent *x509.Certificate, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// user is an ACME client that does as it is told.
type user struct {
	*world
	t    testing.TB
	dir  string // "https://ca.test/acme/NAME/"
	key  signingKey
	kid  string // "" until registered
	last string // the nonce of the last answer
}

func (w *world) user(t testing.TB, directory string) *user {
	return &user{world: w, t: t, dir: base + "/acme/" + directory + "/", key: newKey(t)}
}

// nonce gives the last answer's, as a client does, or a new one.
func (u *user) nonce() string {
	n := u.last
	if u.last = ""; n == "" {
		n = do(u.handler, newRequest("HEAD", u.dir+"new-nonce", nil)).header.Get("Replay-Nonce")
	}
	return n
}

func (u *user) head(url string) map[string]any {
	head := map[string]any{"alg": "ES256", "url": url, "nonce": u.nonce()}
	if u.kid == "" {
		head["jwk"] = u.key.jwk()
	} else {
		head["kid"] = u.kid
	}
	return head
}

// post sends a payload: nil for POST-as-GET, text as it is, the rest as JSON.
func (u *user) post(url string, payload any) answer {
	u.t.Helper()
	var body []byte
	switch p := payload.(type) {
	case nil:
	case string:
		body = []byte(p)
	default:
		body = toJSON(p)
	}
	a := do(u.handler, newRequest("POST", url, u.key.sign(u.head(url), body)))
	u.last = a.header.Get("Replay-Nonce")
	wantCommon(u.t, a)
	return a
}

type object = map[string]any

// register opens an account.
func (u *user) register() *user {
	u.t.Helper()
	a := u.post(u.dir+"new-account", object{"termsOfServiceAgreed": true, "contact": []string{"mailto:a@b.test"}})
	if a.status != 201 {
		u.t.Fatalf("newAccount: %d %s", a.status, a.body)
	}
	u.kid = a.header.Get("Location")
	return u
}

func dnsNames(names ...string) (ids []object) {
	for _, n := range names {
		typ := "dns"
		if net.ParseIP(n) != nil {
			typ = "ip"
		}
		ids = append(ids, object{"type": typ, "value": n})
	}
	return ids
}

// order places an order and returns its URL and object.
func (u *user) order(names ...string) (string, object) {
	u.t.Helper()
	a := u.post(u.dir+"new-order", object{"identifiers": dnsNames(names...)})
	if a.status != 201 {
		u.t.Fatalf("newOrder: %d %s", a.status, a.body)
	}
	return a.header.Get("Location"), a.object(u.t)
}

// challengeOf is the URL of an authorization's challenge of a type.
func (u *user) challengeOf(authz any, typ string) string {
	u.t.Helper()
	a := u.post(authz.(string), nil)
	for _, c := range a.object(u.t)["challenges"].([]any) {
		if c := c.(object); c["type"] == typ {
			return c["url"].(string)
		}
	}
	u.t.Fatalf("no %s in %s", typ, a.body)
	return ""
}

// prove completes all authorizations of an order.
func (u *user) prove(order object) {
	u.t.Helper()
	for _, z := range order["authorizations"].([]any) {
		typ := "http-01"
		if u.post(z.(string), nil).object(u.t)["wildcard"] == true {
			typ = "dns-01"
		}
		if a := u.post(u.challengeOf(z, typ), object{}); a.object(u.t)["status"] != "valid" {
			u.t.Fatalf("challenge: %d %s", a.status, a.body)
		}
	}
}

// csr makes a request for the names with a fresh P-256 key.
func csr(t testing.TB, names ...string) (string, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return b64(der), key
}

// issue goes the whole way and returns the certificate's URL and key.
func (u *user) issue(names ...string) (string, *ecdsa.PrivateKey) {
	u.t.Helper()
	_, o := u.order(names...)
	u.prove(o)
	text, key := csr(u.t, names...)
	a := u.post(o["finalize"].(string), object{"csr": text})
	url, _ := a.object(u.t)["certificate"].(string)
	if a.status != 200 || url == "" {
		u.t.Fatalf("finalize: %d %s", a.status, a.body)
	}
	return url, key
}

// bind makes an external account binding (RFC 8555 section 7.3.4).
func bind(kid string, mac []byte, url string, jwk any) object {
	protected := b64(toJSON(object{"alg": "HS256", "kid": kid, "url": url}))
	payload := b64(toJSON(jwk))
	h := hmac.New(sha256.New, mac)
	h.Write([]byte(protected + "." + payload))
	return object{"protected": protected, "payload": payload, "signature": b64(h.Sum(nil))}
}
