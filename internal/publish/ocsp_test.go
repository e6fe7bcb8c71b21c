package publish

import (
	"bytes"
	"context"
	"crypto"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// post asks by POST.
func post(p http.Handler, path string, body []byte, header ...string) *http.Response {
	r := httptest.NewRequest("POST", path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/ocsp-request")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, w *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// status is that of the certificate, as a relying party reads it.
func status(t testing.TB, a *authority, w *http.Response) int {
	t.Helper()
	if w.StatusCode != 200 || w.Header.Get("Content-Type") != "application/ocsp-response" {
		t.Fatalf("%s, %s", w.Status, w.Header)
	}
	o, err := ocsp.ParseResponse(body(t, w), a.cert)
	if err != nil {
		t.Fatal(err)
	}
	return o.Status
}

// paths are ways to write a request into a path, of real clients (RFC 6960
// appendix A.1: base64, then url-encoded).
func paths(der []byte) map[string]string {
	std := base64.StdEncoding.EncodeToString(der)
	return map[string]string{
		"escaped":              "/ocsp/" + url.QueryEscape(std),
		"escaped as a segment": "/ocsp/" + url.PathEscape(std),
		"as it is":             "/ocsp/" + std,
		"slashes escaped":      "/ocsp/" + strings.ReplaceAll(std, "/", "%2F"),
		"lower-case escapes":   "/ocsp/" + strings.NewReplacer("/", "%2f", "+", "%2b", "=", "%3d").Replace(std),
		"no padding":           "/ocsp/" + strings.TrimRight(std, "="),
		"base64url":            "/ocsp/" + base64.URLEncoding.EncodeToString(der),
		"plus became a space":  "/ocsp/" + strings.NewReplacer("+", "%20", "/", "%2F").Replace(std),
		"one slash more":       "/ocsp//" + url.QueryEscape(std),
		"one escaped more":     "/ocsp/%2F" + url.QueryEscape(std),
		"a query that is none": "/ocsp/" + url.QueryEscape(std) + "?",
	}
}

// RFC 6960 appendix A.1 and RFC 5019 section 5: what clients send.
func TestRequests(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	p := newPublisher(t, s)
	// With '+', '/' and padding in all positions.
	for i := range 200 {
		serial := cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		der := a.ask(t, serial, []crypto.Hash{crypto.SHA1, crypto.SHA256}[i%2])
		for name, path := range paths(der) {
			if got := status(t, a, request(p, "GET", path)); got != ocsp.Good {
				t.Fatalf("%s: %s: status %d", name, path, got)
			}
		}
		for _, path := range []string{"/ocsp", "/ocsp/"} {
			if got := status(t, a, post(p, path, der)); got != ocsp.Good {
				t.Fatalf("POST %s: status %d", path, got)
			}
		}
	}
	if n := s.asked(); n != 200 {
		t.Errorf("the source was asked %d times about 200 certificates", n)
	}
}

// sequence wraps what is in it.
func sequence(content []byte) []byte {
	der, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
	return der
}

// Whatever is wrong with a request gets OCSP's own status and HTTP's 200; only
// method, size and type get a 4xx, and nothing a 5xx. No cache keeps any.
func TestBadRequests(t *testing.T) {
	a, other := newAuthority(t, "servers"), newAuthority(t, "clients")
	s := newSource(a)
	p := newPublisher(t, s)
	serial := cert.NewSerial()
	s.statuses[serial] = ocsp.Good
	good := a.ask(t, serial, crypto.SHA1)
	entry := good[6:] // SEQUENCE SEQUENCE SEQUENCE Request
	two := sequence(sequence(sequence(append(entry[:len(entry):len(entry)], entry...))))
	const malformed, unauthorized, ok = revocation.OCSPMalformedRequest, revocation.OCSPUnauthorized, 0
	for name, c := range map[string]struct {
		method, path string
		body         []byte
		header       []string
		http, ocsp   int
	}{
		"good":                     {"POST", "/ocsp", good, nil, 200, ok},
		"no type":                  {"POST", "/ocsp", good, []string{"Content-Type", ""}, 200, ok},
		"type with parameter":      {"POST", "/ocsp", good, []string{"Content-Type", "Application/OCSP-Request; x=y"}, 200, ok},
		"empty":                    {"POST", "/ocsp", nil, nil, 200, malformed},
		"truncated":                {"POST", "/ocsp", good[:len(good)-1], nil, 200, malformed},
		"trailing":                 {"POST", "/ocsp", append(good[:len(good):len(good)], 0), nil, 200, malformed},
		"not DER":                  {"POST", "/ocsp", []byte("hello"), nil, 200, malformed},
		"two certificates":         {"POST", "/ocsp", two, nil, 200, unauthorized},
		"unknown serial":           {"POST", "/ocsp", a.ask(t, cert.NewSerial(), crypto.SHA1), nil, 200, unauthorized},
		"another issuer":           {"POST", "/ocsp", other.ask(t, serial, crypto.SHA1), nil, 200, unauthorized},
		"unknown hash":             {"POST", "/ocsp", a.ask(t, serial, crypto.SHA384), nil, 200, unauthorized},
		"as long as may be":        {"POST", "/ocsp", make([]byte, revocation.MaxOCSPRequest), nil, 200, malformed},
		"too long":                 {"POST", "/ocsp", make([]byte, revocation.MaxOCSPRequest+1), nil, 200, malformed},
		"huge":                     {"POST", "/ocsp", make([]byte, 1<<20), nil, 200, malformed},
		"a form":                   {"POST", "/ocsp", good, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, 0},
		"a response":               {"POST", "/ocsp", good, []string{"Content-Type", "application/ocsp-response"}, 415, 0},
		"POST below":               {"POST", "/ocsp/x", good, nil, 404, 0},
		"GET nothing":              {"GET", "/ocsp", nil, nil, 200, malformed},
		"GET nothing, slash":       {"GET", "/ocsp/", nil, nil, 200, malformed},
		"GET not base64":           {"GET", "/ocsp/(*)", nil, nil, 200, malformed},
		"GET base64 of nothing":    {"GET", "/ocsp/====", nil, nil, 200, malformed},
		"GET truncated":            {"GET", "/ocsp/" + base64.StdEncoding.EncodeToString(good[:20]), nil, nil, 200, malformed},
		"GET unknown":              {"GET", "/ocsp/" + base64.StdEncoding.EncodeToString(a.ask(t, cert.NewSerial(), crypto.SHA1)), nil, nil, 200, unauthorized},
		"GET as long as may be":    {"GET", "/ocsp/" + strings.Repeat("A", 5464), nil, nil, 200, malformed},
		"GET too long":             {"GET", "/ocsp/" + strings.Repeat("A", 5465), nil, nil, 200, malformed},
		"HEAD":                     {"HEAD", "/ocsp/" + base64.StdEncoding.EncodeToString(good), nil, nil, 200, ok},
		"PUT":                      {"PUT", "/ocsp", good, nil, 405, 0},
		"DELETE":                   {"DELETE", "/ocsp", nil, nil, 405, 0},
		"OPTIONS":                  {"OPTIONS", "/ocsp", nil, nil, 405, 0},
		"something that begins so": {"POST", "/ocspx", good, nil, 404, 0},
	} {
		r := httptest.NewRequest(c.method, c.path, bytes.NewReader(c.body))
		if c.method == "POST" {
			r.Header.Set("Content-Type", "application/ocsp-request")
		}
		for i := 0; i < len(c.header); i += 2 {
			if r.Header.Del(c.header[i]); c.header[i+1] != "" {
				r.Header.Set(c.header[i], c.header[i+1])
			}
		}
		for _, length := range []int64{int64(len(c.body)), -1} { // -1: chunked
			r.ContentLength, r.Body = length, io.NopCloser(bytes.NewReader(c.body))
			recorder := httptest.NewRecorder()
			p.ServeHTTP(recorder, r)
			w := recorder.Result()
			got := body(t, w)
			if w.StatusCode != c.http {
				t.Errorf("%s: %s; want %d", name, w.Status, c.http)
			}
			h := w.Header
			if c.http != 200 || c.ocsp != ok {
				if h.Get("Cache-Control") != "no-store" || h.Get("ETag") != "" || h.Get("Expires") != "" {
					t.Errorf("%s: %v", name, h)
				}
			}
			if c.http == 405 && h.Get("Allow") != "GET, HEAD, POST" {
				t.Errorf("%s: Allow %q", name, h.Get("Allow"))
			}
			if c.http == 200 && c.ocsp != ok && !bytes.Equal(got, revocation.OCSPError(c.ocsp)) {
				t.Errorf("%s: %x; want status %d", name, got, c.ocsp)
			}
			if c.http == 200 && c.ocsp == ok && c.method == "POST" {
				if o, err := ocsp.ParseResponse(got, a.cert); err != nil || o.Status != ocsp.Good {
					t.Errorf("%s: %v", name, err)
				}
			}
			if h.Get("Strict-Transport-Security") != "" {
				t.Errorf("%s: HSTS", name)
			}
		}
	}
}

// A body that ends early is no request.
func TestBrokenBody(t *testing.T) {
	a := newAuthority(t, "servers")
	p := newPublisher(t, newSource(a))
	good := a.ask(t, cert.NewSerial(), crypto.SHA1)
	r := httptest.NewRequest("POST", "/ocsp", io.MultiReader(bytes.NewReader(good), errorReader{}))
	r.ContentLength = int64(len(good) + 10)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Code != 400 {
		t.Errorf("%d", w.Code)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// RFC 5019 section 6.2.
func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		s := newSource(a)
		p := newPublisher(t, s)
		serial := cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		path := "/ocsp/" + base64.StdEncoding.EncodeToString(a.ask(t, serial, crypto.SHA1))
		made := time.Now()
		first := request(p, "GET", path)
		der := body(t, first)
		for range 8 * 60 {
			w, now := request(p, "GET", path), time.Now()
			if !bytes.Equal(body(t, w), der) && now.Before(made.Add(6*time.Hour)) {
				t.Fatal("another answer")
			}
			o, err := ocsp.ParseResponse(body(t, request(p, "GET", path)), a.cert)
			if err != nil {
				t.Fatal(err)
			}
			h := request(p, "GET", path).Header
			if h.Get("Last-Modified") != o.ThisUpdate.Format(http.TimeFormat) || h.Get("Expires") != o.NextUpdate.Format(http.TimeFormat) || h.Get("ETag") == "" {
				t.Fatal(h)
			}
			var age int
			if _, err := fmt.Sscanf(h.Get("Cache-Control"), "public, no-transform, must-revalidate, max-age=%d", &age); err != nil {
				t.Fatalf("%q: %v", h.Get("Cache-Control"), err)
			}
			kept := now.Add(time.Duration(age) * time.Second)
			if age < 10 || kept.After(o.NextUpdate.Add(-time.Hour)) {
				t.Fatalf("%d seconds at %v, of an answer until %v", age, now, o.NextUpdate)
			}
			time.Sleep(time.Minute)
		}
		serial = cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		path = "/ocsp/" + base64.StdEncoding.EncodeToString(a.ask(t, serial, crypto.SHA1))
		etag := request(p, "GET", path).Header.Get("ETag")
		for name, c := range map[string]struct {
			header []string
			want   int
		}{
			"same ETag":             {[]string{"If-None-Match", etag}, 304},
			"other ETag":            {[]string{"If-None-Match", `"x"`}, 200},
			"not modified since":    {[]string{"If-Modified-Since", time.Now().UTC().Format(http.TimeFormat)}, 304},
			"modified since":        {[]string{"If-Modified-Since", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}, 200},
			"bad date":              {[]string{"If-Modified-Since", "yesterday"}, 200},
			"a range means nothing": {[]string{"Range", "bytes=0-3"}, 200},
		} {
			w := request(p, "GET", path, c.header...)
			if w.StatusCode != c.want || w.Header.Get("ETag") != etag || w.Header.Get("Cache-Control") == "" {
				t.Errorf("%s: %s %v", name, w.Status, w.Header)
			}
			if n := len(body(t, w)); (c.want == 304) != (n == 0) {
				t.Errorf("%s: %d bytes", name, n)
			}
		}
		if w := post(p, "/ocsp", a.ask(t, serial, crypto.SHA1), "If-None-Match", etag); w.StatusCode != 200 {
			t.Errorf("POST with a condition: %s", w.Status) // RFC 9110 section 13.1.2 speaks of 412; OCSP has no use for either
		}
	})
}

// Nonces: ignored where the source has no delegate, else never cached.
func TestNonces(t *testing.T) {
	a := newAuthority(t, "servers")
	serial := cert.NewSerial()
	plain := a.ask(t, serial, crypto.SHA1)
	nonce := []byte{0xa2, 0x1f, 0x30, 0x1d, 0x30, 0x1b, 0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02, 0x04, 0x0e, 0x04, 0x0c}
	nonce = append(nonce, "twelve bytes"...)
	with := sequence(sequence(append(append([]byte(nil), plain[4:]...), nonce...)))
	for _, nonces := range []bool{false, true} {
		s := newSource(a)
		s.nonces, s.statuses[serial] = nonces, ocsp.Good
		p := newPublisher(t, s)
		for _, der := range [][]byte{plain, with, with, plain} {
			w := post(p, "/ocsp", der)
			if got := status(t, a, w); got != ocsp.Good {
				t.Fatal(got)
			}
			personal := nonces && bytes.Equal(der, with)
			if noStore := w.Header.Get("Cache-Control") == "no-store"; noStore != personal {
				t.Errorf("nonces %v: %v", nonces, w.Header)
			}
		}
		if n, want := s.asked(), map[bool]int{false: 1, true: 3}[nonces]; n != want {
			t.Errorf("nonces %v: asked %d times, want %d", nonces, n, want)
		}
	}
}

// The source's refusals and troubles.
func TestSourceRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		s := newSource(a)
		var log bytes.Buffer
		var seen []Request
		p := newPublisher(t, s, func(o *Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			o.Served = func(r Request) { r.Took = 0; seen = append(seen, r) }
		})
		serial := cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		der := a.ask(t, serial, crypto.SHA1)
		for _, c := range []struct {
			err  error
			want int
		}{
			{responder.ErrTryLater, revocation.OCSPTryLater},
			{fmt.Errorf("wrapped: %w", responder.ErrUnauthorized), revocation.OCSPUnauthorized},
			{errors.New("the database is gone"), revocation.OCSPInternalError},
			{context.Canceled, revocation.OCSPInternalError},
		} {
			s.trouble = c.err
			w := post(p, "/ocsp", der)
			if got := body(t, w); w.StatusCode != 200 || !bytes.Equal(got, revocation.OCSPError(c.want)) || w.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v: %s %x", c.err, w.Status, got)
			}
		}
		s.trouble = nil
		status(t, a, post(p, "/ocsp", der))
		status(t, a, post(p, "/ocsp", der))
		post(p, "/ocsp", nil)
		request(p, "PUT", "/ocsp")
		want := []Request{{"ocsp", 200, "try_later", 0}, {"ocsp", 200, "unauthorized", 0}, {"ocsp", 200, "failed", 0}, {"ocsp", 200, "failed", 0},
			{"ocsp", 200, "answered", 0}, {"ocsp", 200, "cached", 0}, {"ocsp", 200, "malformed", 0}, {"ocsp", 405, "refused", 0}}
		for i := range want {
			if len(seen) != len(want) || seen[i] != want[i] {
				t.Fatalf("%v; want %v", seen, want)
			}
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 { // of two within a second
			t.Errorf("%d log lines: %s", n, log.String())
		}
	})
}

