package e2e_test

import (
	"crypto/x509"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// modMD is an Apache with mod_md for a.test.
type modMD struct {
	*harness.Proc
	restarts int
}

// apache starts Apache with mod_md and the given lines in its configuration.
func apache(w *harness.World, ca *harness.CA, names, lines string) *modMD {
	w.Helper()
	dir := w.Mkdir("apache")
	const modules = "/usr/lib/apache2/modules/"
	conf := w.Write("apache/httpd.conf", `ServerRoot "`+dir+`"
LoadModule mpm_event_module `+modules+`mod_mpm_event.so
LoadModule authz_core_module `+modules+`mod_authz_core.so
LoadModule socache_shmcb_module `+modules+`mod_socache_shmcb.so
LoadModule ssl_module `+modules+`mod_ssl.so
LoadModule md_module `+modules+`mod_md.so
User www-data
Group www-data
PidFile `+dir+`/pid
ErrorLog /dev/stderr
LogLevel warn md:info
ServerName localhost
Listen 127.0.0.1:80
Listen 127.0.0.1:443
Protocols http/1.1 acme-tls/1
MDCertificateAuthority `+ca.Directory+`
MDCACertificateFile `+ca.TLSRoot+`
MDCertificateAgreement accepted
MDContactEmail a@example.org
MDStoreDir `+dir+`/md
MDInitialDelay 0s
MDCheckInterval 1s
MDomain `+names+`
`+lines+`
<VirtualHost 127.0.0.1:80>
ServerName a.test
</VirtualHost>
<VirtualHost 127.0.0.1:443>
ServerName a.test
SSLEngine on
</VirtualHost>
`)
	p := w.Cmd("apache2", "-DFOREGROUND", "-f", conf).Start()
	p.Listens("127.0.0.1:443")
	return &modMD{Proc: p}
}

// activate waits until mod_md has fetched a certificate, and has it served: it
// needs a graceful restart for that.
func (m *modMD) activate(w *harness.World, ca *harness.CA, not *x509.Certificate) *x509.Certificate {
	w.Helper()
	// Every certificate fetched is one such line; the restart makes mod_md look
	// again at once, and fetch another where that one is due already.
	m.restarts++
	m.Until("mod_md has fetched a certificate", func() bool {
		return strings.Count(m.Output(), "will be activated on next (graceful) server restart") >= m.restarts
	})
	m.Signal(syscall.SIGUSR1)
	var cert *x509.Certificate
	m.Until("the new certificate is served", func() bool {
		c, err := tryServed(w, ca, "a.test")
		if err != nil || not != nil && c.SerialNumber.Cmp(not.SerialNumber) == 0 {
			return false
		}
		cert = c
		return true
	})
	return cert
}

func TestModMD(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		w.Sub("http-01, RSA, renew", func(w *harness.World) {
			// A window of the whole life means that renewal is due at once.
			m := apache(w, ca, "a.test", "MDCAChallenges http-01\nMDPrivateKeys RSA 2048\nMDRenewWindow 24h\n")
			first := m.activate(w, ca, nil)
			w.KeyIs(first, "RSA-2048")
			w.Verify(ca, []string{"a.test"}, w.Path("apache/md/domains/a.test/pubcert.pem"))
			w.Renewed(first, m.activate(w, ca, first))
		})
		w.Sub("tls-alpn-01, ECDSA", func(w *harness.World) {
			m := apache(w, ca, "a.test", "MDCAChallenges tls-alpn-01\nMDPrivateKeys secp384r1\n")
			w.KeyIs(m.activate(w, ca, nil), "P-384")
		})
		w.Sub("external account binding", func(w *harness.World) {
			kid, hmac := ca.EAB()
			apache(w, ca, "a.test", "MDCAChallenges http-01\nMDExternalAccountBinding "+kid+" "+hmac+"\n").activate(w, ca, nil)
		})
	})
}

func TestModMDDNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		hook := w.Write("hook", `#!/bin/sh
case $1 in
setup) exec `+b.Hook(w)+` add _acme-challenge.$2 $3 ;;
*) exec `+b.Hook(w)+` del _acme-challenge.$2 "$3" ;;
esac
`)
		// The hook runs as www-data.
		w.Run("chmod", "644", b.Key)
		apache(w, ca, "a.test *.a.test", "MDCAChallenges dns-01\nMDChallengeDns01 "+hook+"\n").activate(w, ca, nil)
		w.Verify(ca, []string{"a.test", "*.a.test"}, w.Path("apache/md/domains/a.test/pubcert.pem"))
	})
}
