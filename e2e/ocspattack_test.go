package e2e_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// The parts of a request (RFC 6960, 4.1.1), for those that no client sends.
type (
	ocspID struct {
		Hash              pkix.AlgorithmIdentifier
		NameHash, KeyHash []byte
		Serial            *big.Int
	}
	singleRequest struct {
		CertID     ocspID
		Extensions []pkix.Extension `asn1:"explicit,tag:0,optional,omitempty"`
	}
	tbsRequest struct {
		Requests   []singleRequest
		Extensions []pkix.Extension `asn1:"explicit,tag:2,optional,omitempty"`
	}
	signature struct {
		Algorithm pkix.AlgorithmIdentifier
		Value     asn1.BitString
	}
	rawRequest struct {
		TBS       tbsRequest
		Signature signature `asn1:"explicit,tag:0,optional,omitempty"`
	}
)

var (
	oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidSHA   = map[crypto.Hash]asn1.ObjectIdentifier{
		crypto.MD5:    {1, 2, 840, 113549, 2, 5},
		crypto.SHA1:   {1, 3, 14, 3, 2, 26},
		crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
		crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
		crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
	}
)

func marshal(w *harness.World, v any) []byte {
	w.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		w.Fatal(err)
	}
	return der
}

// certIDOf names a certificate by its issuer and serial.
func certIDOf(w *harness.World, issuer *x509.Certificate, serial *big.Int, hash crypto.Hash) ocspID {
	w.Helper()
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &spki); err != nil {
		w.Fatal(err)
	}
	sum := func(b []byte) []byte {
		h := hash.New()
		h.Write(b)
		return h.Sum(nil)
	}
	return ocspID{pkix.AlgorithmIdentifier{Algorithm: oidSHA[hash], Parameters: asn1.NullRawValue}, sum(issuer.RawSubject), sum(spki.Key.Bytes), serial}
}

// about is a request about certificates, with extensions.
func about(w *harness.World, extensions []pkix.Extension, ids ...ocspID) []byte {
	w.Helper()
	r := rawRequest{TBS: tbsRequest{Extensions: extensions}}
	for _, id := range ids {
		r.TBS.Requests = append(r.TBS.Requests, singleRequest{CertID: id})
	}
	return marshal(w, r)
}

// nonceExtension is the extension with so many octets (RFC 9654, 2.1).
func nonceExtension(w *harness.World, octets int) pkix.Extension {
	w.Helper()
	return pkix.Extension{Id: oidNonce, Value: marshal(w, bytes.Repeat([]byte{7}, octets))}
}

// badRequest is what a stranger sends, and what answers it.
type badRequest struct {
	name string
	der  []byte
	want ocsp.ResponseStatus
}

