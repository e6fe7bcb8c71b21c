package challenge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// secret stands for what an internal service would answer; it must never be
// in a problem.
const secret = "s3cr3t-of-an-internal-service"

func respond(c net.Conn, status, body string) {
	http.ReadRequest(bufio.NewReader(c))
	fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: %d\r\nX-Internal: %s\r\n\r\n%s", status, len(body), secret, body)
}

func raw(response string) func(net.Conn) {
	return func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, response)
	}
}

// RFC 8555 section 8.3: what the server must see, and what counts as a yes.
func TestHTTP01(t *testing.T) {
	z, r := serveDNS(t)
	z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
	var got *http.Request
	l := listen(t, "127.0.0.1:0")
	p := serveTCP(t, l, func(c net.Conn) {
		got, _ = http.ReadRequest(bufio.NewReader(c))
		body := testToken + "." + testThumb + " \t\r\n"
		fmt.Fprintf(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be looked at
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	n := &Network{Resolver: r, HTTPPort: p, Allow: loopback(), UserAgent: "Example CA\r\nX: y"}
	e, err := HTTP01{n}.Validate(t.Context(), testValidation())
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != protocol.HTTP01 || e.Target != l.Addr().String() || time.Since(e.SeenAt) > time.Minute {
		t.Errorf("evidence %+v", e)
	}
	if got.RequestURI != "/.well-known/acme-challenge/"+testToken || got.Method != "GET" {
		t.Errorf("asked for %s %s", got.Method, got.RequestURI)
	}
	if want := fmt.Sprintf("%s:%d", testName, p); got.Host != want {
		t.Errorf("Host %q, want %q", got.Host, want)
	}
	if got.UserAgent() != "Example CA??X: y" || got.Header.Get("Accept-Encoding") != "" || got.Header.Get("Cookie") != "" {
		t.Errorf("headers %v", got.Header)
	}
}

// autocert compares Host with its names: the scheme's port must not be there.
func TestAuthority(t *testing.T) {
	for want, l := range map[string]location{
		"a.test":         {host: "a.test", port: 80},
		"a.test:8080":    {host: "a.test", port: 8080},
		"b.test":         {host: "b.test", port: 443, tls: true},
		"b.test:80":      {host: "b.test", port: 80, tls: true},
		"192.0.2.1":      {host: "192.0.2.1", port: 80},
		"[2001:db8::1]":  {host: "2001:db8::1", port: 80},
		"[::1]:5002":     {host: "::1", port: 5002},
		"192.0.2.1:5002": {host: "192.0.2.1", port: 5002},
	} {
		if got := l.authority(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// RFC 8738 section 4: ip identifiers, without DNS.
func TestHTTP01Address(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		p := serveTCP(t, listen(t, net.JoinHostPort(ip, "0")), func(c net.Conn) { respond(c, "200 OK", testToken+"."+testThumb) })
		v := testValidation()
		v.Identifier = protocol.Identifier{Type: protocol.IP, Value: ip}
		if _, err := (HTTP01{&Network{HTTPPort: p, Allow: loopback()}}).Validate(t.Context(), v); err != nil {
			t.Errorf("%s: %v", ip, err)
		}
		_, err := HTTP01{&Network{HTTPPort: p}}.Validate(t.Context(), v)
		wantNo(t, err, protocol.ConnectionFailed, false, "loopback")
	}
}

func TestHTTP01Faults(t *testing.T) {
	const ka = testToken + "." + testThumb
	long := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		name      string
		serve     func(net.Conn)
		typ       protocol.ProblemType
		retryable bool
		words     string
	}{
		{"wrong content", raw("HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n" + secret), protocol.Unauthorized, false, "not this challenge's key authorization"},
		{"another account's", raw("HTTP/1.1 200 OK\r\n\r\n" + testToken + ".AAAA"), protocol.Unauthorized, false, ""},
		{"a prefix", raw("HTTP/1.1 200 OK\r\n\r\n" + ka[:len(ka)-1]), protocol.Unauthorized, false, ""},
		{"more after it", raw("HTTP/1.1 200 OK\r\n\r\n" + ka + "\n" + ka), protocol.Unauthorized, false, ""},
		{"white space before it", raw("HTTP/1.1 200 OK\r\n\r\n " + ka), protocol.Unauthorized, false, ""},
		{"empty", raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), protocol.Unauthorized, false, ""},
		{"compressed unasked", raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08"), protocol.Unauthorized, false, ""},
		{"not there yet", raw("HTTP/1.1 404 Not Found\r\n\r\n" + secret), protocol.Unauthorized, true, "404"},
		{"busy", raw("HTTP/1.1 503 Busy\r\n\r\n" + secret), protocol.Unauthorized, true, "503"},
		{"forbidden", raw("HTTP/1.1 403 " + secret + "\r\n\r\n"), protocol.Unauthorized, false, "403"},
		{"no content", raw("HTTP/1.1 204 No Content\r\n\r\n"), protocol.Unauthorized, false, "204"},
		{"300 is no redirect", raw("HTTP/1.1 300 Many\r\nLocation: /x\r\n\r\n"), protocol.Unauthorized, false, "300"},
		{"too much white space", raw("HTTP/1.1 200 OK\r\n\r\n" + ka + strings.Repeat(" ", 600)), protocol.Unauthorized, false, "longer"},
		{"a megabyte", raw("HTTP/1.1 200 OK\r\n\r\n" + long), protocol.Unauthorized, false, "longer"},
		{"huge headers", raw("HTTP/1.1 200 OK\r\nX: " + long + "\r\n\r\n" + ka), protocol.Unauthorized, false, "longer"},
		{"very many headers", raw("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10000) + "\r\n" + ka), protocol.Unauthorized, false, "longer"},
		{"endless body", func(c net.Conn) {
			raw("HTTP/1.1 200 OK\r\n\r\n")(c)
			for {
				if _, err := io.WriteString(c, long); err != nil {
					return
				}
			}
		}, protocol.Unauthorized, false, "longer"},
		{"endless 1xx", raw(strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 100)), protocol.Unauthorized, false, "not HTTP"},
		{"a lie about the length", raw("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + ka), protocol.ConnectionFailed, true, "closed too early"},
		{"a bad chunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + secret + "\r\n"), protocol.Unauthorized, false, "not HTTP"},
		{"two lengths", raw("HTTP/1.1 200 OK\r\nContent-Length: 87\r\nContent-Length: 5\r\n\r\n" + ka), protocol.Unauthorized, false, "not HTTP"},
		{"not HTTP", raw("220 smtp." + secret + " ESMTP\r\n\r\n"), protocol.Unauthorized, false, "not HTTP"},
		{"binary", raw("\x00\xff\x16\x03\x01\r\n\r\n"), protocol.Unauthorized, false, "not HTTP"},
		{"closed at once", func(net.Conn) {}, protocol.ConnectionFailed, true, ""},
		{"silence", hold, protocol.ConnectionFailed, true, "timed out"},
		{"slow drip of headers", func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "H"); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		}, protocol.ConnectionFailed, true, "timed out"},
		{"slow drip of the body", func(c net.Conn) {
			raw("HTTP/1.1 200 OK\r\nContent-Length: 87\r\n\r\n")(c)
			for i := range ka {
				if _, err := io.WriteString(c, ka[i:i+1]); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		}, protocol.ConnectionFailed, true, "timed out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := serveTCP(t, listen(t, "127.0.0.1:0"), c.serve)
			v := testValidation()
			v.Identifier = protocol.Identifier{Type: protocol.IP, Value: "127.0.0.1"}
			start := time.Now()
			_, err := HTTP01{&Network{HTTPPort: p, Allow: loopback(), Timeout: 800 * time.Millisecond}}.Validate(t.Context(), v)
			wantNo(t, err, c.typ, c.retryable, c.words)
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\x1f") {
				t.Errorf("the problem repeats what the target sent: %v", err)
			}
			if time.Since(start) > 6*time.Second {
				t.Errorf("took %v", time.Since(start))
			}
		})
	}
	t.Run("refused connection", func(t *testing.T) {
		l := listen(t, "127.0.0.1:0")
		l.Close()
		v := testValidation()
		v.Identifier = protocol.Identifier{Type: protocol.IP, Value: "127.0.0.1"}
		_, err := HTTP01{&Network{HTTPPort: port(l), Allow: loopback()}}.Validate(t.Context(), v)
		wantNo(t, err, protocol.ConnectionFailed, true, "connection refused")
	})
	t.Run("wildcard", func(t *testing.T) {
		v := testValidation()
		v.Wildcard = true
		_, err := HTTP01{&Network{}}.Validate(t.Context(), v)
		wantNo(t, err, protocol.Malformed, false, "dns-01")
	})
}

// redirector serves http and https on two ports of one host; handle says
// where a path leads, or "" for the key authorization.
func redirector(t *testing.T, handle func(r *http.Request) string) (*zone, *Network) {
	z, r := serveDNS(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := handle(r); to != "" {
			w.Header()["Location"] = []string{to}
			w.WriteHeader(http.StatusFound)
			io.WriteString(w, secret)
			return
		}
		io.WriteString(w, testToken+"."+testThumb)
	})
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
	z.set("other.test. A", "other.test. 1 IN A 127.0.0.1")
	z.set("metadata.test. A", "metadata.test. 1 IN A 169.254.169.254")
	return z, &Network{Resolver: r, HTTPPort: port(plain.Listener), TLSPort: port(secure.Listener), Allow: loopback(), Timeout: 5 * time.Second}
}

func TestHTTP01Redirects(t *testing.T) {
	const path = "/.well-known/acme-challenge/" + testToken
	internal := listen(t, "127.0.0.1:0")
	serveTCP(t, internal, func(c net.Conn) { t.Error("a redirect reached an internal service"); respond(c, "200 OK", secret) })
	for _, c := range []struct {
		name      string
		location  string // HTTP and TLS stand for the ports
		typ       protocol.ProblemType
		retryable bool
		words     string // "" with typ "": a yes
	}{
		{"a path", "/elsewhere", "", false, ""},
		{"another name", "http://other.test/x", "", false, ""},
		{"https, whoever's certificate", "https://other.test/x?q=1", "", false, ""},
		{"https with the port", "https://other.test:TLS/x", "", false, ""},
		{"http with the port", "http://OTHER.test:HTTP/x#fragment", "", false, ""},
		{"an address", "http://127.0.0.1/x", "", false, ""},
		{"no scheme", "//other.test/x", "", false, ""},
		{"another port", "http://other.test:INTERNAL/x", protocol.Unauthorized, false, "port"},
		{"port 0", "http://other.test:0/x", protocol.Unauthorized, false, "port"},
		{"an empty port", "http://other.test:/x", protocol.Unauthorized, false, "port"},
		{"a port beyond 16 bits", "http://other.test:65616/x", protocol.Unauthorized, false, "port"},
		{"the standard port, not ours", "https://other.test:443/x", protocol.Unauthorized, false, "port"},
		{"a file", "file:///etc/passwd", protocol.Unauthorized, false, "redirect 1"},
		{"gopher", "gopher://other.test:HTTP/x", protocol.Unauthorized, false, "scheme"},
		{"javascript", "javascript:alert(1)", protocol.Unauthorized, false, "redirect 1"},
		{"user and password", "http://u:p@other.test/x", protocol.Unauthorized, false, "user name"},
		{"metadata by address", "http://169.254.169.254/latest/meta-data", protocol.ConnectionFailed, false, "redirect 1"},
		{"metadata by name", "http://metadata.test/latest", protocol.ConnectionFailed, false, "redirect 1"},
		{"metadata mapped", "http://[::ffff:a9fe:a9fe]/latest", protocol.ConnectionFailed, false, "redirect 1"},
		{"unspecified", "http://0.0.0.0/x", protocol.ConnectionFailed, false, "redirect 1"},
		{"an address with a zone", "http://[fe80::1%25lo]/x", protocol.Unauthorized, false, "neither"},
		{"a decimal address", "http://2130706433/x", protocol.Unauthorized, false, "neither"},
		{"a hexadecimal address", "http://0x7f.1/x", protocol.Unauthorized, false, "neither"},
		{"a short address", "http://127.1/x", protocol.Unauthorized, false, "neither"},
		{"an underscore", "http://a_b.test/x", protocol.Unauthorized, false, "neither"},
		{"a root dot", "http://other.test./x", protocol.Unauthorized, false, "neither"},
		{"no host", "http:///x", protocol.Unauthorized, false, "redirect 1"},
		{"a name that isn't there", "http://nowhere.test/x", protocol.DNSFailed, true, "redirect 1"},
		{"itself", path, protocol.Unauthorized, false, "back"},
		{"a circle", "/circle", protocol.Unauthorized, false, "redirect 3 leads back"},
		{"for ever", "/more", protocol.Unauthorized, false, "more than 10"},
		{"ten times", "/ten", "", false, ""},
		{"eleven times", "/eleven", protocol.Unauthorized, false, "more than 10"},
		{"a wildcard", "http://*.example.test/", protocol.Unauthorized, false, "neither"},
		{"too long", "/" + strings.Repeat("x", 3000), protocol.Unauthorized, false, "too long"},
		{"a space in the query", "/?a HTTP/1.1 b", protocol.Unauthorized, false, "not a URL"},
		{"bytes beyond ASCII in the query", "/?\xff", protocol.Unauthorized, false, "not a URL"},
		{"not a URL", "http://[::1/x", protocol.Unauthorized, false, "not a URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var n *Network
			_, n = redirector(t, func(r *http.Request) string {
				switch p := r.URL.Path; {
				case p == path:
					ports := strings.NewReplacer("HTTP", fmt.Sprint(n.HTTPPort), "TLS", fmt.Sprint(n.TLSPort), "INTERNAL", fmt.Sprint(port(internal)))
					if strings.HasPrefix(c.location, "/?") {
						return c.location
					}
					return ports.Replace(c.location)
				case p == "/circle":
					return "/circle2"
				case p == "/circle2":
					return "/circle"
				case strings.HasPrefix(p, "/more"):
					return p + "e"
				case strings.HasPrefix(p, "/ten") && len(p) < len("/ten")+9, strings.HasPrefix(p, "/eleven") && len(p) < len("/eleven")+10:
					return p + "n"
				}
				return ""
			})
			_, err := HTTP01{n}.Validate(t.Context(), testValidation())
			if c.typ == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantNo(t, err, c.typ, c.retryable, c.words)
			for _, word := range []string{secret, "169.254", "metadata", "nowhere", "other.test", "passwd"} {
				if strings.Contains(err.Error(), word) {
					t.Errorf("the problem repeats %q of what the target sent: %v", word, err)
				}
			}
		})
	}
}

// Our own listener on an allowed network and an allowed port stays refused.
func TestHTTP01RedirectToOwn(t *testing.T) {
	_, n := redirector(t, func(*http.Request) string { return "https://other.test/admin" })
	n.Own = []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n.TLSPort))}
	_, err := HTTP01{n}.Validate(t.Context(), testValidation())
	wantNo(t, err, protocol.ConnectionFailed, false, "redirect 1")
}