// A cached good answer dies before its revocation is confirmed; one that was
// under way meanwhile reaches neither the cache nor the asker.
func TestRevocation(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	p := newPublisher(t, s)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		serial := cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		der := a.ask(t, serial, hash)
		for range 2 {
			if got := status(t, a, post(p, "/ocsp", der)); got != ocsp.Good {
				t.Fatal(got)
			}
		}
		s.revoke(serial)
		if got := status(t, a, post(p, "/ocsp", der)); got != ocsp.Revoked {
			t.Errorf("%v: still %d", hash, got)
		}

		serial = cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		var once sync.Once
		s.before = func() { once.Do(func() { s.revoke(serial) }) }
		der = a.ask(t, serial, hash)
		for range 2 {
			if got := status(t, a, post(p, "/ocsp", der)); got != ocsp.Revoked {
				t.Errorf("%v: revoked while it was being answered, and %d", hash, got)
			}
		}
	}
}

// While revocations may go unheard the source is asked each time, and what was
// asked before they did, or during, isn't in the cache after.
func TestNotIntact(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	p := newPublisher(t, s)
	serial := cert.NewSerial()
	s.statuses[serial] = ocsp.Good
	der := a.ask(t, serial, crypto.SHA1)
	silently := func(status int) { s.set(func(s *source) { s.statuses[serial] = status }) }
	ask := func(want int, what string) {
		t.Helper()
		if got := status(t, a, post(p, "/ocsp", der)); got != want {
			t.Errorf("%s: status %d, want %d", what, got, want)
		}
	}
	ask(ocsp.Good, "at first")
	s.intact(false)
	silently(ocsp.Revoked)
	ask(ocsp.Revoked, "notices were lost")
	silently(ocsp.Good)
	ask(ocsp.Good, "asked each time")
	silently(ocsp.Revoked)
	s.intact(true)
	ask(ocsp.Revoked, "heard again: the cache had been emptied")

	serial = cert.NewSerial()
	silently(ocsp.Good)
	der = a.ask(t, serial, crypto.SHA1)
	var once sync.Once
	s.before = func() {
		once.Do(func() { s.intact(false); silently(ocsp.Revoked); s.intact(true) })
	}
	ask(ocsp.Revoked, "lost while it was being answered")
	ask(ocsp.Revoked, "after that")
	n := s.asked()
	ask(ocsp.Revoked, "cached")
	if s.asked() != n {
		t.Error("the cache isn't used any more")
	}
}

