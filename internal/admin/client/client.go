package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
)

// Options say which admin API, and who calls it.
type Options struct {
	// Address is "https://HOST:PORT", "unix:PATH", or the path itself.
	Address string
	// Roots check the server's certificate; nil: the system's.
	Roots *x509.CertPool
	// Operator is who calls over TLS; nil: nobody, whom no server takes.
	Operator *Operator
}

// Client calls one admin API. It is safe for concurrent use. Close it.
type Client struct {
	address  string
	base     string // what URLs begin with
	socket   string // "": over TLS
	operator *Operator
	http     *http.Client
}

// Bounds on one call: a server answers at once, but for a walk over a long
// audit log, and a person takes a while to type a PIN and touch a key.
const (
	callTimeout      = 5 * time.Minute
	connectTimeout   = 10 * time.Second
	handshakeTimeout = 2 * time.Minute
	maxAnswer        = 64 << 20
)

// New makes a client; it connects at the first call. The error blames the
// address.
func New(o Options) (*Client, error) {
	c := &Client{address: o.Address, operator: o.Operator}
	// One connection serves all calls: with a YubiKey each one costs a touch.
	transport := &http.Transport{MaxConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: handshakeTimeout}
	dialer := &net.Dialer{Timeout: connectTimeout}
	if strings.HasPrefix(o.Address, "https://") {
		u, err := url.Parse(o.Address)
		if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("%q is not an admin API's address: want https://HOST:PORT or unix:PATH", o.Address)
		}
		c.base = "https://" + u.Host
		transport.DialContext = dialer.DialContext
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: o.Roots, GetClientCertificate: c.certificate}
	} else {
		if c.socket = strings.TrimPrefix(o.Address, "unix:"); c.socket == "" || strings.Contains(c.socket, "://") {
			return nil, fmt.Errorf("%q is not an admin API's address: want https://HOST:PORT or unix:PATH", o.Address)
		}
		c.base = "http://admin"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", c.socket)
		}
	}
	c.http = &http.Client{
		Timeout: callTimeout, Transport: transport,
		// An odd ID must not lead to another resource.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close lets go of the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// errNobody says how to become an operator.
var errNobody = errors.New("over TLS an operator's certificate is needed: name its files under operator in the settings, or as --operator-certificate and --operator-key")

// certificate is for tls.Config.GetClientCertificate.
func (c *Client) certificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if c.operator == nil {
		return nil, errNobody
	}
	return c.operator.certificate(info.Context())
}

// Do sends in as JSON (nil: no body) to a path, which is escaped already, and
// reads the answer into out. An error that the server answers with is an
// *api.Problem; all others say why it wasn't reached or understood.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		p := new(api.Problem)
		if json.Unmarshal(b, p) != nil || p.Detail == "" {
			return fmt.Errorf("the server answered %s", resp.Status)
		}
		return p
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the server's answer is not what this version understands: %w", err)
	}
	return nil
}
