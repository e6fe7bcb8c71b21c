package e2e_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// safe is the place where a root's key is. Nothing gets there, and nothing
// comes from there, but what carry carries.
type safe struct {
	w      *harness.World
	s      *site
	dir    string
	secret []string // options that open the root's key
}

// carry copies a file; both are named by their full paths.
func (f *safe) carry(from, to string) {
	f.w.Helper()
	f.w.Run("cp", from, to)
}

// run runs a chanceryd command in the safe with the root's key.
func (f *safe) run(args ...string) *harness.Cmd {
	return f.w.Cmd(f.w.Tool("chanceryd"), append(args, f.secret...)...)
}

// The offline ceremony with a root in a file, and an issuing key in a token.
func TestCeremonyFileRoot(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no ceremonies")
		s := newSite(w)
		f := &safe{w: w, s: s, dir: w.Mkdir("safe")}
		password := w.Write("safe/password", "in a safe\n")
		ownersOnly(w, password)
		key := "file:" + f.dir + "/root.key"
		w.Run(w.Tool("chanceryd"), "ca", "create", "--self-signed", "--name", "Offline Root", "--key", key, "--password-file", password,
			"--generate", "--type", "P-384", "--out", f.dir+"/root.pem")
		if !strings.Contains(w.Read(f.dir+"/root.key"), "ENCRYPTED PRIVATE KEY") {
			w.Error("the root's key lies there in clear")
		}
		f.secret = []string{"--parent", f.dir + "/root.pem", "--parent-key", key, "--parent-password-file", password}
		h := newHSM(w)
		token := h.token("one")
		w.Run(w.Tool("chanceryd"), "key", "generate", "--pin-file", token.PINFile, h.uri("one"))
		f.ceremony(h.uri("one"), "pin-file", token.PINFile)
	})
}

// The same with a root in a token, and an issuing key in an encrypted file.
func TestCeremonyTokenRoot(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no ceremonies")
		s := newSite(w)
		f := &safe{w: w, s: s, dir: w.Mkdir("safe")}
		token := newHSM(w).token("root")
		w.Run(w.Tool("chanceryd"), "ca", "create", "--self-signed", "--name", "Offline Root", "--key", token.URI("root"), "--generate", "--type", "P-384",
			"--out", f.dir+"/root.pem")
		f.secret = []string{"--parent", f.dir + "/root.pem", "--parent-key", token.URI("root")}
		password := w.Write("ca/ca/password", "of the issuing key\n")
		ownersOnly(w, password)
		key := "file:" + s.dir + "/ca/issuing.key"
		w.Run(w.Tool("chanceryd"), "key", "generate", "--password-file", password, key)
		f.ceremony(key, "password-file", password)
	})
}

// ceremony has the root certify an issuing key by a request that is carried
// over, and serves with it and the root's own list.
func (f *safe) ceremony(uri, option, secret string) {
	w, s := f.w, f.s
	w.Helper()
	csr, issuing := s.dir+"/ca/issuing.csr", s.dir+"/ca/issuing.pem"
	said := w.Run(w.Tool("chanceryd"), "ca", "request", "--key", uri, "--"+option, secret, "--name", "Ceremony Server CA", "--organization", "E2E", "--out", csr)
	var shown []struct{ Fingerprint string }
	out := w.Run(w.Tool("chanceryd"), "key", "show", "--json", "--"+option, secret, uri)
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown) != 1 || !strings.Contains(said, shown[0].Fingerprint) {
		w.Fatalf("the request's fingerprint isn't the key's: %v\n%s%s", err, said, out)
	}
	if ok := w.Run("openssl", "req", "-in", csr, "-noout", "-verify", "-subject"); !strings.Contains(ok, "verify OK") || !strings.Contains(ok, "Ceremony Server CA") {
		w.Errorf("openssl req says\n%s", ok)
	}

	f.carry(csr, f.dir+"/issuing.csr")
	sign := []string{"ca", "sign", f.dir + "/issuing.csr", "--usage", "server", "--lifetime", "400d", "--crl-url", "http://crl.ca.test:8080",
		"--aia-url", "http://ca.ca.test:8080", "--out", f.dir + "/issuing.pem"}
	if said := f.run(sign...).Fails(); !strings.Contains(said, "--yes") || !strings.Contains(said, shown[0].Fingerprint) {
		w.Errorf("without --yes and a terminal, ca sign says\n%s", said)
	}
	w.Write("safe/other.csr", changed(w, w.Read(f.dir+"/issuing.csr")))
	if said := f.run("ca", "sign", f.dir+"/other.csr", "--yes", "--out", f.dir+"/issuing.pem").Fails(); !strings.Contains(said, "signature") {
		w.Errorf("a request that was changed: ca sign says\n%s", said)
	}
	if said := f.run(append(sign, "--yes")...).OK(); !strings.Contains(said, shown[0].Fingerprint) || !strings.Contains(said, "Ceremony Server CA") {
		w.Errorf("ca sign says\n%s", said)
	}
	f.run("ca", "crl", "--number", "1", "--out", f.dir+"/root.crl").OK()

	f.carry(f.dir+"/issuing.pem", issuing)
	f.carry(f.dir+"/root.pem", s.dir+"/root/offline.pem")
	f.carry(f.dir+"/root.crl", s.dir+"/root.crl")
	s.root = s.dir + "/root/offline.pem"
	w.Run("openssl", "verify", "-x509_strict", "-CAfile", s.root, issuing)
	r := s.replica(0, s.dir, fileSigner, fmt.Sprintf("      - key: %q\n        %s: %q\n        certificate: \"ca/issuing.pem\"\n", uri, strings.ReplaceAll(option, "-", "_"), secret),
		`chain: "root/root.pem"`, `chain: "root/offline.pem"`, "  listen: \"127.0.0.1:8080\"\n", "  listen: \"127.0.0.1:8080\"\n  crls: [\"root.crl\"]\n")
	w.Run(w.Tool("chanceryd"), "check", r.conf)
	r.start()
	i := s.obtain(r.account(), "a.test")
	published(w, i, 4)
	f.above(i)
	f.listed(r, i)
}

