package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// acme-tiny knows http-01 by files and RSA account keys, and nothing else.
func TestAcmeTiny(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		www := w.Webroot()
		account := w.Path("account.key")
		w.Run("openssl", "genrsa", "-out", account, "2048")
		issue := func(kind string, genpkey ...string) {
			key, csr := w.Path(kind+".key"), w.Path(kind+".csr")
			w.Run("openssl", append([]string{"genpkey", "-out", key}, genpkey...)...)
			w.Run("openssl", "req", "-new", "-key", key, "-subj", "/", "-addext", "subjectAltName=DNS:a.test,DNS:b.test", "-out", csr)
			out := w.Cmd("acme-tiny", "--account-key", account, "--csr", csr, "--acme-dir", www+"/.well-known/acme-challenge",
				"--directory-url", ca.Directory, "--disable-check", "--contact", "mailto:a@example.org").Env("SSL_CERT_FILE=" + ca.TLSRoot).OK()
			cert := w.Verify(ca, []string{"a.test", "b.test"}, w.Write(kind+".pem", out[strings.Index(out, "-----BEGIN"):]))
			w.KeyIs(cert, kind)
		}
		issue("RSA-2048", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
		issue("P-256", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
		issue("P-256", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256") // which is how it renews
	})
}
