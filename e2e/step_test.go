package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// The step CLI knows http-01 only, and renews and revokes by an API of
// step-ca's, not by ACME.
func TestStep(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		// It asks for notBefore and notAfter of year 1 where it was asked for none.
		w.Ours("it obeys and issues a certificate of year 1")
		w.Names()
		ca := w.CA(harness.Options{})
		issue := func(w *harness.World, name string, args ...string) {
			w.Cmd(w.Tool("step"), append([]string{"ca", "certificate", name, w.Path("crt.pem"), w.Path("key.pem"),
				"--acme", ca.Directory, "--root", ca.TLSRoot, "--contact", "a@example.org"}, args...)...).Env("STEPPATH=" + w.Mkdir("step")).OK()
		}
		w.Sub("standalone, several names, ECDSA", func(w *harness.World) {
			issue(w, "a.test", "--standalone", "--san", "a.test", "--san", "b.test")
			w.KeyIs(w.Verify(ca, []string{"a.test", "b.test"}, w.Path("crt.pem")), "P-256")
		})
		w.Sub("webroot, RSA", func(w *harness.World) {
			issue(w, "a.test", "--webroot", w.Webroot(), "--kty", "RSA", "--size", "2048")
			w.KeyIs(w.Verify(ca, []string{"a.test"}, w.Path("crt.pem")), "RSA-2048")
		})
		w.Sub("IP address", func(w *harness.World) {
			issue(w, "127.0.0.1", "--standalone")
			w.Verify(ca, []string{"127.0.0.1"}, w.Path("crt.pem"))
		})
		w.Sub("a lifetime of its own", func(w *harness.World) {
			issue(w, "a.test", "--standalone", "--not-after", "2h")
			c := w.Verify(ca, []string{"a.test"}, w.Path("crt.pem"))
			if left := time.Until(c.NotAfter); left > 2*time.Hour+time.Minute || left < 119*time.Minute {
				w.Errorf("asked for two hours, the certificate ends in %v", left)
			}
		})
	})
}