// changed is a PEM file with one bit of the signature turned.
func changed(w *harness.World, text string) string {
	w.Helper()
	b, _ := pem.Decode([]byte(text))
	if b == nil {
		w.Fatalf("not PEM: %s", text)
	}
	b.Bytes[len(b.Bytes)-1] ^= 1
	return string(pem.EncodeToMemory(b))
}

// above checks where the issuing certificate says that the root's list and
// certificate are.
func (f *safe) above(i *issued) {
	w := f.w
	w.Helper()
	root := w.Chain(w.Read(f.dir + "/root.pem"))[0]
	for want, got := range map[string][]string{
		fmt.Sprintf("http://crl.ca.test:8080/crl/%x.crl", root.SubjectKeyId): i.issuer.CRLDistributionPoints,
		fmt.Sprintf("http://ca.ca.test:8080/ca/%x.cer", root.SubjectKeyId):   i.issuer.IssuingCertificateURL,
	} {
		if len(got) != 1 || got[0] != want {
			w.Errorf("the issuing certificate points to %q, want %s", got, want)
		}
	}
	if der := fetched(w, i.issuer.IssuingCertificateURL[0]); string(der) != string(root.Raw) {
		w.Error("what is served isn't the root")
	}
}

// fetched is what the publish listener has at a URL.
func fetched(w *harness.World, url string) []byte {
	w.Helper()
	res, err := relying(w).Get(url)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s, %v", url, res.Status, err)
	}
	return body
}

// listed has the root withdraw the issuing certificate: OpenSSL believes
// the chain before and not after.
func (f *safe) listed(r *replica, i *issued) {
	w, s := f.w, f.s
	w.Helper()
	number := func() int64 {
		root := w.Chain(w.Read(f.dir + "/root.pem"))[0]
		l, err := x509.ParseRevocationList(fetched(w, i.issuer.CRLDistributionPoints[0]))
		if err != nil || l.CheckSignatureFrom(root) != nil {
			w.Fatalf("the root's list: %v", err)
		}
		return l.Number.Int64()
	}
	own := s.pemList(w, fetchList(w, relying(w), i, 0).Raw, i)
	believed := func(revoked bool) {
		w.Helper()
		list := w.Write("root-list.der", string(fetched(w, i.issuer.CRLDistributionPoints[0])))
		w.Run("openssl", "crl", "-inform", "DER", "-in", list, "-out", w.Path("root-list.pem"))
		s.verdict(w, []string{"verify", "-crl_check_all", "-CRLfile", w.Path("root-list.pem"), "-CRLfile", own, "-CAfile", s.root, "-untrusted", i.issuerFile, i.file}, revoked)
	}
	believed(false)
	if n := number(); n != 1 {
		w.Errorf("the list's number is %d", n)
	}
	// The list is renewed, with a number of its own, and without a server
	// that looks at it.
	f.run("ca", "crl", "--validity", "30d", "--out", f.dir+"/root.crl").OK()
	f.run("ca", "crl", "--revoke", f.dir+"/issuing.pem=cessationOfOperation", "--out", f.dir+"/root.crl").OK()
	said := w.Run("openssl", "crl", "-inform", crlForm(w, f.dir+"/root.crl"), "-in", f.dir+"/root.crl", "-CAfile", f.dir+"/root.pem", "-verify", "-noout", "-text")
	for _, want := range []string{"verify OK", "Cessation Of Operation", fmt.Sprintf("Serial Number: %X", i.issuer.SerialNumber.Bytes())} {
		if !strings.Contains(said, want) {
			w.Errorf("openssl crl doesn't show %q:\n%s", want, said)
		}
	}
	believed(false) // it hasn't been carried over
	f.carry(f.dir+"/root.crl", s.dir+"/root.crl")
	r.reload()
	if n := number(); n != 3 {
		w.Errorf("the third list's number is %d", n)
	}
	believed(true)
}

