package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// A CA set up as its operators do, and what only a configuration of one's own
// offers: the newer challenges by DNS, which acmez knows by its own reading of
// their drafts, and client certificates by names that an EAB key approves.
func TestInit(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it has no init")
		b := w.BIND()
		ca := w.InitCA(func(conf string) string {
			const validation = "    validation:\n      resolvers: [\"127.0.0.1:53\"]\n      allow: [\"127.0.0.0/8\"]\n"
			return w.Replace(conf,
				"challenges: [http-01, dns-01, tls-alpn-01]", "challenges: [http-01, dns-01, tls-alpn-01, dns-account-01, dns-persist-01]",
				"      wildcards: false", "      wildcards: true",
				"    eab:\n      required: false\n", "    eab:\n      required: false\n"+validation)
		})
		hook := b.Hook(w)
		txt := func(name func(acme.Challenge) string, value func(acme.Challenge) string) acmez.Solver {
			update := func(verb string) func(acme.Challenge) error {
				return func(ch acme.Challenge) error {
					w.Run(hook, verb, name(ch), value(ch))
					return nil
				}
			}
			return solver{update("add"), update("del")}
		}
		w.Sub("dns-account-01", func(w *harness.World) {
			var c *acmezClient
			c = newAcmez(w, ca, map[string]acmez.Solver{acme.ChallengeTypeDNSAccount01: txt(
				func(ch acme.Challenge) string { return ch.DNSAccount01TXTRecordName(c.account) }, acme.Challenge.DNS01KeyAuthorization)})
			c.obtain(w.NewKey(), nil, "a.test", "*.a.test")
		})
		w.Sub("dns-persist-01", func(w *harness.World) {
			var c *acmezClient
			c = newAcmez(w, ca, map[string]acmez.Solver{acme.ChallengeTypeDNSPersist01: txt(acme.Challenge.DNSPersist01TXTRecordName,
				func(ch acme.Challenge) string {
					if len(ch.IssuerDomainNames) == 0 {
						w.Fatalf("the challenge names no issuer: %+v", ch)
					}
					return ch.DNSPersist01TXTRecordValue(c.account, ch.IssuerDomainNames[0], true)
				})})
			c.obtain(w.NewKey(), nil, "a.test", "*.a.test")
		})
		w.Sub("certbot as init says", func(w *harness.World) {
			newCertbot(w, ca).certonly(w, "a", []string{"a.test"}, "--standalone")
		})
		w.Sub("names outside the policy", func(w *harness.World) {
			l := lego{w, ca, w.Mkdir("lego")}
			refused(w, l.cmd("-d", "a.example.org", "--http", "run").Fails(), "rejectedIdentifier")
		})
		w.Sub("client certificate by a pre-approved name", func(w *harness.World) {
			kid, hmac := ca.NewEAB("--directory", "clients", "--name", "app.test", "--pre-approved")
			clients := *ca
			clients.Directory = ca.Clients
			l := lego{w, &clients, w.Mkdir("lego")}
			// No challenge is left to answer: the order is ready at once.
			l.cmd("--eab", "--kid", kid, "--hmac", hmac, "-d", "app.test", "--http", "run").OK()
			crt := l.file("app.test.crt")
			w.Run("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", ca.Root, "-untrusted", crt, crt)
			if certs := ca.Admin("certs", "list"); !strings.Contains(certs, "app.test") {
				w.Errorf("chancery admin certs list doesn't know app.test: %s", certs)
			}
		})
	})
}
