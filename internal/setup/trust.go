package setup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Explain prints what to trust and how, per operating system and client, and
// what to do with the root's key.
func (m *Made) Explain(w io.Writer, in Init) {
	dir, url := filepath.Clean(in.Dir), "https://"+in.DNS+"/acme/servers/directory"
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("The CA %q is in %s.\n", in.Name, dir)
	for _, root := range m.Roots {
		p("  trust this           %s", root)
	}
	for _, key := range m.RootKeys {
		p("  take this offline    %s (encrypted)", key)
	}
	if m.Passphrase != "" {
		p("  its passphrase       %s   (shown this once: write it down)", m.Passphrase)
	}
	p("  configuration        %s", m.Config)
	p("  issues for           names below %s; see names.allow\n", m.Domain)
	if in.Kubernetes != "" {
		p("Bring it into the cluster: deploy/kubernetes/README.md, step 3.\n")
	} else {
		p("Start it:\n  chanceryd check %s && chanceryd serve %s\n", m.Config, m.Config)
	}
	p("Trust it:")
	p("  Debian, Ubuntu       cp %s /usr/local/share/ca-certificates/%s.crt && update-ca-certificates", m.Bundle, fileName(in.Name))
	p("  Fedora, RHEL         cp %s /etc/pki/ca-trust/source/anchors/ && update-ca-trust", m.Bundle)
	p("  Alpine               cp %s /usr/local/share/ca-certificates/%s.crt && update-ca-certificates", m.Bundle, fileName(in.Name))
	p("  macOS                security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain %s", m.Bundle)
	p("  Windows              certutil -addstore -f ROOT %s", filepath.Base(m.Bundle))
	p("  Firefox              Settings, Certificates, Authorities, Import (or the enterprise policy Certificates.Install)")
	p("  Go, Python, Ruby     SSL_CERT_FILE=%s   (nothing but this CA is trusted then: see the bundle below)", m.Bundle)
	p("  Node                 NODE_EXTRA_CA_CERTS=%s\n", m.Bundle)
	p("Get certificates from %s:", url)
	p("  certbot              REQUESTS_CA_BUNDLE=%s certbot certonly --standalone --server %s --agree-tos -m you@example.org -d NAME", m.Bundle, url)
	p("                       then in /etc/letsencrypt/renewal/NAME.conf: renew_before_expiry = 8 hours")
	p("                       and a timer every five minutes, since a day is short:")
	p("                       systemctl edit certbot.timer   [Timer] OnCalendar=  OnCalendar=*:0/5  RandomizedDelaySec=60")
	p("  lego                 LEGO_CA_CERTIFICATES=%s lego --server %s -a -m you@example.org -d NAME --http run   (renew --days 0 only when due: use ARI, lego 4.9 renews every time)", m.Bundle, url)
	p("  Caddy                NAME { tls { issuer acme { dir %s  trusted_roots %s } } }   (acme_ca alone isn't asked for .internal and .local names)", url, m.Bundle)
	p("  Traefik              certificatesResolvers.X.acme: caServer, caCertificates, certificatesDuration: 24")
	p("  mod_md               MDCertificateAuthority %s   MDCACertificateFile %s (a copy that www-data can read)   MDRenewWindow 33%%", url, m.Bundle)
	p("  cert-manager         Issuer spec.acme: server %s, caBundle: base64 of %s", url, m.Bundle)
	p("  acme.sh              --server %s --ca-bundle %s --days 1", url, m.Bundle)
	if in.SSH {
		m.explainPeople(p, "https://"+in.DNS+"/acme/people/directory", url)
	}
	p("\nOne trust store for this CA and for a public DNS API (certbot's DNS plugins)? Use one bundle of both:")
	p("  chanceryd trust-bundle %s > bundle.pem   (this CA's roots and the system's public ones)", m.Bundle)
}

// explainPeople says how people and SSH hosts begin.
func (m *Made) explainPeople(p func(string, ...any), people, servers string) {
	p("\nPeople and SSH, once it serves (docs/PEOPLE.md, docs/SSH-HOSTS.md):")
	p("  enroll a YubiKey     chancery devices enroll --owner alice --name alice.people.%s --principal alice --directory %s --roots %s", m.Domain, people, m.Bundle)
	p("  its owner, each day  chancery login")
	p("  an SSH server        chancery ssh host --directory %s --roots %s --name NAME --http :80", servers, m.Bundle)
	p("  who trusts it        chancery ssh trust known-hosts '*.%s' --directory %s --roots %s >> ~/.ssh/known_hosts", m.Domain, servers, m.Bundle)
}

// fileName makes a CA's name fit for a file.
func fileName(name string) string {
	b := []byte(name)
	for i, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			b[i] = '-'
		}
	}
	return string(b)
}

// systemRoots are where systems keep the public roots.
var systemRoots = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora
	"/etc/ssl/cert.pem",                                 // macOS, BSD
}

// TrustBundle writes our roots and the system's public ones, for programs
// that have one trust store for the CA and for a DNS API.
func TrustBundle(w io.Writer, roots string) error {
	ours, err := os.ReadFile(roots)
	if err != nil {
		return err
	}
	for _, path := range systemRoots {
		public, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, err = fmt.Fprintf(w, "%s\n%s", ours, public)
		return err
	}
	return errors.New("no public roots found on this machine: install ca-certificates")
}
