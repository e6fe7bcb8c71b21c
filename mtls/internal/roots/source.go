package roots

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	// maxFile bounds a file; the largest system bundles have 300 KiB.
	maxFile = 4 << 20
	// maxBundle and maxRoots bound what a CA's bundle URL may bring.
	maxBundle, maxRoots = 1 << 20, 64
	// bundleTimeout is for one fetch of a bundle.
	bundleTimeout = 10 * time.Second
)

// Source is where root certificates come from.
type Source struct {
	kind kind
	text string         // path, PEM or URL
	pool *x509.CertPool // of kind pool
}

type kind int

const (
	none kind = iota
	file
	text
	system
	pool
	bundle
)

// File is a PEM file of at most 4 MiB.
func File(path string) Source { return Source{kind: file, text: path} }

// PEM is a PEM text.
func PEM(pem []byte) Source { return Source{kind: text, text: string(pem)} }

// System is the machine's pool, as of the start of the process.
func System() Source { return Source{kind: system} }

// Pool is a pool as it is now; it is copied.
func Pool(p *x509.CertPool) Source {
	if p != nil {
		p = p.Clone()
	}
	return Source{kind: pool, pool: p}
}

// URL is where a CA publishes its roots, in PEM: at most 64 certificates in at
// most 1 MiB.
func URL(url string) Source { return Source{kind: bundle, text: url} }

// String names the source.
func (s Source) String() string {
	switch s.kind {
	case file:
		return fmt.Sprintf("file %q", s.text)
	case text:
		return "PEM text"
	case system:
		return "system"
	case pool:
		return "pool"
	case bundle:
		return fmt.Sprintf("URL %q", s.text)
	}
	return "nothing"
}

// opaque reports whether the source is a pool, which can be copied but neither
// listed nor merged.
func (s Source) opaque() bool { return s.kind == system || s.kind == pool }

// loaded is what a look at a source brought.
type loaded struct {
	certs []*x509.Certificate // of all but opaque ones
	pool  *x509.CertPool      // of opaque ones
	stat  os.FileInfo         // of files
	same  bool                // the file is as it was; nothing else is set
}

// load looks at the source. before is the file as it was when it was read, nil:
// read it in any case. roots are those that a bundle's server must satisfy.
func (s Source) load(ctx context.Context, before os.FileInfo, roots *x509.CertPool, now time.Time) (l loaded, err error) {
	switch s.kind {
	case file:
		return s.loadFile(before)
	case text:
		l.certs, err = parse([]byte(s.text))
	case system:
		l.pool, err = x509.SystemCertPool()
		if err == nil && l.pool.Equal(x509.NewCertPool()) {
			err = errors.New("the system has no root certificates; install its package of them (ca-certificates), or name other roots")
		}
	case pool:
		l.pool = s.pool
		if l.pool == nil || l.pool.Equal(x509.NewCertPool()) {
			err = errors.New("the pool is empty")
		}
	case bundle:
		l.certs, err = fetch(ctx, s.text, roots, now)
	default:
		err = errors.New("it is the zero value; use RootsFile, RootsPEM, RootsSystem, RootsPool or RootsURL")
	}
	return l, err
}

func (s Source) loadFile(before os.FileInfo) (l loaded, err error) {
	if l.stat, err = os.Stat(s.text); err != nil {
		return l, err
	}
	if before != nil && os.SameFile(before, l.stat) && before.ModTime().Equal(l.stat.ModTime()) && before.Size() == l.stat.Size() {
		return loaded{same: true}, nil
	}
	if !l.stat.Mode().IsRegular() { // reading another kind could take for ever
		return l, errors.New("it isn't a regular file")
	}
	f, err := os.Open(s.text)
	if err != nil {
		return l, err
	}
	defer f.Close()
	data, err := readAtMost(f, maxFile)
	if err != nil {
		return l, err
	}
	l.certs, err = parse(data)
	return l, err
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, err
}

// parse reads CA certificates in PEM. It takes all or nothing: a file that
// is just being written must not pass for a shorter one.
func parse(data []byte) (certs []*x509.Certificate, err error) {
	begun := bytes.Count(data, []byte("-----BEGIN "))
	blocks := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %d is a %q; only certificates belong here", blocks, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", blocks, err)
		}
		if err := checkCA(c); err != nil {
			return nil, fmt.Errorf("certificate %d, %q: %w", blocks, c.Subject, err)
		}
		certs = append(certs, c)
	}
	switch {
	case blocks < begun:
		return nil, fmt.Errorf("of %d PEM blocks only %d can be read", begun, blocks)
	case blocks == 0:
		return nil, errors.New("there is no PEM certificate in it")
	}
	return certs, nil
}

// checkCA refuses what may not certify others (RFC 5280 sections 4.2.1.3 and
// 4.2.1.9). A self-signed server certificate as a root would be believed for
// itself only, but it is more likely a mistake.
func checkCA(c *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it isn't a CA certificate (its basic constraints don't say so)")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it may not sign certificates (its key usage doesn't say so)")
	}
	return nil
}

// checkURL holds the URL to https: the connection is what authenticates
// the bundle.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return errors.New("it must be an https URL without a user")
	}
	return nil
}

// fetch fetches the roots at a URL, from a server that today's roots
// verify. Expired ones are left out.
func fetch(ctx context.Context, from string, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, bundleTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, Time: func() time.Time { return now }},
			DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10, // a connection for each fetch, none left behind
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d; the URL must lead to the bundle itself", res.StatusCode)
	}
	data, err := readAtMost(res.Body, maxBundle)
	if err != nil {
		return nil, err
	}
	certs, err := parse(data)
	switch {
	case err != nil:
		return nil, err
	case len(certs) > maxRoots:
		return nil, fmt.Errorf("it has %d certificates, more than %d", len(certs), maxRoots)
	}
	valid := certs[:0]
	for _, c := range certs {
		if !now.After(c.NotAfter) {
			valid = append(valid, c)
		}
	}
	if len(valid) == 0 {
		return nil, errors.New("all its certificates have expired")
	}
	return valid, nil
}
