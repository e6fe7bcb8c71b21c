package e2e_test

import (
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// caddyRun is one Caddy with its storage in a folder.
type caddyRun struct {
	*harness.Proc
	storage string
}

// caddy starts Caddy with the given global options and sites.
func caddy(w *harness.World, ca *harness.CA, options, sites string) caddyRun {
	w.Helper()
	storage := w.Path("caddy")
	file := w.Write("Caddyfile", `{
	admin off
	skip_install_trust
	storage file_system `+storage+`
	acme_ca `+ca.Directory+`
	acme_ca_root `+ca.TLSRoot+`
	email a@example.org
`+options+`
}
`+sites)
	return caddyRun{w.Cmd(w.Tool("caddy"), "run", "--adapter", "caddyfile", "--config", file).Start(), storage}
}

// has waits until Caddy has stored a certificate for a name, other than not.
func (c caddyRun) has(w *harness.World, ca *harness.CA, name string, not *x509.Certificate) *x509.Certificate {
	w.Helper()
	var cert *x509.Certificate
	pattern := c.storage + "/certificates/*/" + name + "/" + name
	c.Until("Caddy has a certificate for "+name, func() bool {
		// The metadata is written last.
		if found, _ := filepath.Glob(pattern + ".json"); len(found) != 1 {
			return false
		}
		cert = w.Chain(w.Read(w.Glob(pattern + ".crt")))[0]
		return not == nil || cert.SerialNumber.Cmp(not.SerialNumber) != 0
	})
	return w.Verify(ca, []string{name}, w.Glob(pattern+".crt"))
}

func TestCaddy(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		w.Sub("http-01 and tls-alpn-01, ECDSA and RSA, IP address", func(w *harness.World) {
			c := caddy(w, ca, "", `
a.test {
	tls {
		issuer acme {
			disable_tlsalpn_challenge
		}
	}
	respond hello
}
b.test {
	tls {
		key_type rsa2048
		issuer acme {
			disable_http_challenge
		}
	}
	respond hello
}
https://127.0.0.1 {
	tls {
		# Only a policy of its own makes Caddy ask a CA for an IP address.
		key_type p384
		issuer acme
	}
	respond hello
}
`)
			w.KeyIs(c.has(w, ca, "a.test", nil), "P-256")
			w.KeyIs(c.has(w, ca, "b.test", nil), "RSA-2048")
			w.KeyIs(c.has(w, ca, "127.0.0.1", nil), "P-384")
			served(w, ca, "a.test")
			served(w, ca, "b.test")
		})
		w.Sub("renew", func(w *harness.World) {
			site := "a.test {\n\trespond hello\n}\n"
			c := caddy(w, ca, "", site)
			first := c.has(w, ca, "a.test", nil)
			c.Stop()
			// Half a minute of the life is over at most; a window of nearly all of
			// it makes renewal due at the next start.
			c = caddy(w, ca, "renewal_window_ratio 0.99999", site)
			w.Renewed(first, c.has(w, ca, "a.test", first))
		})
		w.Sub("external account binding and profile", func(w *harness.World) {
			kid, hmac := ca.EAB()
			c := caddy(w, ca, "acme_eab {\n\tkey_id "+kid+"\n\tmac_key "+hmac+"\n}\n", `a.test {
	tls {
		issuer acme {
			profile `+profileOf(w, ca)+`
		}
	}
	respond hello
}
`)
			c.has(w, ca, "a.test", nil)
		})
	})
}
