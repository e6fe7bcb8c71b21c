package publish

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

// RFC 9110 sections 8, 9, 13 and 14, RFC 9111, RFC 2585 section 4.
func TestHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, onlyCert, root := newAuthority(t, "servers"), newAuthority(t, "retired"), newAuthority(t, "root")
		list, part, elsewhere := a.list(t, 41), a.list(t, 42, cert.NewSerial()), root.list(t, 1)
		s := newSource(a, onlyCert)
		s.put(a, 0, list)
		s.put(a, 12, part)
		p := newPublisher(t, s, func(o *Options) { o.Lists = append(o.Lists, elsewhere) })
		time.Sleep(time.Minute)
		made := list.ThisUpdate
		shard := "/crl/" + a.keyID + "/"
		etag := request(p, "HEAD", a.crlPath()).Header.Get("ETag")
		date := func(d time.Duration) string { return made.Add(d).Format(http.TimeFormat) }
		for name, c := range map[string]struct {
			method, path string
			header       []string
			want         int
			body         []byte
		}{
			"list":                     {"GET", a.crlPath(), nil, 200, list.Raw},
			"list, with a query":       {"GET", a.crlPath() + "?1", nil, 200, list.Raw},
			"HEAD":                     {"HEAD", a.crlPath(), nil, 200, nil},
			"same ETag":                {"GET", a.crlPath(), []string{"If-None-Match", etag}, 304, nil},
			"same ETag, HEAD":          {"HEAD", a.crlPath(), []string{"If-None-Match", etag}, 304, nil},
			"same ETag, weak":          {"GET", a.crlPath(), []string{"If-None-Match", "W/" + etag}, 304, nil},
			"one of several ETags":     {"GET", a.crlPath(), []string{"If-None-Match", `"x", ` + etag}, 304, nil},
			"any ETag":                 {"GET", a.crlPath(), []string{"If-None-Match", "*"}, 304, nil},
			"other ETag":               {"GET", a.crlPath(), []string{"If-None-Match", `"x"`}, 200, list.Raw},
			"not modified since":       {"GET", a.crlPath(), []string{"If-Modified-Since", date(0)}, 304, nil},
			"modified since":           {"GET", a.crlPath(), []string{"If-Modified-Since", date(-time.Second)}, 200, list.Raw},
			"bad date":                 {"GET", a.crlPath(), []string{"If-Modified-Since", "yesterday"}, 200, list.Raw},
			"the ETag counts":          {"GET", a.crlPath(), []string{"If-None-Match", `"x"`, "If-Modified-Since", date(0)}, 200, list.Raw}, // section 13.2.2
			"rest of a download":       {"GET", a.crlPath(), []string{"Range", "bytes=100-", "If-Range", etag}, 206, list.Raw[100:]},
			"rest of an older list":    {"GET", a.crlPath(), []string{"Range", "bytes=100-", "If-Range", `"x"`}, 200, list.Raw},
			"beyond the end":           {"GET", a.crlPath(), []string{"Range", "bytes=99999999-"}, 416, nil},
			"shard":                    {"GET", shard + "12.crl", nil, 200, part.Raw},
			"made elsewhere":           {"GET", root.crlPath(), nil, 200, elsewhere.Raw},
			"no such shard":            {"GET", shard + "13.crl", nil, 404, nil},
			"shard zero":               {"GET", shard + "0.crl", nil, 404, nil},
			"shard with a zero more":   {"GET", shard + "012.crl", nil, 404, nil},
			"shard with a sign":        {"GET", shard + "+12.crl", nil, 404, nil},
			"negative shard":           {"GET", shard + "-12.crl", nil, 404, nil},
			"shard of many digits":     {"GET", shard + strings.Repeat("9", 100) + ".crl", nil, 404, nil},
			"shard of nothing":         {"GET", shard + ".crl", nil, 404, nil},
			"below a shard":            {"GET", shard + "12/1.crl", nil, 404, nil},
			"certificate":              {"GET", a.cerPath(), nil, 200, a.cert.Raw},
			"certificate, no list":     {"GET", onlyCert.cerPath(), nil, 200, onlyCert.cert.Raw},
			"no list":                  {"GET", onlyCert.crlPath(), nil, 404, nil},
			"POST":                     {"POST", a.crlPath(), nil, 405, nil},
			"DELETE":                   {"DELETE", a.cerPath(), nil, 405, nil},
			"OPTIONS":                  {"OPTIONS", a.crlPath(), nil, 405, nil},
			"root":                     {"GET", "/", nil, 404, nil},
			"folder":                   {"GET", "/crl/", nil, 404, nil},
			"unknown key":              {"GET", "/crl/00.crl", nil, 404, nil},
			"capitals":                 {"GET", strings.ToUpper(a.crlPath()), nil, 404, nil},
			"wrong kind":               {"GET", "/crl/" + a.keyID + ".cer", nil, 404, nil},
			"no ending":                {"GET", "/crl/" + a.keyID, nil, 404, nil},
			"slash at the end":         {"GET", a.crlPath() + "/", nil, 404, nil},
			"doubled slash":            {"GET", "http://h//crl/" + a.keyID + ".crl", nil, 404, nil}, // no redirect either
			"out of the folder":        {"GET", "/ca/../crl/" + a.keyID + ".crl", nil, 404, nil},
			"POST to where nothing is": {"POST", "/", nil, 404, nil},
		} {
			w := request(p, c.method, c.path, c.header...)
			if w.StatusCode != c.want {
				t.Errorf("%s: %s; want %d", name, w.Status, c.want)
			}
			var body bytes.Buffer
			body.ReadFrom(w.Body)
			if c.body != nil && !bytes.Equal(body.Bytes(), c.body) || (c.want == 304 || c.method == "HEAD") && body.Len() > 0 {
				t.Errorf("%s: %d bytes of body", name, body.Len())
			}
			if w.Header.Get("Strict-Transport-Security") != "" || w.Header.Get("Set-Cookie") != "" || w.Header.Get("Location") != "" {
				t.Errorf("%s: %v", name, w.Header)
			}
			checkHeader(t, name, w, c.path == a.cerPath() || c.path == onlyCert.cerPath())
		}
	})
}