// A resolver under the attacker's control that says one thing first and
// another later gains nothing: each connection goes to an address that was
// checked, and a redirect looks up and checks again.
func TestHTTP01Rebinding(t *testing.T) {
	var z *zone
	z, n := redirector(t, func(r *http.Request) string {
		z.set(testName+". A", testName+". 0 IN A 127.0.0.9", testName+". 0 IN A 169.254.169.254")
		return "/second"
	})
	n.Deny = prefixes("127.0.0.9/32")
	_, err := HTTP01{n}.Validate(t.Context(), testValidation())
	wantNo(t, err, protocol.ConnectionFailed, false, "redirect 1 leads to an address that validation doesn't connect to")

	// Of several addresses the refused ones are left out.
	z.set("mixed.test. A", "mixed.test. 0 IN A 169.254.169.254", "mixed.test. 0 IN A 127.0.0.1")
	p := serveTCP(t, listen(t, "127.0.0.1:0"), func(c net.Conn) { respond(c, "200 OK", testToken+"."+testThumb) })
	v := testValidation()
	v.Identifier.Value = "mixed.test"
	e, err := HTTP01{&Network{Resolver: n.Resolver, HTTPPort: p, Allow: loopback()}}.Validate(t.Context(), v)
	if err != nil || !strings.HasPrefix(e.Target, "127.0.0.1:") {
		t.Errorf("got %v, %v", e, err)
	}
}