// crlForm is how a list is written.
func crlForm(w *harness.World, file string) string {
	w.Helper()
	if strings.HasPrefix(w.Read(file), "-----BEGIN") {
		return "PEM"
	}
	return "DER"
}

// ownIssuer gives the server's own certificate, and nothing else, an issuer of
// its own, and has the others live for a time.
func (s *site) ownIssuer(lifetime string) []string {
	s.w.Helper()
	s.w.Run(s.w.Tool("chanceryd"), append([]string{"ca", "create", "--key", "file:" + s.dir + "/ca/own.key", "--generate", "--name", "E2E Own CA",
		"--usage", "server", "--out", s.dir + "/ca/own.pem"}, s.byRoot()...)...)
	return []string{
		`profile: "server"`, `profile: "own"`,
		"  clients:\n    signers:\n", "  own:\n    signers:\n      - {key: \"file:ca/own.key\", certificate: \"ca/own.pem\"}\n    chain: \"root/root.pem\"\n  clients:\n    signers:\n",
		"profiles:\n", "profiles:\n  own:\n    issuer: own\n    usages: [server]\n",
		"    lifetime: 24h\n", "    lifetime: " + lifetime + "\n    backdate: 1s\n",
	}
}

// chainAt fetches a certificate again, with the chain that it has now, and has
// OpenSSL verify it.
func (s *site) chainAt(w *harness.World, c *acme.Client, url, root string) acme.Chain {
	w.Helper()
	chain, err := c.Certificate(w.Context(), url)
	if err != nil {
		w.Fatal(err)
	}
	s.verifies(w, chain, root)
	return chain
}

// verifies has OpenSSL verify a chain to a root.
func (s *site) verifies(w *harness.World, chain acme.Chain, root string) {
	w.Helper()
	file := w.Write("chain.pem", string(chain.PEM))
	w.Run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", root, "-untrusted", file, file)
}

// chain gets a certificate over ACME, with where it is.
func (s *site) chain(w *harness.World, c *acme.Client, name string) (acme.Chain, *issued) {
	w.Helper()
	chain, err := c.Obtain(w.Context(), acme.ObtainRequest{Order: acme.OrderRequest{Identifiers: acme.Identifiers(name)}, Key: w.NewKey(), Solvers: []acme.Solver{answering{s.responder()}}})
	if err != nil {
		w.Fatal(err)
	}
	certs := w.Chain(string(chain.PEM))
	i := &issued{leaf: certs[0], issuer: certs[1]}
	i.file = w.SavePEM(i.serial()+".pem", certs[0].Raw)
	i.issuerFile = w.SavePEM(i.serial()+"-issuer.pem", certs[1].Raw)
	return chain, i
}

