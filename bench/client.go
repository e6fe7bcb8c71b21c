package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// job is what one issuance needs that can be made before the clock runs:
// keys, a name nobody had before, a CSR.
type job struct {
	account *ecdsa.PrivateKey
	name    string
	csr     []byte
}

// jobs are shared by all servers, which know nothing of one another; each
// server walks through them by itself.
type jobs struct {
	mu  sync.Mutex
	all []job
}

// reserve makes jobs until there are n.
func (j *jobs) reserve(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.all) < n {
		made, err := newJob(len(j.all))
		if err != nil {
			return err
		}
		j.all = append(j.all, made)
	}
	return nil
}

// at returns job i. One that wasn't reserved is made now, at the client's cost.
func (j *jobs) at(i int) (job, error) {
	j.mu.Lock()
	if i < len(j.all) {
		defer j.mu.Unlock()
		return j.all[i], nil
	}
	j.mu.Unlock()
	return newJob(i)
}

func newJob(i int) (job, error) {
	account, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return job{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return job{}, err
	}
	name := fmt.Sprintf("w%07d.bench.internal", i)
	csr, err := acme.NewCSR(key, acme.Identifiers(name)...)
	return job{account, name, csr}, err
}

// caller is one client with one connection.
type caller struct {
	srv     *server
	answers *answers
	wire    *wire
	http    *http.Client

	account *ecdsa.PrivateKey // of the kept account
	url     string            // of the kept account, "" for none yet
}

func newCaller(srv *server, a *answers) *caller {
	w := &wire{directory: srv.directory, config: &tls.Config{RootCAs: srv.roots}}
	return &caller{srv: srv, answers: a, wire: w, http: &http.Client{Transport: w}}
}

// issueTime bounds one issuance: a server that takes longer hangs.
const issueTime = 30 * time.Second

// pollEvery is the first pause before a look at something that isn't final;
// each is twice the last. It is the same for all servers and shorter than
// their Retry-After, so that nobody's latency is seconds of sleep, and long
// enough that Pebble, which alone needs it, is mostly asked once.
const pollEvery = 5 * time.Millisecond