// In the last quarter of an answer's life one asker in half a minute fetches a
// newer one, the others get the cached one; none gets one that has ended.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		s := newSource(a)
		p := newPublisher(t, s)
		serial := cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		der := a.ask(t, serial, crypto.SHA1)
		produced := func() time.Time {
			o, err := ocsp.ParseResponse(body(t, post(p, "/ocsp", der)), a.cert)
			if err != nil {
				t.Fatal(err)
			}
			if !time.Now().Before(o.NextUpdate) {
				t.Fatal("it has ended")
			}
			return o.ThisUpdate
		}
		first := produced()
		time.Sleep(6*time.Hour - time.Second)
		if produced(); s.asked() != 1 {
			t.Fatalf("asked %d times", s.asked())
		}
		time.Sleep(2 * time.Second)
		if now := produced(); s.asked() != 2 || now.Equal(first) {
			t.Errorf("asked %d times; from %v", s.asked(), now)
		}
		// The source has trouble: the cached one serves.
		time.Sleep(6 * time.Hour)
		s.trouble = errors.New("gone")
		for range 60 {
			produced()
			time.Sleep(time.Second)
		}
		if n := s.asked(); n < 4 || n > 5 {
			t.Errorf("asked %d times in a minute", n-2)
		}
		s.trouble = nil
		time.Sleep(3 * time.Hour)
		produced()
	})
}

