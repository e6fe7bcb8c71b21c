package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// node runs a script of testdata with the modules that e2e/install fetched.
func node(w *harness.World, ca *harness.CA, script string, args ...string) *harness.Cmd {
	w.Helper()
	return w.Cmd("node", append([]string{w.Testdata(script)}, args...)...).
		Env("NODE_PATH="+w.Tool("node/node_modules"), "NODE_EXTRA_CA_CERTS="+ca.TLSRoot)
}

func TestNPM(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		for _, c := range []struct{ challenge, key, kind string }{{"http-01", "rsa", "RSA-2048"}, {"tls-alpn-01", "ec", "P-256"}} {
			w.Sub(c.challenge, func(w *harness.World) {
				names := []string{"a.test", "b.test"}
				node(w, ca, "npm.js", ca.Directory, c.challenge, w.Path("out"), "a.test", "b.test").Env("KEY=" + c.key).OK()
				first, second := w.Verify(ca, names, w.Path("out.revoked.pem")), w.Verify(ca, names, w.Path("out.pem"))
				w.KeyIs(second, c.kind)
				w.Renewed(first, second)
				w.Revoked(ca, first, w.Path("out.revoked.key"))
			})
		}
		w.Sub("external account binding", func(w *harness.World) {
			kid, hmac := ca.EAB()
			node(w, ca, "npm.js", ca.Directory, "http-01", w.Path("out"), "a.test").Env("EAB_KID="+kid, "EAB_HMAC="+hmac).OK()
			w.Verify(ca, []string{"a.test"}, w.Path("out.pem"))
		})
		w.Sub("an empty update", func(w *harness.World) {
			w.Ours("-strict it refuses an update of nothing")
			node(w, ca, "npm.js", ca.Directory, "http-01", w.Path("out"), "a.test").Env("UPDATE=1").OK()
		})
	})
}

func TestNPMDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		node(w, ca, "npm.js", ca.Directory, "dns-01", w.Path("out"), "*.a.test", "a.test").Env("TXT_HOOK=" + b.Hook(w)).OK()
		w.Verify(ca, []string{"*.a.test", "a.test"}, w.Path("out.pem"))
	})
}

// @root/acme wants a meta object in the directory, and polls an order that is
// processing by sending finalize again.
func TestRootACME(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it answers finalize with processing, and a second one with 403")
		w.Names()
		ca := w.CA(harness.Options{})
		node(w, ca, "root.js", ca.Directory, w.Path("out.pem"), "a.test").OK()
		w.Verify(ca, []string{"a.test"}, w.Path("out.pem"))
	})
}
