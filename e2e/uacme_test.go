package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

func TestUacme(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it offers a challenge without a token, on which this client gives up")
		w.Names()
		ca := w.CA(harness.Options{})
		ca.TrustSystemWide()
		w.Sub("http-01, EC and RSA, renew, revoke, new account key", func(w *harness.World) {
			w.Webroot()
			run := uacme(w, ca)
			hook := func(args ...string) *harness.Cmd {
				return run(append([]string{"-h", "/usr/share/uacme/uacme.sh"}, args...)...).
					Env("UACME_CHALLENGE_PATH=" + w.Mkdir("www", ".well-known", "acme-challenge"))
			}
			run("-y", "new", "a@example.org").OK()
			hook("-t", "EC", "issue", "a.test", "b.test").OK()
			file := w.Path("uacme/a.test/cert.pem")
			first := w.Verify(ca, []string{"a.test", "b.test"}, file)
			w.KeyIs(first, "P-256")
			// It renews what ends within 30 days.
			hook("issue", "a.test", "b.test").OK()
			second := w.Verify(ca, []string{"a.test", "b.test"}, file)
			w.Renewed(first, second)
			run("newkey").OK()
			run("revoke", file).OK()
			w.Revoked(ca, second, w.Path("uacme/private/a.test/key.pem"))

			hook("-t", "RSA", "issue", "b.test").OK()
			w.KeyIs(w.Verify(ca, []string{"b.test"}, w.Path("uacme/b.test/cert.pem")), "RSA-2048")
			hook("issue", "127.0.0.1").OK()
			w.Verify(ca, []string{"127.0.0.1"}, w.Path("uacme/127.0.0.1/cert.pem"))
			run("update", "b@example.org").OK()
			run("deactivate").OK()
		})
		w.Sub("tls-alpn-01 by ualpn", func(w *harness.World) {
			w.Cmd("ualpn", "-v", "-u", "root", "-b", "127.0.0.1@443", "-c", "127.0.0.1@8443").Start().Says("new worker starting")
			run := uacme(w, ca)
			run("-y", "new").OK()
			run("-h", "/usr/share/uacme/ualpn.sh", "issue", "a.test").OK()
			w.Verify(ca, []string{"a.test"}, w.Path("uacme/a.test/cert.pem"))
		})
		w.Sub("external account binding", func(w *harness.World) {
			w.Webroot()
			kid, hmac := ca.EAB()
			run := uacme(w, ca)
			run("-y", "-e", kid+":"+hmac, "new").OK()
			run("-h", "/usr/share/uacme/uacme.sh", "issue", "a.test").
				Env("UACME_CHALLENGE_PATH=" + w.Mkdir("www", ".well-known", "acme-challenge")).OK()
			w.Verify(ca, []string{"a.test"}, w.Path("uacme/a.test/cert.pem"))
		})
	})
}

// uacme returns how to run uacme with a state folder of its own.
func uacme(w *harness.World, ca *harness.CA) func(args ...string) *harness.Cmd {
	return func(args ...string) *harness.Cmd {
		return w.Cmd("uacme", append([]string{"-v", "-a", ca.Directory, "-c", w.Path("uacme")}, args...)...)
	}
}

func TestUacmeDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it offers a challenge without a token, on which this client gives up")
		b := w.BIND()
		ca := w.CA(harness.Options{})
		ca.TrustSystemWide()
		hook := w.Write("hook", `#!/bin/sh
[ $2 = dns-01 ] || exit 1
case $1 in
begin) `+b.Hook(w)+` add _acme-challenge.$3 $5 ;;
*) `+b.Hook(w)+` del _acme-challenge.$3 $5 ;;
esac
`)
		run := uacme(w, ca)
		run("-y", "new").OK()
		run("-h", hook, "issue", "*.a.test", "a.test").OK()
		w.Verify(ca, []string{"*.a.test", "a.test"}, w.Path("uacme/a.test/cert.pem"))
	})
}