// checkHeader checks what each status needs. A list made a minute ago is good
// for a minute less than 24*time.Hour.
func checkHeader(t *testing.T, name string, w *http.Response, certificate bool) {
	t.Helper()
	h := w.Header
	kind, age := "application/pkix-crl", 24*time.Hour-time.Minute
	if certificate {
		kind, age = "application/pkix-cert", certificateFresh
	}
	switch w.StatusCode {
	case 200, 206:
		if h.Get("Content-Type") != kind || h.Get("Last-Modified") == "" || h.Get("Content-Length") == "0" {
			t.Errorf("%s: %v", name, h)
		}
		fallthrough
	case 304: // section 15.4.5: what a 200 would have said to caches
		seconds := "max-age=" + strconv.Itoa(int(age.Seconds()))
		if h.Get("ETag") == "" || !strings.HasSuffix(h.Get("Cache-Control"), seconds) || (h.Get("Expires") == "") != certificate {
			t.Errorf("%s: %v; want %s", name, h, seconds)
		}
	case 405: // section 15.5.6
		if h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow %q", name, h.Get("Allow"))
		}
		fallthrough
	case 404:
		if h.Get("Cache-Control") != "no-store" || h.Get("ETag") != "" {
			t.Errorf("%s: %v", name, h)
		}
	}
}

// A list past its end is still served, but no cache keeps it.
func TestListPastItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, root := newAuthority(t, "servers"), newAuthority(t, "root")
		s := newSource(a)
		s.put(a, 0, a.list(t, 1))
		p := newPublisher(t, s, func(o *Options) { o.Lists = []*x509.RevocationList{root.list(t, 1)} })
		time.Sleep(25 * time.Hour)
		for _, path := range []string{a.crlPath(), root.crlPath()} {
			w := request(p, "GET", path)
			if cc := w.Header.Get("Cache-Control"); w.StatusCode != 200 || !strings.HasSuffix(cc, " max-age=0") {
				t.Errorf("%s, Cache-Control %q", w.Status, cc)
			}
		}
	})
}

func TestBeforeTheFirstList(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	s.put(a, 0, nil)
	p := newPublisher(t, s)
	w := request(p, "GET", a.crlPath())
	if w.StatusCode != 503 || w.Header.Get("Retry-After") == "" || w.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", w.Status, w.Header)
	}
	if w := request(p, "GET", a.cerPath()); w.StatusCode != 200 {
		t.Errorf("the certificate needs no list: %s", w.Status)
	}
}

// A newer list has another ETag, whatever its bytes.
func TestNewerList(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	p := newPublisher(t, s)
	seen := map[string]bool{}
	for number := range int64(3) {
		s.put(a, 0, a.list(t, number+1))
		seen[request(p, "GET", a.crlPath()).Header.Get("ETag")] = true
	}
	if len(seen) != 3 {
		t.Errorf("ETags %v of three lists", seen)
	}
}

