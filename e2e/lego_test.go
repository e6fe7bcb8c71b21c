package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// lego is Debian's lego, 4.9.1, with a state folder of its own.
type lego struct {
	w   *harness.World
	ca  *harness.CA
	dir string
}

// cmd is lego with the given options before its command.
func (l lego) cmd(args ...string) *harness.Cmd {
	return l.w.Cmd("lego", append([]string{"--server", l.ca.Directory, "-a", "-m", "a@example.org", "--path", l.dir}, args...)...).
		Env("LEGO_CA_CERTIFICATES=" + l.ca.TLSRoot)
}

func (l lego) file(name string) string { return l.dir + "/certificates/" + name }

func TestLego(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		w.Sub("http-01, ECDSA, renew, revoke", func(w *harness.World) {
			l := lego{w, ca, w.Mkdir("lego")}
			args := []string{"-d", "a.test", "-d", "b.test", "--http", "--http.port", "127.0.0.1:80", "--key-type", "ec384"}
			l.cmd(append(args, "run")...).OK()
			first := w.Verify(ca, []string{"a.test", "b.test"}, l.file("a.test.crt"))
			w.KeyIs(first, "P-384")
			// It renews what ends within 30 days.
			l.cmd(append(args, "renew", "--no-random-sleep")...).OK()
			second := w.Verify(ca, []string{"a.test", "b.test"}, l.file("a.test.crt"))
			w.Renewed(first, second)
			l.cmd(append(args, "revoke", "--keep", "--reason", "4")...).OK()
			w.Revoked(ca, second, l.file("a.test.key"))
		})
		w.Sub("tls-alpn-01, RSA", func(w *harness.World) {
			l := lego{w, ca, w.Mkdir("lego")}
			l.cmd("-d", "a.test", "--tls", "--tls.port", "127.0.0.1:443", "--key-type", "rsa2048", "run").OK()
			w.KeyIs(w.Verify(ca, []string{"a.test"}, l.file("a.test.crt")), "RSA-2048")
		})
		w.Sub("external account binding", func(w *harness.World) {
			l := lego{w, ca, w.Mkdir("lego")}
			kid, hmac := ca.EAB()
			l.cmd("--eab", "--kid", kid, "--hmac", hmac, "-d", "a.test", "--http", "run").OK()
			w.Verify(ca, []string{"a.test"}, l.file("a.test.crt"))
		})
		w.Sub("IP address as a dns identifier is refused", func(w *harness.World) {
			// This version sends {"type":"dns","value":"127.0.0.1"}.
			l := lego{w, ca, w.Mkdir("lego")}
			out := l.cmd("-d", "127.0.0.1", "--http", "run").Fails()
			refused(w, out, "malformed", "rejectedIdentifier", "unsupportedIdentifier")
		})
	})
}

func TestLegoDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		l := lego{w, ca, w.Mkdir("lego")}
		l.cmd("-d", "*.a.test", "-d", "a.test", "--dns", "rfc2136", "--dns.resolvers", "127.0.0.1:53", "run").
			Env("RFC2136_NAMESERVER=127.0.0.1", "RFC2136_TSIG_ALGORITHM=hmac-sha256.", "RFC2136_TSIG_KEY="+b.KeyName,
				"RFC2136_TSIG_SECRET="+b.Secret, "RFC2136_PROPAGATION_TIMEOUT=10", "RFC2136_POLLING_INTERVAL=1",
				"RFC2136_SEQUENCE_INTERVAL=1").OK()
		w.Verify(ca, []string{"*.a.test", "a.test"}, l.file("_.a.test.crt"))
	})
}