// The next issuing certificate signs beside the old one while the server runs:
// what the old one signed can be fetched, asked about and withdrawn to its end,
// and then nobody uses it.
func TestRotate(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it rotates nothing")
		s := newSite(w)
		const lifetime = 20 * time.Second
		r := s.start1(s.ownIssuer("20s")...)
		c, h := r.account(), relying(w)
		const before, after = "E2E Server CA", "E2E Server CA 2"
		oldChain, old := s.chain(w, c, "a.test")
		withdrawn := s.obtain(c, "b.test")
		published(w, old, 4)
		number := fetchList(w, h, old, 0).Number

		token := newHSM(w).token("one")
		said := w.Run(w.Tool("chanceryd"), append([]string{"ca", "rotate", "servers", "--config", r.conf, "--key", token.URI("servers"), "--generate", "--out", s.dir + "/ca/servers-2.pem"}, s.byRoot()...)...)
		_, lines, _ := strings.Cut(said, "add under issuers.servers.signers:\n")
		lines, _, ok := strings.Cut(lines, "2. ")
		if !ok || !strings.Contains(said, "        retired: true") {
			w.Fatalf("ca rotate says\n%s", said)
		}
		r.reload(fileSigner, fileSigner+"        retired: true\n"+lines)
		w.Run(w.Tool("chanceryd"), "check", r.conf)

		next, i := s.chain(w, c, "a.test")
		if i.issuer.Subject.CommonName != after {
			w.Errorf("signed by %s", i.issuer.Subject)
		}
		s.verifies(w, next, s.root)
		if again := s.chainAt(w, c, oldChain.URL, s.root); string(again.PEM) != string(oldChain.PEM) {
			w.Error("an old certificate has another chain now")
		}
		list := r.list()
		if l := list[before]; l.State != "retired" || l.Server == nil || l.Server.Live != 2 || l.Server.LastEnd.Sub(withdrawn.leaf.NotAfter).Abs() > 5*time.Second {
			w.Errorf("ca list says of the old one %+v %+v", l, l.Server)
		}
		if l := list[after]; l.State != "ready" || l.Server == nil || l.Server.Live != 1 || l.DaysLeft < 1800 {
			w.Errorf("ca list says of the new one %+v %+v", l, l.Server)
		}
		if o := r.ask(h, old); o.Status != ocsp.Good {
			w.Errorf("OCSP status %d", o.Status)
		}
		if o := r.ask(h, i); o.Status != ocsp.Good {
			w.Errorf("OCSP status %d", o.Status)
		}
		published(w, i, 4)
		s.checked(w, h, i, false)
		s.revoke(c, withdrawn, acme.ReasonSuperseded)
		if o := r.ask(h, withdrawn); o.Status != ocsp.Revoked {
			w.Errorf("OCSP status %d", o.Status)
		}
		w.Until("the old key's list shows it", func() bool { return onList(w, h, withdrawn, 0) && onList(w, h, withdrawn, shardOf(w, withdrawn)) })
		rises(w, number, fetchList(w, h, old, 0))
		s.checked(w, h, withdrawn, true)
		s.checked(w, h, old, false)

		time.Sleep(time.Until(withdrawn.leaf.NotAfter.Add(2 * time.Second)))
		if l := r.list()[before]; l.Server == nil || l.Server.Live != 0 {
			w.Errorf("all it signed has ended, and ca list says %+v %+v", l, l.Server)
		}
		r.reload(fileSigner+"        retired: true\n", "")
		if l, ok := r.list()[before]; ok {
			w.Errorf("ca list still has %+v", l)
		}
		s.obtain(c, "a.test")
		if leaf := old.leaf; leaf.NotAfter.Sub(leaf.NotBefore) > lifetime {
			w.Errorf("a certificate lives from %v to %v", leaf.NotBefore, leaf.NotAfter)
		}
	})
}