func TestServedIsSeen(t *testing.T) {
	a := newAuthority(t, "servers")
	s := newSource(a)
	s.put(a, 0, nil)
	var seen []Request
	p := newPublisher(t, s, func(o *Options) { o.Served = func(r Request) { r.Took = 0; seen = append(seen, r) } })
	request(p, "GET", a.cerPath())
	request(p, "GET", a.crlPath())
	request(p, "GET", "/favicon.ico")
	request(p, "POST", a.crlPath())
	want := []Request{{"ca", 200, "", 0}, {"crl", 503, "", 0}, {"unknown", 404, "", 0}, {"crl", 405, "", 0}}
	for i := range want {
		if len(seen) != len(want) || seen[i] != want[i] {
			t.Fatalf("%v; want %v", seen, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	a, root := newAuthority(t, "servers"), newAuthority(t, "root")
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no source":         {func(o *Options) { o.Source = nil }, "Source"},
		"no key identifier": {func(o *Options) { mine := *a.cert; mine.SubjectKeyId = nil; o.Certificates[0] = &mine }, "key identifier"},
		"list of nobody": {func(o *Options) {
			l := *root.list(t, 1)
			l.AuthorityKeyId = nil
			o.Lists = append(o.Lists, &l)
		}, "authority key identifier"},
		"list twice":        {func(o *Options) { o.Lists = append(o.Lists, root.list(t, 1), root.list(t, 2)) }, "two CRLs"},
		"list that we make": {func(o *Options) { o.Lists = append(o.Lists, a.list(t, 1)) }, "two CRLs"},
	} {
		s := newSource(a)
		s.put(a, 0, nil)
		o := Options{Source: s, Certificates: []*x509.Certificate{a.cert}}
		c.change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// pipe is a listener in memory, so that time can be synctest's.
type pipe struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipe) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// dial serves p and returns one connection to it.
func dial(t *testing.T, p *Publisher) net.Conn {
	l := &pipe{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := HTTPServer(p)
	var running sync.WaitGroup
	running.Go(func() { server.Serve(l) })
	t.Cleanup(func() { server.Close(); running.Wait() })
	ours, theirs := net.Pipe()
	l.conns <- theirs
	t.Cleanup(func() { ours.Close() })
	return ours
}

// A peer that sends or reads slowly, or not at all, is let go.
func TestSlowPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		s := newSource(a)
		var serials []cert.Serial
		for range 5000 { // 250 kB: three seconds at the slowest rate
			serials = append(serials, cert.NewSerial())
		}
		s.put(a, 0, a.list(t, 1, serials...))
		p := newPublisher(t, s)
		get := "GET " + a.crlPath() + " HTTP/1.1\r\nHost: h\r\n\r\n"
		for name, c := range map[string]struct {
			send   string
			read   string // the peer reads until it saw this, and then no more
			atMost time.Duration
		}{
			"nothing sent":         {"", "", headerTimeout},
			"half a header":        {"GET /crl/", "", headerTimeout},
			"half a body":          {"POST /ocsp HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n0123", "", headerTimeout},
			"idle after an answer": {"HEAD " + a.crlPath() + " HTTP/1.1\r\nHost: h\r\n\r\n", "\r\n\r\n", idleTimeout},
			"answer not read":      {get, "H", writeTimeout + 5*time.Second},
		} {
			conn := dial(t, p)
			begun := time.Now()
			io.WriteString(conn, c.send)
			for seen := ""; !strings.HasSuffix(seen, c.read); {
				var one [1]byte
				if _, err := conn.Read(one[:]); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				seen += string(one[:])
			}
			time.Sleep(c.atMost)
			synctest.Wait()
			conn.SetReadDeadline(time.Now().Add(time.Second))
			n, err := io.Copy(io.Discard, conn)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Errorf("%s: still open after %v", name, time.Since(begun))
			}
			if n > 64<<10 {
				t.Errorf("%s: %d bytes came after all", name, n)
			}
		}
	})
}

// A large list has the time that a slow line needs.
func TestSlowLineGetsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		s := newSource(a)
		body := make([]byte, 20<<20)
		s.put(a, 0, &x509.RevocationList{Raw: body, Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)})
		p := newPublisher(t, s)
		conn := dial(t, p)
		io.WriteString(conn, "GET "+a.crlPath()+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		got, buffer := 0, make([]byte, 128<<10)
		begun := time.Now()
		for {
			n, err := io.ReadFull(conn, buffer)
			got += n
			if err != nil {
				break
			}
			time.Sleep(time.Second) // 128 KiB/s
		}
		if got < len(body) || time.Since(begun) < 2*writeTimeout {
			t.Errorf("%d bytes in %v", got, time.Since(begun))
		}
	})
}

func TestLongHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "servers")
		conn := dial(t, newPublisher(t, newSource(a)))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			defer cancel()
			io.WriteString(conn, "GET "+a.cerPath()+" HTTP/1.1\r\nHost: h\r\nCookie: "+strings.Repeat("a", 32<<10)+"\r\n\r\n")
		}()
		answer, _ := io.ReadAll(io.LimitReader(conn, 1<<10))
		if !bytes.HasPrefix(answer, []byte("HTTP/1.1 431 ")) {
			t.Errorf("%q", answer)
		}
		conn.Close()
		<-ctx.Done()
	})
}
