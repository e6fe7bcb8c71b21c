package acme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxBody bounds every answer. The largest honest ones are chains of
	// post-quantum certificates and orders of a hundred names: tens of KiB.
	maxBody = 1 << 20
	// maxURL bounds what goes into a request line and a protected header.
	maxURL = 2048
	// maxNonce bounds a nonce; real ones have 22 to 60 characters.
	maxNonce = 512
	// maxPool bounds the nonces kept. They are used newest first, since old
	// ones expire; more than the requests in flight are never needed.
	maxPool = 64
	// nonceTries bounds how often a request is signed again for badNonce. A
	// server that rejects one nonce in twenty on purpose (Pebble) fails five
	// times in a row once in three million requests.
	nonceTries = 5
	// requestTimeout is for one request where the http.Client sets no limit,
	// so that a server that trickles an endless body is left in the end. A
	// server may hold an answer for some seconds while it validates or signs.
	requestTimeout = 60 * time.Second
	// maxLinks bounds the alternates and pages one answer may name.
	maxLinks = 16
	// maxRetryAfter caps what a server may ask for.
	maxRetryAfter = 24 * time.Hour
)

// answer is a response, read to its end.
type answer struct {
	url    string // what was asked
	status int
	header http.Header
	nonce  string // Replay-Nonce, "" unless well formed
	body   []byte
}

// transport returns the HTTP client: the caller's, with a time limit and our
// own redirect rule.
func (c *Client) transport() *http.Client {
	c.setup.Do(func() {
		if c.HTTPClient != nil {
			c.http = *c.HTTPClient
		}
		if c.http.Timeout == 0 {
			c.http.Timeout = requestTimeout
		}
		c.http.CheckRedirect = checkRedirect
	})
	return &c.http
}

// checkRedirect lets plain GETs follow a few https redirects. A signed request
// names its URL, so that sending it elsewhere is never right (RFC 8555
// section 6.4); its redirect is returned as the error it is.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if via[0].Method == http.MethodPost {
		return http.ErrUseLastResponse
	}
	if len(via) > 3 {
		return errors.New("more than 3 redirects")
	}
	return checkURL(req.URL.String())
}