// The cache is bounded, and never takes a stranger's serials.
func TestCacheBound(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	const room = 256 * 2500 // two answers a part
	p := newPublisher(t, s, func(o *Options) { o.CacheSize = room })
	for range 3000 {
		serial := cert.NewSerial()
		s.statuses[serial] = ocsp.Good
		status(t, a, post(p, "/ocsp", a.ask(t, serial, crypto.SHA1)))
		post(p, "/ocsp", a.ask(t, cert.NewSerial(), crypto.SHA1)) // nobody's
	}
	total, answers := 0, 0
	for i := range p.cache.parts {
		part := &p.cache.parts[i]
		size := 0
		for _, a := range part.answers {
			size += a.size()
		}
		if size != part.size || size > p.cache.room {
			t.Fatalf("part %d has %d bytes, says %d, may have %d", i, size, part.size, p.cache.room)
		}
		total += size
		answers += len(part.answers)
	}
	if total > room || answers < 256 {
		t.Errorf("%d answers, %d bytes", answers, total)
	}
}

// Requests, revocations and lost notices at once: whoever asks after a
// revocation was confirmed gets no good answer. (Run it with -race.)
func TestRace(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	p := newPublisher(t, s)
	serials := make([]cert.Serial, 20)
	for i := range serials {
		serials[i] = cert.NewSerial()
		s.statuses[serials[i]] = ocsp.Good
	}
	var confirmed sync.Map
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 300 {
				serial := serials[(i+worker)%len(serials)]
				_, revoked := confirmed.Load(serial)
				got := body(t, post(p, "/ocsp", a.ask(t, serial, crypto.SHA1)))
				if bytes.Equal(got, revocation.OCSPError(revocation.OCSPTryLater)) {
					continue // much was revoked meanwhile
				}
				if o, err := ocsp.ParseResponse(got, a.cert); err != nil || revoked && o.Status != ocsp.Revoked {
					t.Errorf("%v, status %v after the revocation", err, o)
					return
				}
			}
		})
	}
	all.Go(func() {
		for _, serial := range serials {
			time.Sleep(time.Millisecond)
			s.revoke(serial)
			confirmed.Store(serial, true)
			s.intact(false)
			s.intact(true)
		}
	})
	all.Wait()
}

