package e2e_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// certbot is Debian's certbot with a state folder of its own.
type certbot struct {
	ca  *harness.CA
	dir string
}

func newCertbot(w *harness.World, ca *harness.CA) certbot {
	return certbot{ca, w.Mkdir("certbot")}
}

// cmd is certbot VERB against the CA.
func (c certbot) cmd(w *harness.World, verb string, args ...string) *harness.Cmd {
	return w.Cmd("certbot", append([]string{verb, "-n", "--no-random-sleep-on-renew", "--server", c.ca.Directory, "--config-dir", c.dir,
		"--work-dir", c.dir + "/work", "--logs-dir", c.dir + "/logs"}, args...)...).Env("REQUESTS_CA_BUNDLE=" + c.ca.TLSRoot)
}

// register makes the account, without which revoke and unregister fail.
func (c certbot) register(w *harness.World, args ...string) {
	w.Helper()
	c.cmd(w, "register", append([]string{"--agree-tos", "-m", "a@example.org"}, args...)...).OK()
}

// certonly gets the certificate NAME for the names and has it verified.
func (c certbot) certonly(w *harness.World, name string, names []string, args ...string) *x509.Certificate {
	w.Helper()
	c.cmd(w, "certonly", append(args, "--agree-tos", "-m", "a@example.org", "--cert-name", name, "-d", strings.Join(names, ","))...).OK()
	return c.verify(w, name, names...)
}

func (c certbot) verify(w *harness.World, name string, names ...string) *x509.Certificate {
	w.Helper()
	return w.Verify(c.ca, names, c.dir+"/live/"+name+"/fullchain.pem")
}

func (c certbot) key(name string) string { return c.dir + "/live/" + name + "/privkey.pem" }

func TestCertbot(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		c := newCertbot(w, ca)
		var first *x509.Certificate
		w.Sub("http-01 standalone, ECDSA", func(w *harness.World) {
			first = c.certonly(w, "a", []string{"a.test", "b.test"}, "--standalone", "--key-type", "ecdsa")
			w.KeyIs(first, "P-256")
		})
		w.Sub("renew because it is due", func(w *harness.World) {
			// certbot renews what ends within 30 days: a day's certificate always.
			c.cmd(w, "renew").OK()
			w.Renewed(first, c.verify(w, "a", "a.test", "b.test"))
		})
		w.Sub("http-01 webroot, RSA", func(w *harness.World) {
			w.KeyIs(c.certonly(w, "rsa", []string{"b.test"}, "--webroot", "-w", w.Webroot(), "--key-type", "rsa", "--rsa-key-size", "3072"), "RSA-3072")
		})
		w.Sub("revoke by account", func(w *harness.World) {
			cert := c.verify(w, "a", "a.test", "b.test")
			c.cmd(w, "revoke", "--cert-path", c.dir+"/live/a/fullchain.pem", "--reason", "superseded", "--no-delete-after-revoke").OK()
			w.Revoked(ca, cert, c.key("a"))
		})
		w.Sub("revoke by the certificate's key", func(w *harness.World) {
			cert := c.verify(w, "rsa", "b.test")
			c.cmd(w, "revoke", "--cert-path", c.dir+"/live/rsa/fullchain.pem", "--key-path", c.key("rsa"), "--reason", "keycompromise",
				"--no-delete-after-revoke").OK()
			w.Revoked(ca, cert, c.key("rsa"))
		})
		w.Sub("update and deactivate the account", func(w *harness.World) {
			c.cmd(w, "update_account", "-m", "b@example.org").OK()
			c.cmd(w, "unregister").OK()
		})
		w.Sub("external account binding", func(w *harness.World) {
			kid, hmac := ca.EAB()
			c := newCertbot(w, ca)
			c.register(w, "--eab-kid", kid, "--eab-hmac-key", hmac)
			c.certonly(w, "a", []string{"a.test"}, "--standalone")
		})
	})
}

func TestCertbotPorts(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{HTTPPort: 5002})
		newCertbot(w, ca).certonly(w, "a", []string{"a.test"}, "--standalone", "--http-01-port", "5002")
	})
}

func TestCertbotDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		c := newCertbot(w, ca)
		// The plugin for RFC 2136; it finds the zone by asking for its SOA.
		creds := w.Write("rfc2136.ini", "dns_rfc2136_server = 127.0.0.1\ndns_rfc2136_name = "+b.KeyName+
			"\ndns_rfc2136_secret = "+b.Secret+"\ndns_rfc2136_algorithm = HMAC-SHA256\n")
		w.Run("chmod", "600", creds)
		c.certonly(w, "wild", []string{"*.a.test", "a.test"}, "--dns-rfc2136", "--dns-rfc2136-credentials", creds,
			"--dns-rfc2136-propagation-seconds", "0")
	})
}