// do sends one request and reads the answer, whatever its status.
func (c *Client) do(ctx context.Context, method, url string, body []byte) (*answer, error) {
	if err := checkURL(url); err != nil {
		return nil, err
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	req.Header["User-Agent"] = []string{c.userAgent()} // RFC 8555 section 6.1
	if body != nil {
		req.Header["Content-Type"] = []string{"application/jose+json"} // section 6.2
	}
	start := time.Now()
	resp, err := c.transport().Do(req)
	if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	defer resp.Body.Close()
	a := &answer{url: url, status: resp.StatusCode, header: resp.Header}
	if nonce := resp.Header.Get("Replay-Nonce"); validNonce(nonce) {
		a.nonce = nonce
	}
	a.body, err = readBody(resp)
	if err != nil {
		return nil, fmt.Errorf("acme: %s %s: %w", method, url, err)
	}
	if c.Logger != nil {
		c.Logger.LogAttrs(ctx, slog.LevelDebug, "acme request", slog.String("method", method),
			slog.String("url", url), slog.Int("status", a.status), slog.Duration("took", time.Since(start)))
	}
	return a, nil
}

func (c *Client) userAgent() string {
	if c.UserAgent == "" {
		return "chancery-acme/1"
	}
	return c.UserAgent + " chancery-acme/1"
}

// readBody reads to the end, so that the connection can be used again, but
// never more than maxBody.
func readBody(resp *http.Response) ([]byte, error) {
	if resp.ContentLength > maxBody {
		return nil, fmt.Errorf("the answer has %d bytes, more than %d", resp.ContentLength, maxBody)
	}
	var buf bytes.Buffer
	if resp.ContentLength > 0 {
		buf.Grow(int(resp.ContentLength) + bytes.MinRead) // else ReadFrom grows it to look for the end
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case n > maxBody:
		return nil, fmt.Errorf("the answer has more than %d bytes", maxBody)
	}
	return buf.Bytes(), nil
}

// get fetches an unsigned resource: the directory, renewal information.
func (c *Client) get(ctx context.Context, url string) (*answer, error) {
	a, err := c.do(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	c.keepNonce(a.nonce)
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("acme: GET %s: %w", url, a.problem())
	}
	return a, nil
}

// post signs payload as id and sends it (RFC 8555 section 6.2). A nil payload
// makes it a POST-as-GET (section 6.3). It returns only answers with a 2xx
// status; others are errors that wrap a *Problem. badNonce is retried with the
// nonce that came with it (section 6.5).
func (c *Client) post(ctx context.Context, id *identity, url string, payload []byte) (*answer, error) {
	if err := checkURL(url); err != nil { // before it is put into a header unescaped
		return nil, err
	}
	nonce := ""
	for try := 1; ; try++ {
		var err error
		if nonce == "" {
			if nonce, err = c.takeNonce(ctx); err != nil {
				return nil, err
			}
		}
		body, err := id.seal(nonce, url, payload)
		if err != nil {
			return nil, err
		}
		a, err := c.do(ctx, http.MethodPost, url, body)
		if err != nil {
			return nil, err
		}
		if a.status/100 == 2 {
			c.keepNonce(a.nonce)
			return a, nil
		}
		problem := a.problem()
		if problem.Type != ErrBadNonce || try == nonceTries {
			c.keepNonce(a.nonce)
			return nil, fmt.Errorf("acme: POST %s: %w", url, problem)
		}
		c.dropNonces() // what was pooled is likely as old as the refused one
		nonce = a.nonce
	}
}

// fetch reads a resource by POST-as-GET into v.
func (c *Client) fetch(ctx context.Context, url string, v any) (*answer, error) {
	id, err := c.account()
	if err != nil {
		return nil, err
	}
	a, err := c.post(ctx, id, url, nil)
	if err != nil {
		return nil, err
	}
	return a, a.decode(v)
}

// send posts v as the account and reads the answer into out, unless out is nil.
func (c *Client) send(ctx context.Context, url string, v, out any) (*answer, error) {
	id, err := c.account()
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("acme: payload: %w", err)
	}
	a, err := c.post(ctx, id, url, payload)
	if err != nil || out == nil {
		return a, err
	}
	return a, a.decode(out)
}

// takeNonce returns a nonce from the pool, or a new one from the server.
func (c *Client) takeNonce(ctx context.Context) (string, error) {
	c.mu.Lock()
	if n := len(c.nonces); n > 0 {
		nonce := c.nonces[n-1]
		c.nonces = c.nonces[:n-1]
		c.mu.Unlock()
		return nonce, nil
	}
	c.mu.Unlock()
	dir, err := c.directory(ctx)
	if err != nil {
		return "", err
	}
	a, err := c.do(ctx, http.MethodHead, dir.NewNonce, nil)
	switch {
	case err != nil:
		return "", err
	case a.status/100 != 2:
		return "", fmt.Errorf("acme: HEAD %s: %w", dir.NewNonce, a.problem())
	case a.nonce == "":
		return "", fmt.Errorf("acme: HEAD %s: the answer has no valid Replay-Nonce", dir.NewNonce)
	}
	return a.nonce, nil
}

func (c *Client) keepNonce(nonce string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if nonce != "" && len(c.nonces) < maxPool {
		c.nonces = append(c.nonces, nonce)
	}
}

func (c *Client) dropNonces() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nonces = c.nonces[:0]
}

// validNonce holds a nonce to the base64url alphabet (RFC 8555 section 6.5.1:
// others MUST be ignored).
func validNonce(s string) bool { return len(s) <= maxNonce && isBase64URL(s) }

// isBase64URL reports whether s is not empty and in base64url's alphabet.
func isBase64URL(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// checkURL holds a URL to https (RFC 8555 section 6.1) and to characters that
// stand for themselves in JSON and in a request line.
func checkURL(s string) error {
	switch {
	case !strings.HasPrefix(s, "https://") || len(s) == len("https://"):
		return fmt.Errorf("acme: %q is not an https URL", printable(s))
	case len(s) > maxURL:
		return fmt.Errorf("acme: a URL is longer than %d characters", maxURL)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '#' {
			return fmt.Errorf("acme: %q is not a clean https URL", printable(s))
		}
	}
	return nil
}

// decode reads a JSON answer into v.
func (a *answer) decode(v any) error {
	if got := a.mediaType(); got != "application/json" {
		return fmt.Errorf("acme: %s: the answer is %q, not application/json", a.url, printable(got))
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("acme: %s: the answer is not what it should be: %w", a.url, err)
	}
	return nil
}

// mediaType returns the content type without parameters, in lower case.
func (a *answer) mediaType() string {
	typ, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(typ))
}

