package challenge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const (
	// maxRedirects is what browsers and public CAs follow.
	maxRedirects = 10
	// maxLocation is longer than any URL that servers agree on.
	maxLocation = 2048
	// maxBody: a key authorization is a token, a dot and a thumbprint of 43
	// characters; our tokens have at most 43, so 87 in all. The rest is for
	// white space at its end (RFC 8555 section 8.3).
	maxBody = 512
	// maxResponse bounds what one hop may send: 16 KiB of headers, more than
	// common servers send or take, and 4 KiB for the body and what chunked
	// coding adds to it.
	maxResponse = 20 << 10
	// maxHandshake bounds what a TLS server may send before its first data
	// or, in tls-alpn-01, at all: a chain of a dozen RSA certificates fits.
	maxHandshake = 64 << 10
	// maxInterim bounds the 1xx answers (RFC 9110 section 15.2) before the
	// real one; a server has no cause to send any.
	maxInterim = 4
)

// HTTP01 looks for the key authorization by HTTP (RFC 8555 section 8.3, RFC
// 8738 section 4). It speaks HTTP/1.1 itself, one request per connection:
// a client with pools, proxies and cookies would have to be stripped of all
// of them, and costs more than the rest of a validation.
type HTTP01 struct {
	Network *Network
}

// Validate fetches http://NAME/.well-known/acme-challenge/TOKEN. It blocks
// for at most the network's timeout. A server that can't be reached, is busy
// or doesn't have the resource yet may be tried again; a wrong answer, an
// address that may not be reached or a bad redirect is final.
func (h HTTP01) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	if v.Wildcard {
		return protocol.Evidence{}, no(protocol.Malformed, false, "http-01 can't prove a wildcard; use dns-01")
	}
	n := h.Network
	inner, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	at, err := n.probe(inner, v.Identifier.Value, n.httpPort(), func(ctx context.Context, conn net.Conn, at netip.AddrPort) error {
		return n.fetch(ctx, conn, at, v)
	})
	if err != nil {
		return protocol.Evidence{}, outcome(ctx, err)
	}
	return protocol.Evidence{Type: protocol.HTTP01, Target: at.String(), SeenAt: time.Now()}, nil
}

// location is one hop's URL, taken apart.
type location struct {
	tls  bool
	host string // a dns name or address in canonical form
	port uint16
	path string // with query, escaped
}

// authority is the Host header's value: servers compare it with their names,
// so the scheme's own port stays out (RFC 9110 section 4.2.3).
func (l location) authority() string {
	host := l.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if !l.tls && l.port == 80 || l.tls && l.port == 443 {
		return host
	}
	return host + ":" + strconv.Itoa(int(l.port))
}

func (l location) String() string {
	if l.tls {
		return "https://" + l.authority() + l.path
	}
	return "http://" + l.authority() + l.path
}

// answer is all we take from a response.
type answer struct {
	status   int
	location string
	body     []byte
}

// fetch asks over a connection to the address at, and follows redirects from
// there over connections of its own.
func (n *Network) fetch(ctx context.Context, conn net.Conn, at netip.AddrPort, v protocol.Validation) error {
	here := location{host: v.Identifier.Value, port: n.httpPort(), path: "/.well-known/acme-challenge/" + v.Token}
	got, err := n.get(ctx, conn, here)
	if err != nil {
		return unanswered("from "+at.String(), err)
	}
	var seen []string
	for hop := 1; isRedirect(got.status); hop++ {
		seen = append(seen, here.String())
		if here, err = n.follow(here, got.location); err != nil {
			return no(protocol.Unauthorized, false, "redirect %d %s", hop, err)
		}
		if hop > maxRedirects {
			return no(protocol.Unauthorized, false, "there are more than %d redirects", maxRedirects)
		}
		if slices.Contains(seen, here.String()) {
			return no(protocol.Unauthorized, false, "redirect %d leads back to where it came from", hop)
		}
		if got, err = n.visit(ctx, here, at, v, hop); err != nil {
			return err
		}
	}
	return judge(got, at, v)
}

