package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// floorServer answers the same client with answers of the same form and does
// only what no CA can leave out: net/http over TLS; one ECDSA verification
// for each request and one for the CSR; one GET for http-01, name resolution
// included; one signature for the certificate. It stores nothing, checks no
// nonce, no policy and no state, and serves everyone the same prepared chain.
// It is no CA: nothing may be concluded from what it says.
type floorServer struct {
	base     string // https://HOST:PORT
	key      *ecdsa.PrivateKey
	tbs      []byte // of the chain's leaf
	chain    []byte
	validate *http.Client
	httpPort string

	nonce    atomic.Uint64
	accounts atomic.Uint64
	slots    [1 << 17]atomic.Pointer[floorAccount] // by account number, the oldest overwritten
}

type floorAccount struct {
	key        *ecdsa.PublicKey
	thumbprint string
}

// startFloor starts this very program again as the floor server.
func (l *lab) startFloor(ctx context.Context) (*server, error) {
	dir, err := l.mkdir("floor")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	leaf, err := l.authority.leaf()
	if err != nil {
		return nil, err
	}
	if err := leaf.write(cert, key); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	metricsPort, err := freePort()
	if err != nil {
		return nil, err
	}
	addr, metrics := "127.0.0.1:"+strconv.Itoa(port), "127.0.0.1:"+strconv.Itoa(metricsPort)
	cmd := exec.Command(self, "-listen", addr, "-metrics", metrics, "-cert", cert, "-key", key,
		"-http-port", strconv.Itoa(l.answers.httpPort), "-resolver", l.answers.dns)
	cmd.Env = append(os.Environ(), floorEnv+"=1")
	p, err := start(cmd, filepath.Join(l.dir, "floor.log"))
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx, listening(addr)); err != nil {
		_ = p.stop(syscall.SIGTERM)
		return nil, err
	}
	return &server{directory: "https://" + addr + "/directory", roots: l.authority.roots(), processes: []*process{p},
		metrics: "http://" + metrics + "/metrics"}, nil
}

// floorEnv makes this program the floor server. An environment variable, so
// that the test binary can be it as well.
const floorEnv = "CHANCERY_BENCH_FLOOR"

// floorMain is the floor server's main.
func floorMain(args []string) error {
	flags := flag.NewFlagSet("floor", flag.ContinueOnError)
	listen := flags.String("listen", "", "address")
	metrics := flags.String("metrics", "", "address of the Go runtime's numbers, by plain HTTP")
	certFile := flags.String("cert", "", "certificate")
	keyFile := flags.String("key", "", "key")
	httpPort := flags.String("http-port", "", "port of http-01")
	resolver := flags.String("resolver", "", "DNS server, empty to dial 127.0.0.1 without asking")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*certFile, *keyFile)
	if err != nil {
		return err
	}
	f, err := newFloorServer(*listen, *httpPort, *resolver)
	if err != nil {
		return err
	}
	go func() { log.Fatal(http.ListenAndServe(*metrics, http.HandlerFunc(runtimeMetrics))) }()
	srv := &http.Server{Addr: *listen, Handler: f, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}},
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	return srv.ListenAndServeTLS("", "")
}

func newFloorServer(listen, httpPort, dns string) (*floorServer, error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, err
	}
	issuing, err := authority.issuing()
	if err != nil {
		return nil, err
	}
	leaf, err := (&authorityBelow{issuing}).leaf("w0000000.bench.internal")
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{}
	if dns != "" {
		dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, dns)
		}}
	}
	dial := dialer.DialContext
	if dns == "" {
		dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, "127.0.0.1:"+httpPort)
		}
	}
	return &floorServer{base: "https://" + listen, key: issuing.key, tbs: leaf.RawTBSCertificate,
		chain: append(pemCertificate(leaf), pemCertificate(issuing.cert)...), httpPort: httpPort,
		validate: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}}, nil
}

// authorityBelow issues from an issuing CA.
type authorityBelow struct{ *pair }