// problem makes a Problem of an answer that isn't a success.
func (a *answer) problem() *Problem {
	p := parseProblem(a.mediaType(), a.body)
	if p == nil {
		p = &Problem{Type: "about:blank", Title: http.StatusText(a.status),
			Detail: fmt.Sprintf("HTTP status %d with %d bytes of %q instead of a problem document", a.status, len(a.body), a.mediaType())}
		if a.status/100 == 3 {
			p.Detail = fmt.Sprintf("HTTP status %d: the server redirects to %q, but a signed request is for one URL; check the directory URL",
				a.status, printable(a.header.Get("Location")))
		}
	}
	p.Status = a.status
	p.RetryAfter = a.retryAfter()
	return p
}

// parseProblem reads a problem document, or returns nil. Some servers send
// problems as application/json.
func parseProblem(mediaType string, body []byte) *Problem {
	if mediaType != "application/problem+json" && mediaType != "application/json" {
		return nil
	}
	var p *Problem
	if json.Unmarshal(body, &p) != nil || p == nil || p.Type == "" && p.Detail == "" {
		return nil
	}
	if p.Type == "" {
		p.Type = "about:blank" // RFC 7807 section 3.1
	}
	return p
}

// location returns the URL of the resource an answer made.
func (a *answer) location() (string, error) {
	loc := a.header.Get("Location")
	if loc == "" {
		return "", fmt.Errorf("acme: %s: the answer has no Location", a.url)
	}
	return resolve(a.url, loc)
}

// resolve makes ref absolute and checks it.
func resolve(base, ref string) (string, error) {
	if !strings.HasPrefix(ref, "https://") {
		b, err := url.Parse(base)
		if err != nil {
			return "", fmt.Errorf("acme: %w", err)
		}
		r, err := b.Parse(ref)
		if err != nil {
			return "", fmt.Errorf("acme: %w", err)
		}
		ref = r.String()
	}
	return ref, checkURL(ref)
}

func (a *answer) retryAfter() time.Duration {
	return parseRetryAfter(a.header.Get("Retry-After"), time.Now())
}

// parseRetryAfter reads seconds or a date (RFC 9110 section 10.2.3) into a
// duration from 0 (nothing, or nonsense) to maxRetryAfter.
func parseRetryAfter(s string, now time.Time) time.Duration {
	if s == "" {
		return 0
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return maxRetryAfter
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// links returns the targets of the answer's Link headers of one relation,
// absolute and checked; what is malformed is left out.
func (a *answer) links(rel string) []string {
	var out []string
	for _, line := range a.header["Link"] {
		for target := range parseLink(line, rel) {
			if len(out) == maxLinks {
				return out
			}
			if abs, err := resolve(a.url, target); err == nil {
				out = append(out, abs)
			}
		}
	}
	return out
}

// parseLink yields the targets of one Link header (RFC 8288 section 3) that
// have the given relation.
func parseLink(s, rel string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for s != "" {
			_, rest, ok := strings.Cut(s, "<")
			if !ok {
				return
			}
			target, rest, ok := strings.Cut(rest, ">")
			if !ok {
				return
			}
			var params string
			params, s = cutUnquoted(rest, ',')
			if linkHasRel(params, rel) && !yield(target) {
				return
			}
		}
	}
}

// linkHasRel looks for rel among the space-separated relations of the first
// rel parameter.
func linkHasRel(params, rel string) bool {
	for params != "" {
		var param string
		param, params = cutUnquoted(params, ';')
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") {
			for _, got := range strings.Fields(strings.Trim(strings.TrimSpace(value), `"`)) {
				if strings.EqualFold(got, rel) {
					return true
				}
			}
			return false
		}
	}
	return false
}

// cutUnquoted cuts s at the first sep outside double quotes.
func cutUnquoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
