package status

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// maxURL bounds what a certificate may have us ask.
	maxURL = 2048
	// maxGET is where RFC 5019 section 5 draws the line between GET and POST.
	maxGET = 255
	// maxMirrors bounds the URLs of one certificate that are tried in turn.
	maxMirrors = 4
	// answerTimeout is for one OCSP exchange, and for a list's header;
	// listTimeout for all of a list, which may have 64 MiB.
	answerTimeout = 10 * time.Second
	listTimeout   = 60 * time.Second
)

// errSame says that a list is still the one that was known.
var errSame = errors.New("not modified")

// transport makes a connection for one exchange: nothing stays open, and a
// host on https is held against today's roots.
func (c *Checker) transport() http.RoundTripper {
	if c.cfg.Transport != nil {
		return c.cfg.Transport
	}
	var roots *x509.CertPool
	if c.cfg.Roots != nil {
		roots = c.cfg.Roots()
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    answerTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 16 << 10,
	}
}

// exchange sends one request and reads at most limit bytes.
func (c *Checker) exchange(req *http.Request, limit int64) (body []byte, etag string, err error) {
	if err := checkURL(req.URL.String()); err != nil {
		return nil, "", err
	}
	req.Header.Set("User-Agent", "chancery-mtls/1")
	client := &http.Client{Transport: c.transport(), CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a redirect could lead anywhere
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotModified && req.Header.Get("If-None-Match") != "":
		return nil, "", errSame
	case res.StatusCode != http.StatusOK:
		return nil, "", fmt.Errorf("HTTP status %d", res.StatusCode)
	case res.ContentLength > limit:
		return nil, "", fmt.Errorf("it has %d bytes, more than %d", res.ContentLength, limit)
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	if etag = res.Header.Get("ETag"); len(etag) > 200 {
		etag = ""
	}
	return body, etag, err
}

// checkURL holds a URL to http and https, to an authority without a password,
// and to a bounded length.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxURL || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("%.100q is not an http URL of at most %d characters", s, maxURL)
	}
	return nil
}

// askOCSP asks the responders of a certificate in turn.
func (c *Checker) askOCSP(ctx context.Context, cert, issuer *x509.Certificate) (der []byte, a *answer, err error) {
	request, err := requestOCSP(cert, issuer)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, u := range mirrors(cert.OCSPServer) {
		der, err := c.askOne(ctx, u, request)
		if err == nil {
			a, err = verifyOCSP(der, cert, issuer, c.cfg.Now())
		}
		if err == nil {
			return der, a, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", u, err))
	}
	return nil, nil, errors.Join(errs...)
}

func (c *Checker) askOne(ctx context.Context, to string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	get := trimSlash(to) + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(request))
	method, body := http.MethodGet, io.Reader(nil)
	if len(get) > maxGET {
		method, get, body = http.MethodPost, to, bytes.NewReader(request)
	}
	req, err := http.NewRequestWithContext(ctx, method, get, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/ocsp-request") // RFC 6960 appendix A.1
	}
	der, _, err := c.exchange(req, maxOCSP)
	return der, err
}

// fetchCRL fetches the list of a certificate from its distribution points in
// turn. known is what is there already, nil if nothing; it is returned if it is
// still the newest.
func (c *Checker) fetchCRL(ctx context.Context, cert, issuer *x509.Certificate, known *list) (*list, error) {
	select { // a list takes much memory while it is read: one at a time
	case c.reading <- struct{}{}:
		defer func() { <-c.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var errs []error
	for _, u := range mirrors(cert.CRLDistributionPoints) {
		l, err := c.fetchOne(ctx, u, cert, issuer, known)
		if err == nil {
			return l, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", u, err))
	}
	return nil, errors.Join(errs...)
}

func (c *Checker) fetchOne(ctx context.Context, from string, cert, issuer *x509.Certificate, known *list) (*list, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	now := c.cfg.Now()
	if known != nil && known.etag != "" && known.url == from && current(known.this, known.next, now) == nil {
		req.Header.Set("If-None-Match", known.etag)
	}
	der, etag, err := c.exchange(req, maxCRL)
	if errors.Is(err, errSame) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := verifyCRL(der, cert, issuer, now)
	if err != nil {
		return nil, err
	}
	l.url, l.etag = from, etag
	return l, nil
}

// mirrors are the URLs worth trying; others, such as ldap, aren't.
func mirrors(urls []string) []string {
	var out []string
	for _, u := range urls {
		if len(out) < maxMirrors && checkURL(u) == nil {
			out = append(out, u)
		}
	}
	return out
}

func trimSlash(u string) string {
	if u[len(u)-1] == '/' {
		return u[:len(u)-1]
	}
	return u
}