// badRequests are all that differ from a good one in one thing.
func badRequests(w *harness.World, s *site, i *issued) []badRequest {
	w.Helper()
	sha1 := certIDOf(w, i.issuer, i.leaf.SerialNumber, crypto.SHA1)
	good := about(w, nil, sha1)
	var all []badRequest
	malformed := func(name string, der []byte) { all = append(all, badRequest{name, der, ocsp.Malformed}) }
	unauthorized := func(name string, der []byte) { all = append(all, badRequest{name, der, ocsp.Unauthorized}) }
	for n := range good {
		malformed(fmt.Sprintf("the first %d bytes", n), good[:n])
	}
	malformed("one byte more", append(slices.Clone(good), 0))
	malformed("twice", append(slices.Clone(good), good...))
	malformed("a certificate", i.leaf.Raw[:min(len(i.leaf.Raw), 4000)])
	malformed("text", []byte("GET / HTTP/1.1\r\n\r\n"))
	malformed("nobody asked for", about(w, nil))
	deep := bytes.Repeat([]byte{0x30, 0x80}, 2000)
	malformed("nested without end", deep)
	malformed("a length beyond all memory", []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30})
	short := sha1
	short.NameHash = short.NameHash[:19]
	malformed("a hash of 19 octets", about(w, nil, short))
	for _, octets := range []int{0, 129, 1000} {
		malformed(fmt.Sprintf("a nonce of %d octets", octets), about(w, []pkix.Extension{nonceExtension(w, octets)}, sha1))
	}
	malformed("two nonces", about(w, []pkix.Extension{nonceExtension(w, 32), nonceExtension(w, 32)}, sha1))
	malformed("a nonce that is no OCTET STRING", about(w, []pkix.Extension{{Id: oidNonce, Value: []byte{1, 2, 3}}}, sha1))

	unauthorized("two serials", about(w, nil, sha1, sha1))
	unauthorized("forty serials", about(w, nil, slices.Repeat([]ocspID{sha1}, 40)...))
	for _, hash := range []crypto.Hash{crypto.MD5, crypto.SHA384, crypto.SHA512} {
		unauthorized(hash.String(), about(w, nil, certIDOf(w, i.issuer, i.leaf.SerialNumber, hash)))
	}
	unauthorized("a critical extension", about(w, []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}, sha1))
	others := map[string]*x509.Certificate{
		"the root": w.Chain(w.Read(s.root))[0], "an issuer without OCSP": w.Chain(w.Read(s.dir + "/ca/clients.pem"))[0], "a stranger": i.leaf,
	}
	for name, issuer := range others {
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			unauthorized("of "+name+", "+hash.String(), about(w, nil, certIDOf(w, issuer, i.leaf.SerialNumber, hash)))
		}
	}
	mixed := sha1
	mixed.NameHash = certIDOf(w, others["the root"], i.leaf.SerialNumber, crypto.SHA1).NameHash
	unauthorized("another issuer's name with this one's key", about(w, nil, mixed))
	for name, serial := range map[string]*big.Int{
		"0": big.NewInt(0), "negative": new(big.Int).Neg(i.leaf.SerialNumber), "of 21 octets": new(big.Int).Lsh(big.NewInt(1), 8*20),
		"of 2000 octets": new(big.Int).Lsh(big.NewInt(1), 8*1999), "one more": new(big.Int).Add(i.leaf.SerialNumber, big.NewInt(1)),
	} {
		unauthorized("a serial "+name, about(w, nil, certIDOf(w, i.issuer, serial, crypto.SHA256)))
	}
	return all
}

// A stranger can't spend the issuing key: whatever is asked gets RFC 6960's
// answer for it, and no signature.
func TestOCSPBadRequests(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		s := newSite(w, "\n# https://HOST/acme/NAME/directory", `  listed:
    description: "TLS servers that are on lists only"
    issuer: servers
    usages: [server]
    challenges: [http-01]
    revocation: crl

# https://HOST/acme/NAME/directory`, `profiles: ["server"]`, `profiles: ["server", "listed"]`)
		r := s.start1()
		c := r.account()
		h := relying(w)
		i := s.obtain(c, "a.test")
		listed, err := s.tryObtain(c, acme.OrderRequest{Identifiers: acme.Identifiers("b.test"), Profile: "listed"})
		if err != nil {
			w.Fatal(err)
		}
		if len(listed.leaf.OCSPServer) != 0 || len(listed.leaf.CRLDistributionPoints) != 1 {
			w.Fatalf("a certificate of profile listed points to %q and %q", listed.leaf.OCSPServer, listed.leaf.CRLDistributionPoints)
		}
		r.ask(h, i)
		before := r.signatures()
		if before != 1 {
			w.Errorf("%d signatures for the first answer", before)
		}
		w.Sub("one thing wrong", func(w *harness.World) {
			for _, bad := range append(badRequests(w, s, i),
				badRequest{"a certificate that doesn't point here", ocspRequest(w, listed, crypto.SHA1), ocsp.Unauthorized},
				badRequest{"a certificate that doesn't point here, SHA-256", ocspRequest(w, listed, crypto.SHA256), ocsp.Unauthorized}) {
				refusedOCSP(w, h, r, bad)
			}
		})
		w.Sub("too large", func(w *harness.World) { tooLarge(w, h, r, i) })
		w.Sub("not OCSP's HTTP", func(w *harness.World) { notOCSP(w, h, r, i) })
		w.Sub("broken off", func(w *harness.World) { brokenOff(w, r) })
		w.Sub("thousands of serials", func(w *harness.World) { thousands(w, h, r, i.issuer) })
		if n := r.signatures() - before; n != 0 {
			w.Errorf("%d signatures were wasted on strangers", n)
		}
		if n := r.metric("chancery_ocsp_signed_total") + r.metric("chancery_ocsp_wanted_total"); n != 2 {
			w.Errorf("%v answers were wanted and signed, of one certificate", n)
		}
		w.Sub("what is allowed", func(w *harness.World) { allowedRequests(w, h, r, i) })
		if n := r.signatures() - before; n != 1 { // the one for SHA-256
			w.Errorf("%d signatures for one more hash", n)
		}
	})
}