func TestDropOfNonsense(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	p := newPublisher(t, s)
	serial := cert.NewSerial()
	s.statuses[serial] = ocsp.Good
	status(t, a, post(p, "/ocsp", a.ask(t, serial, crypto.SHA1)))
	for _, bad := range []cert.Serial{"", "zz", "abc", cert.Serial(strings.Repeat("ab", 30))} {
		s.revoked(a.keyID, bad)
	}
	if n := s.asked(); n != 1 {
		t.Fatal(n)
	}
	status(t, a, post(p, "/ocsp", a.ask(t, serial, crypto.SHA1)))
	if n := s.asked(); n != 2 { // what isn't a serial empties the cache
		t.Errorf("asked %d times", n)
	}
}

// FuzzHandler: no request makes the handler panic or answer 5xx.
func FuzzHandler(f *testing.F) {
	a := newAuthority(f, "servers")
	s := newSource(a)
	serial := cert.SerialOf(big.NewInt(0x1234))
	s.statuses[serial] = ocsp.Good
	p := newPublisher(f, s)
	der := a.ask(f, serial, crypto.SHA1)
	f.Add("POST", "/ocsp", der)
	f.Add("GET", "/ocsp/"+base64.StdEncoding.EncodeToString(der), []byte{})
	f.Add("GET", "/ocsp//%2F+-_ =", []byte{})
	f.Add("GET", a.crlPath(), []byte{})
	f.Add("GET", "/crl/00/7.crl", []byte{})
	f.Fuzz(func(t *testing.T, method, path string, in []byte) {
		u, err := url.ParseRequestURI(path)
		if err != nil || method == "" || strings.ContainsAny(method, " \r\n\t") {
			return
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(in)), ContentLength: -1}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q: %d", method, path, w.Code)
		}
	})
}