// issue does a whole issuance. With a kept account it makes one at first need
// only.
func (c *caller) issue(ctx context.Context, j job, kept bool) error {
	ctx, cancel := context.WithTimeout(ctx, issueTime)
	defer cancel()
	client := &acme.Client{DirectoryURL: c.srv.directory, HTTPClient: c.http, Key: j.account}
	if kept && c.url != "" {
		client.Key, client.AccountURL = c.account, c.url
	} else {
		acct, err := client.Register(ctx, acme.Registration{TermsAgreed: true})
		if err != nil {
			return fmt.Errorf("newAccount: %w", err)
		}
		if kept {
			c.account, c.url = j.account, acct.URL
		}
	}
	order, err := client.NewOrder(ctx, acme.OrderRequest{Identifiers: acme.Identifiers(j.name)})
	if err != nil {
		return fmt.Errorf("newOrder: %w", err)
	}
	if len(order.Authorizations) != 1 {
		return fmt.Errorf("the order has %d authorizations", len(order.Authorizations))
	}
	if err := c.prove(ctx, client, order.Authorizations[0]); err != nil {
		return err
	}
	order, err = c.finalize(ctx, client, order, j.csr)
	if err != nil {
		return err
	}
	chain, err := client.Certificate(ctx, order.Certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if len(chain.DER) < 2 {
		return errors.New("the chain has no issuer")
	}
	return nil
}

// prove answers http-01 and looks again only at what isn't final.
func (c *caller) prove(ctx context.Context, client *acme.Client, authzURL string) error {
	authz, err := client.Authorization(ctx, authzURL)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	if authz.Status == acme.StatusValid {
		return errors.New("an authorization was reused: that isn't a whole issuance")
	}
	for _, ch := range authz.Challenges {
		if ch.Type != acme.HTTP01 {
			continue
		}
		keyAuth, err := client.KeyAuthorization(ch.Token)
		if err != nil {
			return err
		}
		c.answers.tokens.Store(ch.Token, keyAuth)
		defer c.answers.tokens.Delete(ch.Token)
		ch, err = client.Accept(ctx, ch, nil)
		if err != nil {
			return fmt.Errorf("challenge: %w", err)
		}
		for pause := pollEvery; ch.Status != acme.StatusValid; pause *= 2 {
			if ch.Status == acme.StatusInvalid || authz.Status == acme.StatusInvalid {
				return errors.New("the authorization became invalid")
			}
			if err := sleep(ctx, pause); err != nil {
				return fmt.Errorf("waiting for the authorization: %w", err)
			}
			if authz, err = client.Authorization(ctx, authzURL); err != nil {
				return fmt.Errorf("authorization: %w", err)
			}
			if authz.Status == acme.StatusValid {
				break
			}
		}
		return nil
	}
	return errors.New("no http-01 is offered")
}

func (c *caller) finalize(ctx context.Context, client *acme.Client, order acme.Order, csr []byte) (acme.Order, error) {
	url := order.URL
	order, err := client.Finalize(ctx, order, csr)
	if err != nil {
		return order, fmt.Errorf("finalize: %w", err)
	}
	for pause := pollEvery; order.Status != acme.StatusValid; pause *= 2 {
		if order.Status == acme.StatusInvalid {
			return order, errors.New("the order became invalid")
		}
		if err := sleep(ctx, pause); err != nil {
			return order, fmt.Errorf("waiting for the order: %w", err)
		}
		if order, err = client.Order(ctx, url); err != nil {
			return order, fmt.Errorf("order: %w", err)
		}
	}
	return order, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wire is an http.RoundTripper over one TLS connection: HTTP/1.1, one request
// at a time, no goroutine of its own. It costs half of what http.Transport
// does, and the client's cost counts against every server alike.
//
// A warm wire asks for directory and nonce once and then answers both itself,
// with the nonce that the last account left over: what is measured is the
// issuance of a program that has been talking to its CA. A cold one asks, and
// is closed after every issuance.
type wire struct {
	directory string
	config    *tls.Config
	cold      bool

	conn   *tls.Conn
	in     *bufio.Reader
	out    *bufio.Writer
	cached *http.Response // of the directory, without its body
	body   []byte         // of the directory
	nonce  string         // of the last answer

	posts, requests int
}

func (w *wire) close() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if resp := w.known(req); resp != nil {
		return resp, nil
	}
	if err := w.dial(req.Context(), req.URL); err != nil {
		return nil, err
	}
	if deadline, ok := req.Context().Deadline(); ok {
		_ = w.conn.SetDeadline(deadline)
	}
	w.requests++
	if req.Method == http.MethodPost {
		w.posts++
	}
	resp, err := w.exchange(req)
	if err != nil {
		w.close()
		return nil, err
	}
	w.nonce = resp.Header.Get("Replay-Nonce")
	return resp, nil
}

// known answers what a warm client needn't ask.
func (w *wire) known(req *http.Request) *http.Response {
	switch {
	case w.cold:
	case req.Method == http.MethodGet && w.cached != nil && req.URL.String() == w.directory:
		resp := *w.cached
		resp.Body = io.NopCloser(bytes.NewReader(w.body))
		return &resp
	case req.Method == http.MethodHead && w.nonce != "":
		header := http.Header{"Replay-Nonce": {w.nonce}}
		w.nonce = ""
		return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: header, Body: http.NoBody, Request: req}
	}
	return nil
}

func (w *wire) dial(ctx context.Context, to *url.URL) error {
	if w.conn != nil {
		return nil
	}
	dialer := tls.Dialer{Config: w.config}
	conn, err := dialer.DialContext(ctx, "tcp", to.Host)
	if err != nil {
		return err
	}
	w.conn = conn.(*tls.Conn)
	w.in, w.out = bufio.NewReader(conn), bufio.NewWriter(conn)
	return nil
}

// maxAnswer bounds a body; the longest here is a chain of some kilobytes.
const maxAnswer = 1 << 20

func (w *wire) exchange(req *http.Request) (*http.Response, error) {
	if err := req.Write(w.out); err != nil {
		return nil, err
	}
	if err := w.out.Flush(); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(w.in, req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.Close {
		w.close()
	}
	if !w.cold && w.cached == nil && req.URL.String() == w.directory && resp.StatusCode == http.StatusOK {
		keep := *resp
		keep.Header = resp.Header.Clone()
		keep.Header.Del("Replay-Nonce") // good for once only
		w.cached, w.body = &keep, body
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}
