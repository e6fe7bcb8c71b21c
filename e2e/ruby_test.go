package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// ruby-acme-client 2.0.9 knows http-01 and dns-01, and no external accounts.
func TestRuby(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it offers a challenge without a token, on which this client throws")
		w.Names()
		ca := w.CA(harness.Options{})
		w.Run("ruby", w.Testdata("ruby.rb"), ca.Directory, ca.TLSRoot, w.Path("out"), w.Webroot(), "http-01", "a.test", "b.test")
		names := []string{"a.test", "b.test"}
		first, second := w.Verify(ca, names, w.Path("out.revoked.pem")), w.Verify(ca, names, w.Path("out.pem"))
		w.Renewed(first, second)
		w.Revoked(ca, first, w.Path("out.revoked.key"))
	})
}

func TestRubyDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it offers a challenge without a token, on which this client throws")
		b := w.BIND()
		ca := w.CA(harness.Options{})
		w.Run("ruby", w.Testdata("ruby.rb"), ca.Directory, ca.TLSRoot, w.Path("out"), b.Hook(w), "dns-01", "*.a.test", "a.test")
		w.Verify(ca, []string{"*.a.test", "a.test"}, w.Path("out.pem"))
	})
}