// An https redirect to a server that is none, or sends handshakes for ever.
func TestHTTP01BrokenTLS(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"plain": func(c net.Conn) { io.WriteString(c, "SSH-2.0-"+secret+"\r\n"); hold(c) },
		"endless": func(c net.Conn) {
			record := append([]byte{22, 3, 3, 0x40, 0}, bytes.Repeat([]byte{2}, 0x4000)...)
			for {
				if _, err := c.Write(record); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, n := redirector(t, func(*http.Request) string { return "https://other.test/" })
			n.TLSPort = serveTCP(t, listen(t, "127.0.0.1:0"), serve)
			_, err := HTTP01{n}.Validate(t.Context(), testValidation())
			wantNo(t, err, protocol.TLSFailed, true, "after redirect 1")
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the problem repeats what the target sent: %v", err)
			}
		})
	}
}

// instances listens on 127.0.0.1 to 127.0.0.N, all on one port.
func instances(t *testing.T, count int) []net.Listener {
	t.Helper()
	for range 20 {
		all := []net.Listener{listen(t, "127.0.0.1:0")}
		for i := 2; i <= count; i++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%d", i, port(all[0])))
			if err != nil {
				break
			}
			t.Cleanup(func() { l.Close() })
			all = append(all, l)
		}
		if len(all) == count {
			return all
		}
	}
	t.Fatal("no port is free on all addresses")
	return nil
}

