package status

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// How a responder is asked, over real connections: by GET (RFC 5019 section 5),
// by POST where that is too long.
func TestAskOCSP(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	var method string
	var request []byte
	var leaf *x509.Certificate
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method = r.Method
		if r.Method == http.MethodGet {
			_, text, _ := strings.Cut(r.URL.Path, "/status/")
			request, _ = base64.StdEncoding.DecodeString(text)
		} else {
			request, _ = io.ReadAll(r.Body)
			if got := r.Header.Get("Content-Type"); got != "application/ocsp-request" {
				t.Errorf("content type %q", got)
			}
		}
		w.Write(answerFor(t, ca, nil, leaf, time.Now(), nil))
	}))
	defer srv.Close()
	c := newChecker(t, Policy{}, nil)
	for path, want := range map[string]string{"/status": "GET", "/status/": "GET", "/" + strings.Repeat("long", 40) + "/status/": "POST"} {
		leaf = newLeaf(t, ca, srv.URL+path, "")
		der, next, err := c.Staple(t.Context(), leaf, ca.cert)
		if err != nil || len(der) == 0 || time.Until(next) < 2*time.Hour {
			t.Fatalf("%s: %v, %v", path, next, err)
		}
		r, err := ocsp.ParseRequest(request)
		if method != want || err != nil || r.SerialNumber.Cmp(leaf.SerialNumber) != 0 {
			t.Errorf("%s: %s %+v, %v", path, method, r, err)
		}
	}
}

// What may come back on HTTP, and must not count.
func TestHostileServers(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer inside.Close()
	endless := func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 32<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	tests := map[string]struct {
		say  http.HandlerFunc
		want string
	}{
		"redirect":     {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inside.URL, http.StatusFound) }, "HTTP status 302"},
		"not found":    {http.NotFound, "HTTP status 404"},
		"no content":   {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }, "HTTP status 204"},
		"not modified": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotModified) }, "HTTP status 304"},
		"nothing":      {func(w http.ResponseWriter, r *http.Request) {}, "malformed"},
		"endless":      {endless, "more than"},
		"too long": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000000")
			w.WriteHeader(http.StatusOK)
		}, "100000000 bytes"},
		"long header": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "header"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(test.say)
			defer srv.Close()
			c := newChecker(t, Policy{}, nil)
			leaf := newLeaf(t, ca, srv.URL, srv.URL)
			if _, _, err := c.Staple(t.Context(), leaf, ca.cert); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("OCSP: %v, want %q", err, test.want)
			}
			if name == "endless" { // 64 MiB take their time
				return
			}
			if _, err := c.fetchCRL(t.Context(), leaf, ca.cert, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("CRL: %v, want %q", err, test.want)
			}
		})
	}
}

// Which URLs of a certificate are asked, and in which order.
func TestMirrors(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	var asked []string
	leaf := newLeaf(t, ca, "", "")
	leaf.OCSPServer = []string{
		"ldap://a.test", "http://user:secret@b.test", "file:///etc/passwd", "http://", "", "http://" + strings.Repeat("x", maxURL), "http://a b", "gopher://c.test",
		"http://1.test", "https://2.test", "http://3.test", "http://4.test", "http://5.test",
	}
	c := newChecker(t, Policy{}, roundTrip(func(req *http.Request) (*http.Response, error) {
		asked = append(asked, req.URL.Scheme+"://"+req.URL.Host)
		return nil, context.DeadlineExceeded
	}))
	_, _, err := c.Staple(t.Context(), leaf, ca.cert)
	if got := strings.Join(asked, " "); err == nil || got != "http://1.test https://2.test http://3.test http://4.test" {
		t.Errorf("asked %s, %v", got, err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A responder on https is held against today's roots.
func TestHTTPS(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	var leaf *x509.Certificate
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(answerFor(t, ca, nil, leaf, time.Now(), nil))
	}))
	srv.TLS = &tls.Config{}
	srv.StartTLS()
	defer srv.Close()
	leaf = newLeaf(t, ca, srv.URL, "")
	roots := x509.NewCertPool()
	c := New(Config{Now: time.Now, Roots: func() *x509.CertPool { return roots }})
	defer c.Close()
	if _, _, err := c.Staple(t.Context(), leaf, ca.cert); err == nil {
		t.Error("an unknown server is believed")
	}
	roots = x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	if _, _, err := c.Staple(t.Context(), leaf, ca.cert); err != nil {
		t.Error(err)
	}
}

// Our own certificate's answer, when it isn't good.
func TestStapleOwn(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	w := &web{}
	c := newChecker(t, Policy{}, w)
	leaf := newLeaf(t, ca, responderURL, "")
	w.body(answerFor(t, ca, nil, leaf, time.Now(), revoke(time.Now())))
	if _, _, err := c.Staple(t.Context(), leaf, ca.cert); err == nil || !strings.Contains(err.Error(), "was revoked at") {
		t.Errorf("revoked: %v", err)
	}
	w.body(answerFor(t, ca, nil, leaf, time.Now(), func(r *ocsp.Response) { r.Status = ocsp.Unknown }))
	if _, _, err := c.Staple(t.Context(), leaf, ca.cert); err == nil || !strings.Contains(err.Error(), "doesn't know") {
		t.Errorf("unknown: %v", err)
	}
	if der, next, err := c.Staple(t.Context(), newLeaf(t, ca, "", ""), ca.cert); der != nil || !next.IsZero() || err != nil {
		t.Errorf("without a responder: %x, %v, %v", der, next, err)
	}
}
