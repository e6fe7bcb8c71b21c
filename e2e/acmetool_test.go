package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// acmetool knows http-01 only, and no external accounts. Its revoke command ends
// well and sends nothing, with any server.
func TestAcmetool(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		// ECDSA only: it sleeps for ten seconds before it looks at an order again.
		w.Write("state/conf/target", `request:
  provider: `+ca.Directory+`
  key:
    type: ecdsa
  challenge:
    http-ports:
      - 127.0.0.1:80
    http-self-test: false
`)
		w.Write("state/conf/responses", `"acme-enter-email": "a@example.org"
"acme-agreement:`+readDirectory(w, ca, ca.Directory).Meta.TermsOfService+`": true
`)
		w.Cmd("acmetool", "--state="+w.Path("state"), "--hooks="+w.Mkdir("hooks"), "--batch", "want", "a.test", "b.test").
			Env("SSL_CERT_FILE=" + ca.TLSRoot).OK()
		w.Verify(ca, []string{"a.test", "b.test"}, w.Path("state/live/a.test/fullchain"))
	})
}
