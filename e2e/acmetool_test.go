package e2e_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

func TestAcmetool(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		for _, kind := range []string{"rsa", "ecdsa"} {
			w.Sub(kind, func(w *harness.World) {
				w.Write("state/conf/target", `request:
  provider: `+ca.Directory+`
  key:
    type: `+kind+`
  challenge:
    http-ports:
      - 127.0.0.1:80
    http-self-test: false
`)
				w.Write("state/conf/responses", `"acme-enter-email": "a@example.org"
"acme-agreement:`+readDirectory(w, ca, ca.Directory).Meta.TermsOfService+`": true
`)
				acmetool := func(args ...string) {
					w.Cmd("acmetool", append([]string{"--state=" + w.Path("state"), "--hooks=" + w.Mkdir("hooks"), "--batch"}, args...)...).
						Env("SSL_CERT_FILE=" + ca.TLSRoot).OK()
				}
				acmetool("want", "a.test", "b.test")
				live := w.Path("state/live/a.test")
				cert := w.Verify(ca, []string{"a.test", "b.test"}, live+"/fullchain")
				key := w.Resolve(live + "/privkey")
				acmetool("revoke", filepath.Base(w.Resolve(live)))
				acmetool("reconcile")
				w.Revoked(ca, cert, key)
			})
		}
	})
}