// A new root beside the old one: those who trust either verify what is signed
// from now on, by the default chain or by the alternate one.
func TestRotateRoot(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it rotates nothing")
		s := newSite(w)
		r := s.start1()
		c := r.account()
		ca := &harness.CA{Directory: "https://ca.test:14000/acme/servers/directory", Root: s.root, TLSRoot: s.root}
		var oldChain acme.Chain
		var old *issued
		w.Sub("before", func(w *harness.World) {
			s.responder = sync.OnceValue(w.Responder) // which frees its ports for lego at the end of this
			oldChain, old = s.chain(s.w, c, "a.test")
		})
		key := "file:" + w.Mkdir("safe") + "/root-2.key"
		said := w.Run(w.Tool("chanceryd"), append([]string{"ca", "rotate", "--root", "--config", r.conf, "--key", key, "--password-file", s.passphrase,
			"--generate", "--out", s.dir + "/root/root-2.pem"}, s.byRoot()...)...)
		edits := []string{}
		for _, issuer := range []string{"servers", "clients"} { // as in the file
			_, lines, _ := strings.Cut(said, "   issuers."+issuer+":\n")
			lines, _, _ = strings.Cut(lines, "   issuers.")
			lines, _, _ = strings.Cut(lines, "2. ")
			certificate, chains, ok := strings.Cut(lines, "\n")
			if !ok || !strings.Contains(certificate, `certificate: "ca/`+issuer+`-root-2.pem"`) || !strings.Contains(chains, "alternate_chains:") {
				w.Fatalf("ca rotate --root says\n%s", said)
			}
			edits = append(edits, "        certificate: \"ca/"+issuer+".pem\"\n", certificate+"\n", "    chain: \"root/root.pem\"\n", chains)
		}
		root2 := w.Write("root-2.pem", w.Read(s.dir+"/root/root-2.pem"))
		r.reload(edits...)
		w.Run(w.Tool("chanceryd"), "check", r.conf)

		w.Sub("lego prefers one", func(w *harness.World) {
			l := lego{w, ca, w.Mkdir("lego")}
			for root, name := range map[string]string{s.root: "E2E Root CA", root2: "E2E Root CA 2"} {
				l.cmd("-d", "b.test", "--http", "run", "--preferred-chain", name).OK()
				certs := w.Chain(w.Read(l.file("b.test.crt")))
				if last := certs[len(certs)-1]; last.Issuer.CommonName != name {
					w.Errorf("lego, asked for %s, got a chain below %s", name, last.Issuer)
				}
				w.Run("openssl", "verify", "-x509_strict", "-CAfile", root, "-untrusted", l.file("b.test.crt"), l.file("b.test.crt"))
			}
		})
		s.responder = sync.OnceValue(w.Responder)
		w.Sub("either root", func(w *harness.World) {
			chain, i := s.chain(w, c, "a.test")
			if n := len(w.Chain(string(chain.PEM))); n != 3 || len(chain.Alternates) != 1 {
				w.Fatalf("a chain of %d, alternates %q", n, chain.Alternates)
			}
			s.verifies(w, chain, s.root)
			other := s.chainAt(w, c, chain.Alternates[0], root2)
			if certs := w.Chain(string(other.PEM)); len(certs) != 2 || !certs[0].Equal(i.leaf) {
				w.Errorf("the alternate chain has %d certificates", len(certs))
			}
			s.verifies(w, chain, root2) // the default one serves both
		})
		w.Sub("what was there before", func(w *harness.World) {
			h := relying(w)
			s.chainAt(w, c, oldChain.URL, s.root)
			if o := r.ask(h, old); o.Status != ocsp.Good {
				w.Errorf("OCSP status %d", o.Status)
			}
			published(w, old, 4)
			s.checked(w, h, old, false)
			if certificate, err := s.dial(r); err != nil {
				w.Errorf("the server's own certificate %v: %v", certificate, err)
			}
			if l := r.list()["E2E Server CA"]; l.State != "ready" || l.Server == nil || l.Server.Live < 2 {
				w.Errorf("ca list says %+v %+v", l, l.Server)
			}
		})
		w.Sub("the new root alone", func(w *harness.World) {
			const both, alone = "    chain: \"root/root-2-cross.pem\"", "    chain: \"root/root-2.pem\""
			text := strings.ReplaceAll(w.Read(r.conf), both, alone)
			text = strings.ReplaceAll(text, "    alternate_chains: [\"root/root-2.pem\"]", "    #")
			r.write(text)
			r.reload()
			chain, _ := s.chain(w, c, "a.test")
			if len(w.Chain(string(chain.PEM))) != 2 || len(chain.Alternates) != 0 {
				w.Errorf("alternates %q of\n%s", chain.Alternates, chain.PEM)
			}
			s.verifies(w, chain, root2)
		})
	})
}

// An issuing certificate that nears its end is announced, and what it signs
// never outlives it.
func TestIssuerEnds(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("its issuers are not ours")
		s := newSite(w)
		r := s.start1(fileSigner, s.caCreate("soon", "file:"+s.dir+"/ca/soon.key", "", "--generate", "--lifetime", "65m"))
		wantSaid(w, r.Output(), "level=WARN", "nears its end", "E2E Server CA soon", "chanceryd ca rotate")
		l := r.list()["E2E Server CA soon"]
		if l.Ending == "" || !strings.Contains(l.Ending, "chanceryd ca rotate servers") || l.DaysLeft != 0 {
			w.Errorf("ca list says %+v", l)
		}
		i := s.obtain(r.account(), "a.test")
		if !i.leaf.NotAfter.Equal(i.issuer.NotAfter) {
			w.Errorf("it ends at %v, its issuer at %v", i.leaf.NotAfter, i.issuer.NotAfter)
		}
		metrics := string(fetched(w, "http://"+r.metrics+"/metrics"))
		_, value, _ := strings.Cut(metrics, `chancery_issuer_not_after_seconds{issuer="`+l.KeyID+`",subject="CN=E2E Server CA soon"} `)
		value, _, _ = strings.Cut(value, "\n")
		if end, err := strconv.ParseFloat(value, 64); err != nil || int64(end) != i.issuer.NotAfter.Unix() {
			w.Errorf("the metric says %s, the certificate %v", value, i.issuer.NotAfter)
		}
	})
}
