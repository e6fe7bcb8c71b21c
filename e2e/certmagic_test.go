package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// newCertmagic is a certmagic configuration with storage of its own. It has no
// e-mail address: with one, RevokeCert forgets the account and makes a new one.
func newCertmagic(w *harness.World, ca *harness.CA, change func(*certmagic.ACMEIssuer)) *certmagic.Config {
	w.Helper()
	var cfg *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil },
		Logger:           zap.NewNop(),
	})
	w.Cleanup(cache.Stop)
	cfg = certmagic.New(cache, certmagic.Config{Storage: &certmagic.FileStorage{Path: w.Path("certmagic")}, Logger: zap.NewNop()})
	template := certmagic.ACMEIssuer{CA: ca.Directory, TrustedRoots: ca.Pool(), Agreed: true, Logger: zap.NewNop()}
	if change != nil {
		change(&template)
	}
	cfg.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(cfg, template)}
	return cfg
}

// obtain gets a certificate. The functions named Async are those that ask no
// questions on standard output; they try for a month, so the time is bounded.
func obtain(w *harness.World, cfg *certmagic.Config, name string) error {
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	return cfg.ObtainCertAsync(ctx, name)
}

func TestCertmagic(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		stored := func(w *harness.World, name string) (crt, key string) {
			dir := w.Glob(w.Path("certmagic/certificates/*/" + name))
			return dir + "/" + name + ".crt", dir + "/" + name + ".key"
		}
		w.Sub("http-01, renew, revoke", func(w *harness.World) {
			cfg := newCertmagic(w, ca, func(i *certmagic.ACMEIssuer) { i.DisableTLSALPNChallenge = true })
			if err := obtain(w, cfg, "a.test"); err != nil {
				w.Fatal(err)
			}
			crt, key := stored(w, "a.test")
			first := w.Verify(ca, []string{"a.test"}, crt)
			w.KeyIs(first, "P-256")
			if err := cfg.RenewCertAsync(w.Context(), "a.test", true); err != nil {
				w.Fatal(err)
			}
			second := w.Verify(ca, []string{"a.test"}, crt)
			w.Renewed(first, second)
			signer := w.Key(key)
			if err := cfg.RevokeCert(w.Context(), "a.test", acme.ReasonSuperseded, false); err != nil {
				w.Fatal(err)
			}
			w.RevokedKey(ca, second, signer)
		})
		w.Sub("tls-alpn-01, RSA", func(w *harness.World) {
			cfg := newCertmagic(w, ca, func(i *certmagic.ACMEIssuer) { i.DisableHTTPChallenge = true })
			cfg.KeySource = certmagic.StandardKeyGenerator{KeyType: certmagic.RSA2048}
			if err := obtain(w, cfg, "a.test"); err != nil {
				w.Fatal(err)
			}
			crt, _ := stored(w, "a.test")
			w.KeyIs(w.Verify(ca, []string{"a.test"}, crt), "RSA-2048")
		})
		w.Sub("IP address, external account binding, profile", func(w *harness.World) {
			kid, hmac := ca.EAB()
			cfg := newCertmagic(w, ca, func(i *certmagic.ACMEIssuer) {
				i.DisableTLSALPNChallenge = true
				i.ExternalAccount = &acme.EAB{KeyID: kid, MACKey: hmac}
				i.Profile = profileOf(w, ca)
			})
			if err := obtain(w, cfg, "127.0.0.1"); err != nil {
				w.Fatal(err)
			}
			crt, _ := stored(w, "127.0.0.1")
			w.Verify(ca, []string{"127.0.0.1"}, crt)
		})
	})
}

func TestCertmagicDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		cfg := newCertmagic(w, ca, func(i *certmagic.ACMEIssuer) {
			i.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
				DNSProvider: nsupdate{w, b.Hook(w)}, Resolvers: []string{"127.0.0.1:53"},
			}}
		})
		if err := obtain(w, cfg, "*.a.test"); err != nil {
			w.Fatal(err)
		}
		w.Verify(ca, []string{"*.a.test"}, w.Glob(w.Path("certmagic/certificates/*/wildcard_.a.test/*.crt")))
	})
}

// nsupdate is a libdns provider on BIND's dynamic updates.
type nsupdate struct {
	w    *harness.World
	hook string
}

func (n nsupdate) each(verb, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	for _, r := range recs {
		rr := r.RR()
		n.w.Run(n.hook, verb, strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), "."), rr.Data)
	}
	return recs, nil
}

func (n nsupdate) AppendRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return n.each("add", zone, recs)
}

func (n nsupdate) DeleteRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return n.each("del", zone, recs)
}