// visit fetches a redirect's target. The errors don't say where that is: the
// client may be asking us what it could not find out itself.
func (n *Network) visit(ctx context.Context, to location, first netip.AddrPort, v protocol.Validation, hop int) (answer, error) {
	var conn net.Conn
	var err error
	if addr := netip.AddrPortFrom(first.Addr(), to.port); n.ProbeAny > 0 && to.host == v.Identifier.Value {
		conn, err = n.dial(ctx, addr) // of many instances, stay with the one that is asked
		if err != nil {
			err = unreachable(addr, err)
		}
	} else {
		var addrs []netip.AddrPort
		if addrs, err = n.addresses(ctx, to.host, to.port); err == nil {
			conn, _, err = n.connect(ctx, interleave(addrs))
		}
	}
	if err != nil {
		failed, _ := errors.AsType[*protocol.ValidationError](err)
		switch {
		case failed == nil || failed.Problem.Type == protocol.DNSFailed:
			return answer{}, no(protocol.DNSFailed, isRetryable(err), "redirect %d leads to a name whose addresses can't be found", hop)
		case failed.Retryable:
			return answer{}, no(protocol.ConnectionFailed, true, "redirect %d leads to a server that can't be reached", hop)
		}
		return answer{}, no(protocol.ConnectionFailed, false, "redirect %d leads to an address that validation doesn't connect to", hop)
	}
	defer conn.Close()
	got, err := n.get(ctx, conn, to)
	if err != nil {
		return answer{}, unanswered("after redirect "+strconv.Itoa(hop), err)
	}
	return got, nil
}

func unanswered(where string, err error) *protocol.ValidationError {
	switch {
	case errors.Is(err, errTooMuch):
		return no(protocol.Unauthorized, false, "the answer %s is longer than a key authorization and its headers can be", where)
	case errors.Is(err, errNotHTTP):
		return no(protocol.Unauthorized, false, "the answer %s is not HTTP/1.1", where)
	case errors.Is(err, errHandshake):
		return no(protocol.TLSFailed, true, "no TLS connection could be made %s", where)
	}
	return no(protocol.ConnectionFailed, true, "no whole answer came %s: %s", where, brief(err))
}

func isRedirect(status int) bool {
	switch status {
	case 301, 302, 303, 307, 308:
		return true
	}
	return false
}

// judge compares the answer with the key authorization. What it was instead
// is never told.
func judge(got answer, at netip.AddrPort, v protocol.Validation) error {
	switch got.status {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return no(protocol.Unauthorized, true, "%s answered with status %d instead of the key authorization", at, got.status)
	default:
		return no(protocol.Unauthorized, got.status >= 500, "%s answered with status %d instead of the key authorization", at, got.status)
	}
	if len(got.body) > maxBody {
		return no(protocol.Unauthorized, false, "the answer from %s is longer than a key authorization", at)
	}
	body := bytes.TrimRight(got.body, " \t\r\n")
	if subtle.ConstantTimeCompare(body, []byte(v.KeyAuthorization())) != 1 {
		return no(protocol.Unauthorized, false, "the answer from %s is not this challenge's key authorization: token, dot, thumbprint of the account's key", at)
	}
	return nil
}

var (
	errNotHTTP   = errors.New("not HTTP/1.1")
	errHandshake = errors.New("TLS handshake failed")
)

