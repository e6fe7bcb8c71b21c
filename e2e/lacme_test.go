package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// lacme knows http-01 only, and serves it itself.
func TestLacme(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		ca.TrustSystemWide()
		w.Run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", w.Path("account.key"))
		w.Write("accountd.conf", "privkey = file:"+w.Path("account.key")+"\n")
		for name, key := range map[string][]string{
			"rsa": {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
			"ec":  {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		} {
			w.Run("openssl", append(append([]string{"genpkey"}, key...), "-out", w.Path(name+".key"))...)
		}
		// It drops its privileges to these users by default; the scratch folder is
		// not theirs to read. It checks the chain itself, against CAfile.
		conf := w.Write("lacme.conf", `config-certs = `+w.Path("certs.conf")+`
[client]
user =
group =
server = `+ca.Directory+`
[webserver]
user =
group =
listen = 127.0.0.1:80
[accountd]
config = `+w.Path("accountd.conf")+`
`)
		w.Write("certs.conf", `CAfile = `+ca.Root+`
[rsa]
certificate-key = `+w.Path("rsa.key")+`
certificate-chain = `+w.Path("rsa.pem")+`
subject = /CN=a.test
subjectAltName = DNS:a.test
[ec]
certificate-key = `+w.Path("ec.key")+`
certificate-chain = `+w.Path("ec.pem")+`
subject = /CN=b.test
subjectAltName = DNS:b.test
`)
		run := func(args ...string) { w.Run("lacme", append([]string{"--config=" + conf}, args...)...) }
		contact := "a@example.org" // which lacme sends as it is
		if harness.Pebble {
			contact = "mailto:" + contact
		}
		run("account", "--register", "--tos-agreed", contact)
		run("newOrder")
		w.KeyIs(w.Verify(ca, []string{"a.test"}, w.Path("rsa.pem")), "RSA-2048")
		first := w.Verify(ca, []string{"b.test"}, w.Path("ec.pem"))
		w.KeyIs(first, "P-384")
		// It renews what ends within 21 days.
		run("newOrder", "ec")
		second := w.Verify(ca, []string{"b.test"}, w.Path("ec.pem"))
		w.Renewed(first, second)
		run("revokeCert", w.Path("ec.pem"))
		w.Revoked(ca, second, w.Path("ec.key"))
		run("account", "--deactivate")
	})
}