// Five instances share a name and one of them knows the key authorization
// (validation.probe: any).
func TestProbeAnyHTTP(t *testing.T) {
	z, r := serveDNS(t)
	ls := instances(t, 5)
	var records []string
	var asked [5]atomic.Int32
	for i, l := range ls {
		records = append(records, fmt.Sprintf("%s. 1 IN A 127.0.0.%d", testName, i+1))
		serveTCP(t, l, func(c net.Conn) {
			asked[i].Add(1)
			switch i {
			case 0:
				respond(c, "404 Not Found", secret)
			case 1:
				respond(c, "200 OK", "another replica's")
			case 2:
				hold(c)
			case 3: // closes
			case 4:
				respond(c, "200 OK", testToken+"."+testThumb)
			}
		})
	}
	z.set(testName+". A", records...)
	n := &Network{Resolver: r, HTTPPort: port(ls[0]), Allow: loopback(), ProbeAny: 5, Timeout: 20 * time.Second}
	for range 4 { // the order is random
		start := time.Now()
		e, err := HTTP01{n}.Validate(t.Context(), testValidation())
		if err != nil {
			t.Fatal(err)
		}
		if e.Target != ls[4].Addr().String() || time.Since(start) > 5*time.Second {
			t.Errorf("%s answered after %v", e.Target, time.Since(start))
		}
	}
	// With all of them wrong the client is told how many, and the ones that
	// may only have been late are worth another try.
	z.set(testName+". A", records[0], records[1])
	var err error
	for range 16 { // whichever is told of
		_, err = HTTP01{n}.Validate(t.Context(), testValidation())
		wantNo(t, err, protocol.Unauthorized, true, "2 addresses were asked")
	}
	z.set(testName+". A", records[1])
	_, err = HTTP01{n}.Validate(t.Context(), testValidation())
	wantNo(t, err, protocol.Unauthorized, false)
	// The bound counts addresses, and what wasn't asked may be asked later.
	n.ProbeAny = 2
	z.set(testName+". A", records[1], records[1], testName+". 1 IN A 127.0.0.6", testName+". 1 IN A 127.0.0.7", testName+". 1 IN A 127.0.0.8")
	_, err = HTTP01{n}.Validate(t.Context(), testValidation())
	v, _ := errors.AsType[*protocol.ValidationError](err)
	if v == nil || !v.Retryable || !strings.Contains(v.Problem.Detail, "2 addresses") {
		t.Errorf("got %v", err)
	}
}

