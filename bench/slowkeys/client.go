package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// client is one workload's owner: an EAB key with pre-approved names, and an
// account that it vouches for.
type client struct {
	*acme.Client
	directory string
	names     *atomic.Int64 // makes names that nobody had before
}

// clients makes some of a directory.
func (s *site) clients(ctx context.Context, directory string, n int) ([]client, error) {
	_, port, _ := net.SplitHostPort(s.acme)
	var d net.Dialer
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: 1000,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, s.acme)
		},
	}
	names := new(atomic.Int64)
	var all []client
	for range n {
		out, err := output(ctx, s.dir, nil, s.program("chancery"), "admin", "--socket", filepath.Join(s.dir, "admin.sock"), "--json",
			"eab", "create", "--directory", directory, "--pre-approved", "--name", "*."+directory+".internal")
		if err != nil {
			return nil, err
		}
		var key struct {
			KID  string `json:"kid"`
			HMAC string `json:"hmac_key"`
		}
		if err := json.Unmarshal(out, &key); err != nil {
			return nil, err
		}
		mac, err := base64.RawURLEncoding.DecodeString(key.HMAC)
		if err != nil {
			return nil, err
		}
		account, err := newKey()
		if err != nil {
			return nil, err
		}
		c := &acme.Client{
			DirectoryURL: "https://ca.internal:" + port + "/acme/" + directory + "/directory", Key: account,
			HTTPClient: &http.Client{Transport: transport, Timeout: time.Minute},
		}
		if _, err := c.Register(ctx, acme.Registration{TermsAgreed: true, EAB: &acme.ExternalAccount{KeyID: key.KID, MACKey: mac}}); err != nil {
			return nil, err
		}
		all = append(all, client{c, directory, names})
	}
	return all, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// polite looks at an order again when the server says so.
func polite(o acme.Order) time.Duration { return max(o.RetryAfter, time.Second) }

// eager looks all the time, so that what is measured is the wait for the key
// and not that for the next look.
func eager(acme.Order) time.Duration { return 20 * time.Millisecond }

// obtain gets one certificate. Wait is the time from finalize to the valid
// order, as the client sees it.
func (c client) obtain(ctx context.Context, pause func(acme.Order) time.Duration) (wait time.Duration, err error) {
	name := fmt.Sprintf("pod-%d.%s.internal", c.names.Add(1), c.directory)
	key, err := newKey()
	if err != nil {
		return 0, err
	}
	csr, err := acme.NewCSR(key, acme.Identifiers(name)...)
	if err != nil {
		return 0, err
	}
	order, err := c.NewOrder(ctx, acme.OrderRequest{Identifiers: acme.Identifiers(name)})
	if err != nil {
		return 0, err
	}
	if order.Status != acme.StatusReady {
		return 0, fmt.Errorf("the order is %s: its name isn't pre-approved", order.Status)
	}
	begun, url := time.Now(), order.URL
	order, err = c.Finalize(ctx, order, csr)
	for err == nil && order.Status == acme.StatusProcessing {
		time.Sleep(pause(order))
		order, err = c.Order(ctx, url)
	}
	wait = time.Since(begun)
	if err != nil {
		return wait, err
	}
	if order.Status != acme.StatusValid {
		return wait, fmt.Errorf("the order is %s: %v", order.Status, order.Error)
	}
	chain, err := c.Certificate(ctx, order.Certificate)
	if err == nil && len(chain.DER) < 2 {
		err = errors.New("the chain has no issuer")
	}
	return wait, err
}

// load is what clients did.
type load struct {
	mu    sync.Mutex // guards what follows
	waits []time.Duration
	fault error // the first
	bad   int
}

func (l *load) one(ctx context.Context, c client, pause func(acme.Order) time.Duration) {
	wait, err := c.obtain(ctx, pause)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.bad++
		if l.fault == nil {
			l.fault = err
		}
		return
	}
	l.waits = append(l.waits, wait)
}

// hopeless says that nothing works.
func (l *load) hopeless() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad > 100
}

// failed is an error if any order failed.
func (l *load) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d orders failed, the first with: %w", l.bad, l.bad+len(l.waits), l.fault)
}

// saturation keeps orders in flight until it is ended; each ends what it has
// begun.
type saturation struct {
	load
	ending atomic.Bool
	all    sync.WaitGroup
}

func saturate(ctx context.Context, clients []client, orders int) *saturation {
	s := new(saturation)
	for i := range orders {
		s.all.Go(func() {
			for !s.ending.Load() && ctx.Err() == nil && !s.hopeless() {
				s.one(ctx, clients[i%len(clients)], polite)
			}
		})
	}
	return s
}

func (s *saturation) end() error {
	s.ending.Store(true)
	s.all.Wait()
	return s.failed()
}

// arrivals are when orders come at a rate, by chance but the same each time.
func arrivals(rate float64, length time.Duration) (all []time.Duration) {
	dice := mathrand.New(mathrand.NewPCG(3, 5))
	for at := 0.0; ; {
		at += dice.ExpFloat64() / rate
		if at >= length.Seconds() {
			return all
		}
		all = append(all, time.Duration(at*float64(time.Second)))
	}
}

// arrive makes an order at each of these times, whatever became of the others.
func arrive(ctx context.Context, clients []client, at []time.Duration) ([]time.Duration, error) {
	var l load
	var all sync.WaitGroup
	begun := time.Now()
	for i, at := range at {
		select {
		case <-time.After(time.Until(begun.Add(at))):
		case <-ctx.Done():
		}
		all.Go(func() { l.one(ctx, clients[i%len(clients)], eager) })
	}
	all.Wait()
	return l.waits, errors.Join(l.failed(), ctx.Err())
}

// quantile returns the q-th part of durations: the smallest that so many don't
// exceed.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(max(int(math.Ceil(q*float64(len(sorted))))-1, 0), len(sorted)-1)]
}
