package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// Where the web servers listen: validation has 80 and 443.
const (
	nginxAddr  = "127.0.0.1:8443"
	apacheAddr = "127.0.0.1:9443"
)

// nginx starts nginx for a.test, which asks the certificate's OCSP responder
// by GET, verifies the answer and staples it.
func nginx(w *harness.World, s *site, i *issued) *harness.Proc {
	w.Helper()
	dir := w.Mkdir("nginx")
	conf := w.Write("nginx/nginx.conf", `daemon off;
user www-data;
worker_processes 1;
pid `+dir+`/pid;
error_log stderr info;
events { }
http {
	access_log off;
	client_body_temp_path `+dir+`/body;
	proxy_temp_path `+dir+`/proxy;
	fastcgi_temp_path `+dir+`/fastcgi;
	uwsgi_temp_path `+dir+`/uwsgi;
	scgi_temp_path `+dir+`/scgi;
	resolver 127.0.0.1 ipv6=off;
	server {
		listen `+nginxAddr+` ssl;
		server_name a.test;
		ssl_certificate `+i.chainFile+`;
		ssl_certificate_key `+i.keyFile+`;
		ssl_stapling on;
		ssl_stapling_verify on;
		ssl_trusted_certificate `+s.root+`;
		return 204;
	}
}
`)
	return w.Cmd("nginx", "-e", "stderr", "-c", conf).Start().Listens(nginxAddr)
}

// staplingApache starts Apache for a.test, which asks by POST. An answer is
// kept for a second.
func staplingApache(w *harness.World, i *issued) *harness.Proc {
	w.Helper()
	dir := w.Mkdir("apache")
	const modules = "/usr/lib/apache2/modules/"
	conf := w.Write("apache/httpd.conf", `ServerRoot "`+dir+`"
LoadModule mpm_event_module `+modules+`mod_mpm_event.so
LoadModule authz_core_module `+modules+`mod_authz_core.so
LoadModule socache_shmcb_module `+modules+`mod_socache_shmcb.so
LoadModule ssl_module `+modules+`mod_ssl.so
User www-data
Group www-data
PidFile `+dir+`/pid
Mutex file:`+dir+` default
ErrorLog /dev/stderr
LogLevel warn
ServerName localhost
Listen `+apacheAddr+`
SSLUseStapling on
SSLStaplingCache shmcb:`+dir+`/staples(128000)
SSLStaplingStandardCacheTimeout 1
SSLStaplingErrorCacheTimeout 1
<VirtualHost `+apacheAddr+`>
ServerName a.test
SSLEngine on
SSLCertificateFile `+i.chainFile+`
SSLCertificateKeyFile `+i.keyFile+`
</VirtualHost>
`)
	return w.Cmd("apache2", "-DFOREGROUND", "-f", conf).Start().Listens(apacheAddr)
}

// stapled is what OpenSSL sees stapled to a handshake: "good", "revoked", or
// "" for nothing. It verifies the chain; the answer is verified below.
func stapled(w *harness.World, s *site, addr string) string {
	w.Helper()
	out := w.Cmd("openssl", "s_client", "-connect", addr, "-servername", "a.test", "-CAfile", s.root, "-verify_return_error", "-status").OK()
	_, status, ok := strings.Cut(out, "Cert Status: ")
	switch {
	case ok && strings.Contains(out, "OCSP Response Status: successful"):
		return strings.TrimSpace(status[:strings.IndexByte(status, '\n')])
	case strings.Contains(out, "OCSP response: no response sent"):
		return ""
	}
	w.Fatalf("openssl s_client -status prints\n%s", out)
	return ""
}

// Web servers staple our answers, as they do everybody's: nginx, which gets
// them by GET and verifies them itself, and Apache, by POST.
func TestStapling(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		s := newSite(w)
		r := s.start1()
		c := r.account()
		i := s.obtain(c, "a.test")
		// What the servers have besides is in a folder of root's.
		w.Run("chmod", "-R", "a+rX", w.Path("issued"))
		n := nginx(w, s, i)
		a := staplingApache(w, i)
		w.Sub("good", func(w *harness.World) {
			// nginx asks once the first client wants to know.
			n.Until("nginx staples", func() bool { return stapled(w, s, nginxAddr) == "good" })
			if got := stapled(w, s, apacheAddr); got != "good" {
				w.Errorf("Apache staples %q", got)
			}
			if n := r.signatures(); n != 1 {
				w.Errorf("%d signatures for one certificate on two servers", n)
			}
		})
		s.revoke(c, i, acme.ReasonSuperseded)
		w.Sub("Apache, revoked", func(w *harness.World) {
			start := time.Now()
			a.Until("Apache staples the revocation", func() bool { return stapled(w, s, apacheAddr) == "revoked" })
			w.Logf("Apache staples the revocation after %v", time.Since(start))
		})
		w.Sub("nginx, revoked", func(w *harness.World) {
			// It asks again after an hour, or at a reload; it staples nothing
			// that isn't good, and says so.
			if got := stapled(w, s, nginxAddr); got != "good" {
				w.Errorf("nginx staples %q out of its cache", got)
			}
			n.Signal(syscall.SIGHUP)
			n.Until("nginx has heard of the revocation", func() bool {
				return stapled(w, s, nginxAddr) == "" && strings.Contains(n.Output(), `certificate status "revoked" in the OCSP response`)
			})
		})
		for _, log := range []string{n.Output(), a.Output()} {
			if strings.Contains(log, "OCSP_basic_verify") || strings.Contains(log, "nextUpdate") || strings.Contains(log, "tryLater") {
				w.Errorf("a server complains:\n%s", log)
			}
		}
		saidBy(w, opensslOCSP(w, s, i, i.leaf.OCSPServer[0]), i, "revoked")
	})
}

// mod_md gets the certificate and the answers, and staples these by itself.
func TestStaplingModMD(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		// Of the shortest answers, and asked for anew a second later.
		s := newSite(w, "    crl:\n", "    ocsp:\n      validity: 1m\n    crl:\n")
		r := s.start1()
		ca := &harness.CA{Directory: "https://ca.test:14000/acme/servers/directory", Root: s.root, TLSRoot: s.root}
		m := apache(w, ca, "a.test", "MDCAChallenges http-01\nMDStapling on\nMDStaplingRenewWindow 59s\n")
		leaf := m.activate(w, ca, nil)
		m.Until("mod_md staples", func() bool { return stapled(w, s, "127.0.0.1:443") == "good" })
		r.admin("certs", "revoke", fmt.Sprintf("%x", leaf.SerialNumber))
		start := time.Now()
		m.Until("mod_md staples the revocation", func() bool { return stapled(w, s, "127.0.0.1:443") == "revoked" })
		w.Logf("mod_md staples the revocation after %v", time.Since(start))
	})
}