// refusedOCSP sends a bad request by POST and by GET.
func refusedOCSP(w *harness.World, h *http.Client, r *replica, bad badRequest) {
	w.Helper()
	post, err := postOCSP(h, r.ocspURL(), bad.der)
	if err != nil {
		w.Fatal(err)
	}
	get, err := getOCSP(h, r.ocspURL(), bad.der)
	if err != nil {
		w.Fatal(err)
	}
	if post.status() != bad.want {
		w.Errorf("%s: POST is answered by %d, OCSP status %d, want %d", bad.name, post.code, post.status(), bad.want)
	}
	if get.status() != bad.want {
		w.Errorf("%s: GET is answered by %d, OCSP status %d, want %d", bad.name, get.code, get.status(), bad.want)
	}
	for _, a := range []ocspAnswer{post, get} {
		if cc := a.header.Get("Cache-Control"); !strings.Contains(cc, "no-store") {
			w.Errorf("%s: caches may keep the refusal: %q", bad.name, cc)
		}
	}
}

// tooLarge: no request of ours is longer than 4 KiB, and no more is read.
func tooLarge(w *harness.World, h *http.Client, r *replica, i *issued) {
	w.Helper()
	long := about(w, nil, slices.Repeat([]ocspID{certIDOf(w, i.issuer, i.leaf.SerialNumber, crypto.SHA1)}, 100)...)
	for name, body := range map[string]io.Reader{
		"100 serials": bytes.NewReader(long),
		"4 KiB and 1": bytes.NewReader(make([]byte, 4<<10+1)),
		"unsaid":      io.LimitReader(zeros{}, 64<<10), // chunked
		"16 MiB":      bytes.NewReader(make([]byte, 16<<20)),
	} {
		res, err := h.Post(r.ocspURL(), "application/ocsp-request", body)
		if err != nil { // it answered and hung up while we were sending
			w.Logf("%s: %v", name, err)
			continue
		}
		a, err := readOCSP(res, nil)
		if err != nil || a.code != http.StatusRequestEntityTooLarge && a.status() != ocsp.Malformed {
			w.Errorf("%s: answered %d, OCSP status %d, %v", name, a.code, a.status(), err)
		}
	}
	for _, n := range []int{4 << 10, 16 << 10, 512 << 10} {
		a, err := getOCSP(h, r.ocspURL(), bytes.Repeat([]byte{0x30}, n))
		if err != nil || a.code/100 != 4 && a.status() != ocsp.Malformed {
			w.Errorf("%d bytes in the path: answered %d, OCSP status %d, %v", n, a.code, a.status(), err)
		}
	}
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// notOCSP: what isn't a request for an answer by its HTTP already.
func notOCSP(w *harness.World, h *http.Client, r *replica, i *issued) {
	w.Helper()
	der := ocspRequest(w, i, crypto.SHA1)
	for _, bad := range []struct {
		method, path, kind string
		want               int
	}{
		{http.MethodPut, "", "application/ocsp-request", http.StatusMethodNotAllowed},
		{http.MethodDelete, "", "", http.StatusMethodNotAllowed},
		{http.MethodOptions, "", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "", "application/json", http.StatusUnsupportedMediaType},
		{http.MethodPost, "/other", "application/ocsp-request", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(w.Context(), bad.method, r.ocspURL()+bad.path, bytes.NewReader(der))
		if err != nil {
			w.Fatal(err)
		}
		if bad.kind != "" {
			req.Header.Set("Content-Type", bad.kind)
		}
		res, err := h.Do(req)
		if err != nil {
			w.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != bad.want {
			w.Errorf("%s %s %s: %s, want %d", bad.method, bad.path, bad.kind, res.Status, bad.want)
		}
	}
	for _, path := range []string{"/", "/%00", "/!!!!", "/AAAA", "/%ff%fe", "/../../etc/passwd", "/a/b/c", "/MA=="} {
		res, err := h.Get(r.ocspURL() + path)
		a, err := readOCSP(res, err)
		if err != nil || a.code/100 != 4 && a.status() != ocsp.Malformed {
			w.Errorf("GET %s: answered %d, OCSP status %d, %v", path, a.code, a.status(), err)
		}
	}
}

// brokenOff: a client that hangs up in the middle costs nothing, and what it
// gets, if anything, is no 5xx.
func brokenOff(w *harness.World, r *replica) {
	w.Helper()
	for range 50 {
		c, err := net.Dial("tcp", r.publish)
		if err != nil {
			w.Fatal(err)
		}
		fmt.Fprintf(c, "POST /ocsp HTTP/1.1\r\nHost: ocsp.ca.test\r\nContent-Type: application/ocsp-request\r\nContent-Length: 200\r\n\r\n0")
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, _ := io.ReadAll(io.LimitReader(c, 1<<16)) // a reset is an answer too
		if bytes.HasPrefix(answer, []byte("HTTP/1.1 5")) {
			w.Errorf("a request that broke off: %.100s", answer)
		}
		_ = c.Close()
	}
}

// thousands of serials that there aren't, asked for at once.
func thousands(w *harness.World, h *http.Client, r *replica, issuer *x509.Certificate) {
	w.Helper()
	const many, at = 4000, 16
	var refused atomic.Int64
	var asking sync.WaitGroup
	start := time.Now()
	for n := range at {
		asking.Go(func() {
			for range many / at {
				serial := make([]byte, 16)
				_, _ = rand.Read(serial) // never fails
				serial[0] |= 1
				hash := crypto.SHA1
				how := postOCSP
				if n%2 == 0 {
					hash, how = crypto.SHA256, getOCSP
				}
				a, err := how(h, r.ocspURL(), about(w, nil, certIDOf(w, issuer, new(big.Int).SetBytes(serial), hash)))
				if err != nil || a.status() != ocsp.Unauthorized {
					w.Errorf("a serial that there isn't: answered %d, OCSP status %d, %v", a.code, a.status(), err)
					return
				}
				refused.Add(1)
			}
		})
	}
	asking.Wait()
	w.Logf("%d refused in %v", refused.Load(), time.Since(start))
}

// allowedRequests: what looks odd and is allowed.
func allowedRequests(w *harness.World, h *http.Client, r *replica, i *issued) {
	w.Helper()
	sha1, sha256 := certIDOf(w, i.issuer, i.leaf.SerialNumber, crypto.SHA1), certIDOf(w, i.issuer, i.leaf.SerialNumber, crypto.SHA256)
	bare := sha256
	bare.Hash.Parameters = asn1.RawValue{} // RFC 5754, 2: absent is right, too
	named := rawRequest{TBS: tbsRequest{Requests: []singleRequest{{CertID: sha1}}}}
	named.Signature = signature{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, asn1.BitString{Bytes: []byte{1, 2, 3}, BitLength: 24}}
	for name, der := range map[string][]byte{
		"no parameters":           about(w, nil, bare),
		"a nonce of 1 octet":      about(w, []pkix.Extension{nonceExtension(w, 1)}, sha1),
		"a nonce of 128 octets":   about(w, []pkix.Extension{nonceExtension(w, 128)}, sha1), // RFC 9654, 2.1
		"an extension":            about(w, []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}, sha1),
		"a signature, for nobody": marshal(w, named),
	} {
		a, err := postOCSP(h, r.ocspURL(), der)
		if err != nil || a.status() != ocsp.Success {
			w.Errorf("%s: answered %d, OCSP status %d, %v", name, a.code, a.status(), err)
			continue
		}
		if o := verified(w, a, i); o.Status != ocsp.Good {
			w.Errorf("%s: status %d", name, o.Status)
		}
	}
}
