package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

func TestRuby(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it offers a challenge without a token, on which this client throws")
		w.Names()
		ca := w.CA(harness.Options{})
		run := func(w *harness.World, env ...string) {
			w.Cmd("ruby", w.Testdata("ruby.rb"), ca.Directory, ca.TLSRoot, w.Path("out"), w.Webroot(), "http-01", "a.test", "b.test").Env(env...).OK()
			names := []string{"a.test", "b.test"}
			first, second := w.Verify(ca, names, w.Path("out.revoked.pem")), w.Verify(ca, names, w.Path("out.pem"))
			w.Renewed(first, second)
			w.Revoked(ca, first, w.Path("out.revoked.key"))
		}
		w.Sub("http-01", func(w *harness.World) { run(w) })
		w.Sub("external account binding", func(w *harness.World) {
			kid, hmac := ca.EAB()
			run(w, "EAB_KID="+kid, "EAB_HMAC="+hmac)
		})
	})
}

func TestRubyDNS(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it offers a challenge without a token, on which this client throws")
		b := w.BIND()
		ca := w.CA(harness.Options{})
		w.Run("ruby", w.Testdata("ruby.rb"), ca.Directory, ca.TLSRoot, w.Path("out"), b.Hook(w), "dns-01", "*.a.test", "a.test")
		w.Verify(ca, []string{"*.a.test", "a.test"}, w.Path("out.pem"))
	})
}