func (a *authorityBelow) leaf(name string) (*x509.Certificate, error) {
	sub := &authority{cert: a.cert, key: a.key}
	p, err := sub.sign(&x509.Certificate{DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return nil, err
	}
	return p.cert, nil
}

func (f *floorServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Replay-Nonce"] = []string{fmt.Sprintf("%022d", f.nonce.Add(1))}
	h["Cache-Control"] = []string{"no-store"}
	h["Link"] = []string{`<` + f.base + `/directory>;rel="index"`}
	switch {
	case r.URL.Path == "/directory":
		writeFloor(w, http.StatusOK, `{"newNonce":"`+f.base+`/nonce","newAccount":"`+f.base+`/account","newOrder":"`+f.base+`/order","revokeCert":"`+
			f.base+`/revoke","keyChange":"`+f.base+`/key","meta":{"termsOfService":"`+f.base+`/terms"}}`)
	case r.Method == http.MethodPost:
		if err := f.post(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}
}

func runtimeMetrics(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(w, "go_memstats_mallocs_total %d\ngo_memstats_alloc_bytes_total %d\n", m.Mallocs, m.TotalAlloc)
}

func writeFloor(w http.ResponseWriter, status int, body string) {
	w.Header()["Content-Type"] = []string{"application/json"}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (f *floorServer) post(w http.ResponseWriter, r *http.Request) error {
	var body bytes.Buffer
	body.Grow(1024)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, 128<<10)); err != nil {
		return err
	}
	id, acct, payload, err := f.verify(body.Bytes())
	if err != nil {
		return err
	}
	kind, rest, _ := strings.Cut(r.URL.Path[1:], "/")
	name, _, _ := strings.Cut(rest, "/")
	switch kind {
	case "account":
		w.Header()["Location"] = []string{f.base + "/a/" + id}
		writeFloor(w, http.StatusCreated, `{"status":"valid","orders":"`+f.base+`/a/`+id+`/orders"}`)
	case "order":
		_, after, _ := strings.Cut(string(payload), `"value":"`)
		name, _, _ = strings.Cut(after, `"`)
		f.writeOrder(w, http.StatusCreated, name, "pending")
	case "z":
		writeFloor(w, http.StatusOK, `{"status":"pending","expires":"2036-01-02T15:04:05Z","identifier":{"type":"dns","value":"`+name+
			`"},"challenges":[`+f.challenge("http-01", name, "pending")+`,`+f.challenge("dns-01", name, "pending")+`,`+
			f.challenge("tls-alpn-01", name, "pending")+`]}`)
	case "c":
		if err := f.prove(r.Context(), name, acct); err != nil {
			return err
		}
		writeFloor(w, http.StatusOK, f.challenge("http-01", name, "valid"))
	case "f":
		if err := f.sign(payload); err != nil {
			return err
		}
		f.writeOrder(w, http.StatusOK, name, "valid")
	case "x":
		w.Header()["Content-Type"] = []string{"application/pem-certificate-chain"}
		_, _ = w.Write(f.chain)
	default:
		return errors.New("no such resource")
	}
	return nil
}

func (f *floorServer) writeOrder(w http.ResponseWriter, status int, name, state string) {
	w.Header()["Location"] = []string{f.base + "/o/" + name}
	certificate := ""
	if state == "valid" {
		certificate = `,"certificate":"` + f.base + `/x/` + name + `"`
	}
	writeFloor(w, status, `{"status":"`+state+`","expires":"2036-01-02T15:04:05Z","identifiers":[{"type":"dns","value":"`+name+
		`"}],"authorizations":["`+f.base+`/z/`+name+`"],"finalize":"`+f.base+`/f/`+name+`"`+certificate+`}`)
}

func (f *floorServer) challenge(typ, name, state string) string {
	return `{"type":"` + typ + `","url":"` + f.base + `/c/` + name + `/` + typ + `","status":"` + state + `","token":"` + token(name) + `"}`
}

// token needs no memory: the same name has the same.
func token(name string) string {
	sum := sha256.Sum256([]byte(name))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// verify checks a request's signature with its account's key, or with its own
// where it makes an account. It reads no more of the JWS than that takes.
func (f *floorServer) verify(body []byte) (id string, acct *floorAccount, payload []byte, err error) {
	var jws struct{ Protected, Payload, Signature string }
	if err := json.Unmarshal(body, &jws); err != nil {
		return "", nil, nil, err
	}
	protected, err := base64.RawURLEncoding.DecodeString(jws.Protected)
	if err != nil {
		return "", nil, nil, err
	}
	var head struct {
		Kid string
		JWK *struct{ X, Y string }
	}
	if err := json.Unmarshal(protected, &head); err != nil {
		return "", nil, nil, err
	}
	if head.JWK != nil {
		if acct, err = newFloorAccount(head.JWK.X, head.JWK.Y); err != nil {
			return "", nil, nil, err
		}
		n := f.accounts.Add(1) % uint64(len(f.slots))
		f.slots[n].Store(acct)
		id = strconv.FormatUint(n, 10)
	} else {
		n, err := strconv.ParseUint(strings.TrimPrefix(head.Kid, f.base+"/a/"), 10, 64)
		if err != nil || n >= uint64(len(f.slots)) {
			return "", nil, nil, errors.New("no such account")
		}
		if acct = f.slots[n].Load(); acct == nil {
			return "", nil, nil, errors.New("no such account")
		}
	}
	sig, err := base64.RawURLEncoding.DecodeString(jws.Signature)
	if err != nil || len(sig) != 64 {
		return "", nil, nil, errors.New("not an ES256 signature")
	}
	digest := sha256.New()
	io.WriteString(digest, jws.Protected)
	io.WriteString(digest, ".")
	io.WriteString(digest, jws.Payload)
	if !ecdsa.Verify(acct.key, digest.Sum(nil), new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return "", nil, nil, errors.New("the signature is wrong")
	}
	payload, err = base64.RawURLEncoding.DecodeString(jws.Payload)
	return id, acct, payload, err
}

func newFloorAccount(x, y string) (*floorAccount, error) {
	point := []byte{4}
	for _, c := range []string{x, y} {
		raw, err := base64.RawURLEncoding.DecodeString(c)
		if err != nil {
			return nil, err
		}
		point = append(point, raw...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	return &floorAccount{key, base64.RawURLEncoding.EncodeToString(sum[:])}, nil
}

// prove makes the http-01 validation.
func (f *floorServer) prove(ctx context.Context, name string, acct *floorAccount) error {
	t := token(name)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+":"+f.httpPort+"/.well-known/acme-challenge/"+t, nil)
	if err != nil {
		return err
	}
	resp, err := f.validate.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil {
		return err
	}
	if string(body) != t+"."+acct.thumbprint {
		return errors.New("wrong key authorization")
	}
	return nil
}

// sign checks the CSR and makes a certificate's signature. The certificate
// around it is the prepared one.
func (f *floorServer) sign(payload []byte) error {
	var finalize struct{ CSR string }
	if err := json.Unmarshal(payload, &finalize); err != nil {
		return err
	}
	der, err := base64.RawURLEncoding.DecodeString(finalize.CSR)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	digest := sha256.Sum256(f.tbs)
	_, err = ecdsa.SignASN1(rand.Reader, f.key, digest[:])
	return err
}