// get sends one request and reads its answer, a prefix of the body at most
// one byte longer than it may be. The caller closes conn.
//
// Over https the server's certificate is not verified: whoever asks for a
// certificate need not have one yet, and http-01 is as strong as its first
// hop, which has none either (RFC 8555 section 10.2).
func (n *Network) get(ctx context.Context, conn net.Conn, to location) (answer, error) {
	stop := interruptible(ctx, conn)
	defer stop()
	bounded := &boundedConn{Conn: conn, left: maxResponse}
	var stream io.ReadWriter = bounded
	if to.tls {
		bounded.left += maxHandshake
		tlsConn := tls.Client(bounded, &tls.Config{ServerName: to.host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
		if err := tlsConn.Handshake(); err != nil {
			return answer{}, errors.Join(errHandshake, err)
		}
		bounded.left = maxResponse
		stream = tlsConn
	}
	if _, err := stream.Write(n.request(to)); err != nil {
		return answer{}, err
	}
	got, err := readAnswer(stream)
	if err != nil && bounded.err != nil && bounded.err != io.EOF {
		err = bounded.err // net/http takes a line cut off by an error for a bad one
	}
	return got, err
}

func (n *Network) request(to location) []byte {
	agent := n.UserAgent
	if agent == "" {
		agent = "chancery"
	}
	b := make([]byte, 0, 384)
	b = append(append(b, "GET "...), to.path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), to.authority()...)
	b = append(append(b, "\r\nUser-Agent: "...), strings.Map(oneLine, agent)...)
	return append(b, "\r\nAccept: */*\r\nConnection: close\r\n\r\n"...)
}

// oneLine keeps a header's value to printable ASCII.
func oneLine(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// readAnswer reads one response. The body is never closed: net/http would
// read it to its end first.
func readAnswer(from io.Reader) (answer, error) {
	r := bufio.NewReaderSize(from, 1024)
	for range maxInterim {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return answer{}, readError(err)
		}
		if resp.StatusCode < 200 {
			continue
		}
		got := answer{status: resp.StatusCode, location: resp.Header.Get("Location")}
		if got.status != http.StatusOK {
			return got, nil
		}
		got.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
		if err != nil {
			return answer{}, readError(err)
		}
		return got, nil
	}
	return answer{}, errNotHTTP
}

// readError keeps the errors of the network and hides the others, which quote
// what the peer sent.
func readError(err error) error {
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, errTooMuch) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errNotHTTP
}

// follow works out a redirect's target and whether it may be visited: http
// and https only, on the ports where validation connects anyway, to a name or
// an address. Its errors continue "redirect N …".
func (n *Network) follow(from location, to string) (location, error) {
	if to == "" || len(to) > maxLocation {
		return location{}, errors.New("has no Location, or one that is too long")
	}
	base, err := url.Parse(from.String())
	if err != nil {
		return location{}, errors.New("can't be resolved")
	}
	u, err := base.Parse(to)
	if err != nil || u.Opaque != "" || u.Host == "" {
		return location{}, errors.New("leads to something that is not a URL")
	}
	next := location{path: u.RequestURI()}
	if strings.ContainsFunc(next.path, func(r rune) bool { return r <= ' ' || r > '~' }) { // a raw query; it would break the request line
		return location{}, errors.New("leads to something that is not a URL")
	}
	switch u.Scheme {
	case "http":
		next.port = n.httpPort()
	case "https":
		next.tls, next.port = true, n.tlsPort()
	default:
		return location{}, errors.New("leads to a scheme other than http and https")
	}
	if u.User != nil {
		return location{}, errors.New("leads to a URL with a user name or password")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil || uint16(port) != n.httpPort() && uint16(port) != n.tlsPort() {
			return location{}, errors.New("leads to a port other than those of validation (" +
				strconv.Itoa(int(n.httpPort())) + " and " + strconv.Itoa(int(n.tlsPort())) + ")")
		}
		next.port = uint16(port)
	}
	if next.host, err = redirectHost(u.Hostname()); err != nil {
		return location{}, err
	}
	return next, nil
}

func redirectHost(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), nil
	}
	id, err := protocol.ParseIdentifier(string(protocol.DNS), host)
	if err != nil || id.IsWildcard() {
		return "", errors.New("leads to a host that is neither a name nor an address")
	}
	return id.Value, nil
}
