package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/secret"
)

// ownCertificate is the HTTPS certificate of the server itself: issued by
// itself with a key that lives in memory only, and renewed at two thirds of
// its life, or read from files again at a reload.
type ownCertificate struct {
	authority *ca.Authority
	log       *slog.Logger
	current   atomic.Pointer[tls.Certificate]
}

// get is for tls.Config.GetCertificate.
func (o *ownCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := o.current.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("no certificate yet")
}

// obtain gets the first one. While the key that signs it is away, or its
// holder doesn't sign, the start goes on: OCSP answers and CRLs must be served
// all the same, and run tries again every second.
func (o *ownCertificate) obtain(ctx context.Context, c *config.Config) error {
	bounded, cancel := context.WithTimeout(ctx, firstTime)
	defer cancel()
	err := o.refresh(bounded, c)
	if errors.Is(err, signer.ErrAway) || errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		o.log.Error("clients can't connect until the key that signs the server's own certificate is there", "error", err)
		return nil
	}
	return err
}

// refresh gets a new certificate as the configuration says.
func (o *ownCertificate) refresh(ctx context.Context, c *config.Config) error {
	if c.TLS.Certificate != "" {
		pair, err := readPair(c)
		if err == nil {
			o.current.Store(pair)
		}
		return err
	}
	profile, err := c.Profile(c.TLS.Profile)
	if err != nil {
		return fmt.Errorf("tls.profile: %w", err)
	}
	var names []protocol.Identifier
	for _, n := range c.TLS.Names {
		id, err := ownName(n)
		if err != nil {
			return fmt.Errorf("tls.names: %w", err)
		}
		names = append(names, id)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	// Not for ever: a try of its own may find another key.
	ctx, cancel := context.WithTimeout(ctx, renewRetry)
	defer cancel()
	chain, err := o.authority.IssueOwn(ctx, profile, names, key.Public())
	if err != nil {
		return fmt.Errorf("the server's own certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	o.current.Store(&tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf})
	return nil
}

func ownName(name string) (protocol.Identifier, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		return protocol.ParseIdentifier(string(protocol.IP), name)
	}
	return protocol.ParseIdentifier(string(protocol.DNS), name)
}

// readPair reads the certificate that the configuration names.
func readPair(c *config.Config) (*tls.Certificate, error) {
	key := c.Path(c.TLS.Key)
	info, err := os.Stat(key)
	if err == nil {
		err = secret.Check(key, info)
	}
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(c.Path(c.TLS.Certificate), key)
	return &pair, err
}

// renewAt is when the certificate should be replaced.
func (o *ownCertificate) renewAt() time.Time {
	leaf := o.current.Load().Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3 * 2)
}

const (
	firstTime  = 10 * time.Second // the start waits for the first certificate at most
	firstRetry = time.Second      // when the first is tried again
	renewRetry = time.Minute      // when a failed renewal is tried again
)

// next is when the certificate should be renewed: never where it comes from
// files; whether it still does is looked at every hour.
func (o *ownCertificate) next(c *config.Config) (wait time.Duration, due bool) {
	if c.TLS.Certificate != "" {
		return time.Hour, false
	}
	if o.current.Load() == nil {
		return firstRetry, true
	}
	wait = time.Until(o.renewAt())
	return max(wait, 0), wait <= 0
}

// run renews until ctx ends. A failed renewal is tried again every minute,
// which leaves hours of tries before the old certificate ends.
func (o *ownCertificate) run(ctx context.Context, now func() *config.Config) {
	wait, _ := o.next(now())
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		c := now()
		wait, due := o.next(c) // a reload may have brought another
		if due {
			wait = o.renew(ctx, c)
		}
		timer.Reset(wait)
	}
}

// renew gets another one, and says when to look again.
func (o *ownCertificate) renew(ctx context.Context, c *config.Config) time.Duration {
	old := o.current.Load()
	err := o.refresh(ctx, c)
	switch {
	case err == nil:
		o.log.Info("own certificate renewed", "until", o.current.Load().Leaf.NotAfter)
		wait, _ := o.next(c)
		return max(wait, renewRetry)
	case old == nil: // the start has told
		o.log.Debug("no certificate of the server's own yet", "error", err)
		return firstRetry
	}
	o.log.Error("the server's own certificate was not renewed; trying again in a minute", "error", err, "until", old.Leaf.NotAfter)
	return renewRetry
}

// tlsConfig is for the ACME listener. TLS 1.2 stays possible: it is the
// clients of others that connect here, and some are old.
func (o *ownCertificate) tlsConfig() *tls.Config {
	return &tls.Config{
		GetCertificate: o.get,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
	}
}
