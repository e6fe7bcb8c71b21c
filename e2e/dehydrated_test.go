package e2e_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// dehydrated writes a configuration in which the given lines come last, and
// returns how to run dehydrated with it.
func dehydrated(w *harness.World, ca *harness.CA, lines string) func(args ...string) *harness.Cmd {
	w.Helper()
	config := w.Write("dehydrated/config", `CA="`+ca.Directory+`"
CURL_OPTS="--cacert `+ca.TLSRoot+`"
BASEDIR="`+w.Path("dehydrated")+`"
WELLKNOWN="`+w.Mkdir("www", ".well-known", "acme-challenge")+`"
ALPNCERTDIR="`+w.Mkdir("alpn")+`"
CONTACT_EMAIL=a@example.org
ACCOUNT_KEYSIZE=2048
`+lines)
	return func(args ...string) *harness.Cmd {
		return w.Cmd("dehydrated", append([]string{"-f", config}, args...)...)
	}
}

func TestDehydrated(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		w.Sub("http-01, ECDSA, renew, revoke, deactivate", func(w *harness.World) {
			run := dehydrated(w, ca, "ACCOUNT_KEY_ALGO=prime256v1\nKEY_ALGO=secp384r1\nCHALLENGETYPE=http-01\n")
			w.Webroot()
			run("--register", "--accept-terms").OK()
			run("-c", "-d", "a.test b.test").OK()
			chain, key := w.Path("dehydrated/certs/a.test/fullchain.pem"), w.Path("dehydrated/certs/a.test/privkey.pem")
			first := w.Verify(ca, []string{"a.test", "b.test"}, chain)
			w.KeyIs(first, "P-384")
			// It renews what ends within 30 days.
			run("-c", "-d", "a.test b.test").OK()
			second := w.Verify(ca, []string{"a.test", "b.test"}, chain)
			w.Renewed(first, second)
			key = w.Resolve(key)
			run("--revoke", w.Resolve(w.Path("dehydrated/certs/a.test/cert.pem"))).OK()
			w.Revoked(ca, second, key)
			run("--account").OK()
		})
		w.Sub("tls-alpn-01, RSA", func(w *harness.World) {
			run := dehydrated(w, ca, "KEY_ALGO=rsa\nKEYSIZE=2048\nCHALLENGETYPE=tls-alpn-01\n")
			serveALPN(w, w.Path("alpn"))
			run("--register", "--accept-terms").OK()
			run("-c", "-d", "a.test").OK()
			w.KeyIs(w.Verify(ca, []string{"a.test"}, w.Path("dehydrated/certs/a.test/fullchain.pem")), "RSA-2048")
		})
		w.Sub("external account binding", func(w *harness.World) {
			kid, hmac := ca.EAB()
			run := dehydrated(w, ca, "EAB_KID="+kid+"\nEAB_HMAC_KEY="+hmac+"\nCHALLENGETYPE=http-01\n")
			w.Webroot()
			run("--register", "--accept-terms").OK()
			run("-c", "-d", "a.test").OK()
			w.Verify(ca, []string{"a.test"}, w.Path("dehydrated/certs/a.test/fullchain.pem"))
		})
	})
}

func TestDehydratedDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		// HOOK_CHAIN gives all names at once, the two values of one name too.
		hook := w.Write("hook", `#!/bin/sh
verb=$1; shift
case $verb in
deploy_challenge) while [ $# -gt 0 ]; do `+b.Hook(w)+` add _acme-challenge.$1 $3; shift 3; done ;;
clean_challenge) while [ $# -gt 0 ]; do `+b.Hook(w)+` del _acme-challenge.$1 $3; shift 3; done ;;
esac
`)
		run := dehydrated(w, ca, "HOOK="+hook+"\nHOOK_CHAIN=yes\nCHALLENGETYPE=dns-01\n")
		run("--register", "--accept-terms").OK()
		run("-c", "--alias", "wild", "-d", "*.a.test a.test").OK()
		w.Verify(ca, []string{"*.a.test", "a.test"}, w.Path("dehydrated/certs/wild/fullchain.pem"))
	})
}

// serveALPN answers tls-alpn-01 on port 443 with the files NAME.crt.pem and
// NAME.key.pem that dehydrated puts into a folder.
func serveALPN(w *harness.World, dir string) {
	w.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:443", &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"acme-tls/1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(dir+"/"+h.ServerName+".crt.pem", dir+"/"+h.ServerName+".key.pem")
			return &c, err
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) {
				defer c.Close()
				_ = c.(*tls.Conn).Handshake()
			}(c)
		}
	}()
}