// An instance that redirects to https under the shared name is asked there
// itself, not one of its sisters.
func TestProbeAnyStaysWithInstance(t *testing.T) {
	z, r := serveDNS(t)
	plain, secure := instances(t, 3), instances(t, 3)
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	var records []string
	for i := range 3 {
		records = append(records, fmt.Sprintf("%s. 1 IN A 127.0.0.%d", testName, i+1))
		serveTCP(t, plain[i], raw("HTTP/1.1 301 Moved\r\nLocation: https://"+testName+"/x\r\nContent-Length: 0\r\n\r\n"))
		serveTCP(t, secure[i], func(c net.Conn) {
			s := tls.Server(c, &tls.Config{Certificates: cert.TLS.Certificates})
			if i == 2 {
				respond(s, "200 OK", testToken+"."+testThumb)
			} else {
				respond(s, "200 OK", "another replica's")
			}
		})
	}
	z.set(testName+". A", records...)
	n := &Network{Resolver: r, HTTPPort: port(plain[0]), TLSPort: port(secure[0]), Allow: loopback(), ProbeAny: 3, Timeout: 4 * time.Second}
	for range 4 {
		e, err := HTTP01{n}.Validate(t.Context(), testValidation())
		if err != nil {
			t.Fatal(err)
		}
		if e.Target != plain[2].Addr().String() {
			t.Errorf("%s answered", e.Target)
		}
	}
}

