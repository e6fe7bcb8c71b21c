package e2e_test

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// HAProxy 2.6 has no ACME of its own: certbot answers behind it, and a hook
// puts the certificate in through the runtime API, without a restart.
func TestHAProxy(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		site := w.Path("site.pem")
		// HAProxy needs a certificate to start with.
		w.Run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=placeholder", "-keyout", w.Path("p.key"), "-out", w.Path("p.pem"))
		w.Write("site.pem", w.Read(w.Path("p.pem"))+w.Read(w.Path("p.key")))
		conf := w.Write("haproxy.cfg", `global
  stats socket `+w.Path("admin.sock")+` mode 600 level admin
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend plain
  bind 127.0.0.1:80
  use_backend certbot if { path_beg /.well-known/acme-challenge/ }
frontend secure
  bind 127.0.0.1:443 ssl crt `+site+`
  http-request return status 200
backend certbot
  server certbot 127.0.0.1:8402
`)
		w.Cmd("haproxy", "-db", "-f", conf).Start().Listens("127.0.0.1:443")
		hook := w.Write("hook", `#!/bin/sh
set -e
cat $RENEWED_LINEAGE/privkey.pem $RENEWED_LINEAGE/fullchain.pem > `+site+`
printf 'set ssl cert `+site+` <<\n%s\n\n' "$(cat `+site+`)" | socat - `+w.Path("admin.sock")+`
echo 'commit ssl cert `+site+`' | socat - `+w.Path("admin.sock")+`
`)
		c := newCertbot(w, ca)
		first := c.certonly(w, "site", []string{"a.test"}, "--standalone", "--http-01-port", "8402", "--deploy-hook", hook)
		if got := served(w, ca, "a.test"); got.SerialNumber.Cmp(first.SerialNumber) != 0 {
			w.Errorf("HAProxy serves serial %x, certbot got %x", got.SerialNumber, first.SerialNumber)
		}
		c.cmd(w, "renew").OK()
		second := c.verify(w, "site", "a.test")
		w.Renewed(first, second)
		if got := served(w, ca, "a.test"); got.SerialNumber.Cmp(second.SerialNumber) != 0 {
			w.Errorf("HAProxy serves serial %x, certbot renewed to %x", got.SerialNumber, second.SerialNumber)
		}
	})
}