// FuzzResponse: whatever a server sends, readAnswer ends, keeps its bounds
// and repeats nothing in its error.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://a.test:80/\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 No\r\n\r\n"))
	n := &Network{}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readAnswer(bytes.NewReader(data))
		if err != nil {
			brief(err)
			return
		}
		if len(got.body) > maxBody+1 || got.status < 200 {
			t.Fatalf("%d bytes with status %d", len(got.body), got.status)
		}
		next, err := n.follow(location{host: "a.test", port: 80, path: "/x"}, got.location)
		if err != nil {
			return
		}
		if next.port != 80 && next.port != 443 {
			t.Fatalf("port %d", next.port)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(n.request(next))))
		if err != nil || r.Host != next.authority() || len(r.Header) != 3 {
			t.Fatalf("the request for %v reads as %v, %v", next, r, err)
		}
	})
}

// TestBenchmarkServer is no test: run by the benchmarks in a process of its
// own, so that theirs counts the client's work alone, it serves the key
// authorization and DNS until its input ends.
func TestBenchmarkServer(t *testing.T) {
	if os.Getenv("CHALLENGE_BENCHMARK_SERVER") == "" {
		return
	}
	z, r := serveDNS(t)
	z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, testToken+"."+testThumb) }))
	defer s.Close()
	fmt.Println("ready", port(s.Listener), r.servers[0].addr)
	io.Copy(io.Discard, os.Stdin)
}

func benchmarkTarget(b *testing.B) (n *Network, url string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchmarkServer$")
	cmd.Env = append(os.Environ(), "CHALLENGE_BENCHMARK_SERVER=1")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	var p int
	var dnsServer string
	if _, err := fmt.Fscanf(out, "ready %d %s\n", &p, &dnsServer); err != nil {
		b.Fatal(err)
	}
	r, err := NewResolver(ResolverConfig{Servers: []string{dnsServer}})
	if err != nil {
		b.Fatal(err)
	}
	return &Network{Resolver: r, HTTPPort: p, Allow: loopback()}, fmt.Sprintf("http://127.0.0.1:%d/", p)
}

// measure reports this process's CPU time beside the wall clock's.
func measure(b *testing.B, once func() error) {
	b.ReportAllocs()
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		if err := once(); err != nil {
			b.Fatal(err)
		}
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := func(u syscall.Rusage) int64 { return u.Utime.Nano() + u.Stime.Nano() }
	b.ReportMetric(float64(cpu(after)-cpu(before))/1e3/float64(b.N), "cpu-µs/op")
}

func BenchmarkHTTP01(b *testing.B) {
	n, _ := benchmarkTarget(b)
	for _, id := range []protocol.Identifier{{Type: protocol.IP, Value: "127.0.0.1"}, {Type: protocol.DNS, Value: testName}} {
		b.Run(string(id.Type), func(b *testing.B) {
			v := testValidation()
			v.Identifier = id
			measure(b, func() error {
				_, err := HTTP01{n}.Validate(b.Context(), v)
				return err
			})
		})
	}
}

// BenchmarkBareGet is what a plain http.Get costs, over a new connection and
// over a kept one.
func BenchmarkBareGet(b *testing.B) {
	_, url := benchmarkTarget(b)
	for name, keep := range map[string]bool{"new": false, "kept": true} {
		b.Run(name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}}
			measure(b, func() error {
				resp, err := client.Get(url)
				if err != nil {
					return err
				}
				io.Copy(io.Discard, resp.Body)
				return resp.Body.Close()
			})
		})
	}
}
