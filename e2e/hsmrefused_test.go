package e2e_test

import (
	"crypto"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/slowhsm"
)

// refusedAt has the server started and checked with a bad configuration. Both
// must say what is wrong, with the place of the line that begins with at, and
// end. It returns what the start said.
func (s *site) refusedAt(w *harness.World, at string, words []string, edits ...string) string {
	w.Helper()
	r := s.replica(0, s.dir, edits...)
	place := r.place(at)
	var out string
	for _, verb := range []string{"check", "serve"} {
		out = w.Cmd(w.Tool("chanceryd"), verb, r.conf).Fails()
		for _, word := range append([]string{place}, words...) {
			if !strings.Contains(out, word) {
				w.Errorf("chanceryd %s doesn't say %q:\n%s", verb, word, out)
			}
		}
	}
	return out
}

// What can't work is refused before anything starts, with file and line.
func TestHSMRefused(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w), newHSM(w)
		one := h.signers(s, "one")
		h.signers(s, "two")
		both := fmt.Sprintf("      - keys:\n          - %q\n          - %q\n        certificate: \"ca/one.pem\"\n        pin_file: %q\n", h.uri("one"), h.uri("two"), h.pins["one"])
		twins := h.twins(w)
		const only = "keyUsage=critical,cRLSign\nbasicConstraints=critical,CA:TRUE,pathlen:0\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
		noCertSign := append([]string{fileSigner, one}, h.otherCA(w, s, only)...)
		for _, c := range []struct {
			name, at string
			words    []string
			edits    []string
		}{
			{"two tokens match", "- key: \"pkcs11:token=twin", []string{"serial=" + twins[0], "serial=" + twins[1], "keys"},
				[]string{fileSigner, strings.ReplaceAll(one, "token=one", "token=twin")}},
			{"another key than the certificate's", "- key: \"pkcs11:token=one", []string{"another key", "E2E Server CA two"},
				[]string{fileSigner, strings.Replace(one, "one.pem", "two.pem", 1)}},
			{"no such key on the token", "- key: \"pkcs11:token=one", []string{"object=server?", "servers", `token "one"`},
				[]string{fileSigner, strings.Replace(one, "object=servers", "object=server", 1)}},
			{"no keyCertSign", "- key: \"pkcs11:token=one", []string{"keyCertSign"}, noCertSign},
			{"tokens of one signer with different keys", "- keys:", []string{"token=two", "another key", "E2E Server CA one"}, []string{fileSigner, both}},
			{"one key twice", "- key: \"pkcs11:object=servers;token=one?", []string{"signers[0]"},
				[]string{fileSigner, one + strings.Replace(one, "token=one;object=servers", "object=servers;token=one", 1)}},
			{"certificate missing", "certificate: \"ca/none.pem", []string{"none.pem"}, []string{fileSigner, strings.Replace(one, "one.pem", "none.pem", 1)}},
			{"a stranger's list", "crls:", []string{"Other Root"}, []string{fileSigner, one, "publish:\n", "publish:\n  crls: [\"other/root.crl\"]\n"}},
			{"OCSP, and revocation none", "ocsp_url:", []string{"revocation none"}, []string{fileSigner, one, "revocation: crl+ocsp #", "revocation: none #"}},
			{"OCSP without a place", "revocation: crl+ocsp #", []string{"ocsp_url"}, []string{fileSigner, one, "    ocsp_url: \"http://ocsp.ca.test:8080\"\n", ""}},
			{"CRLs without a place", "revocation: crl+ocsp #", []string{"crl_url"}, []string{fileSigner, one, "    crl_url: \"http://crl.ca.test:8080\"\n", ""}},
			{"CRLs over https", "crl_url:", []string{"use http:"}, []string{fileSigner, one, "http://crl.ca.test", "https://crl.ca.test"}},
			{"OCSP over https", "ocsp_url:", []string{"use http:"}, []string{fileSigner, one, "http://ocsp.ca.test", "https://ocsp.ca.test"}},
			{"issuers over https", "aia_url:", []string{"use http:"}, []string{fileSigner, one, "http://ca.ca.test", "https://ca.ca.test"}},
		} {
			w.Sub(c.name, func(w *harness.World) { s.refusedAt(w, c.at, c.words, c.edits...) })
		}
		w.Sub("PIN in the configuration", func(w *harness.World) {
			out := s.refusedAt(w, "- key: \"pkcs11:token=one", []string{"pin-value"}, fileSigner, strings.Replace(one, "?", "?pin-value=8472&", 1))
			if strings.Contains(out, "8472") {
				w.Errorf("the PIN is shown:\n%s", out)
			}
		})
		w.Sub("browsers force https", func(w *harness.World) {
			r := s.replica(0, s.dir, fileSigner, one, "http://ocsp.ca.test:8080", "http://ocsp.example.dev")
			if out := w.Run(w.Tool("chanceryd"), "check", r.conf); !strings.Contains(out, "warning") || !strings.Contains(out, ".dev") {
				w.Errorf("chanceryd check says\n%s", out)
			}
		})
	})
}

// twins makes two tokens of one label with one key, and returns their serials.
func (h *hsm) twins(w *harness.World) (serials [2]string) {
	w.Helper()
	a, b := h.token("twin"), h.token("twin")
	h.put(w, "servers", a, b)
	return [2]string{a.Serial, b.Serial}
}

// otherCA has OpenSSL certify the key on token one as its extensions say, under
// a root of OpenSSL's own, and returns the changes to the configuration. That
// root has a list, too.
func (h *hsm) otherCA(w *harness.World, s *site, extensions string) []string {
	w.Helper()
	dir := s.dir + "/other"
	w.Run("mkdir", dir)
	w.Run(w.Tool("chanceryd"), "ca", "request", "--key", h.uri("one"), "--pin-file", h.pins["one"], "--name", "Other CA", "--out", dir+"/ca.csr")
	w.Run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=Other Root",
		"-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", w.Path("other.key"), "-out", dir+"/root.pem")
	w.Run("openssl", "x509", "-req", "-in", dir+"/ca.csr", "-CA", dir+"/root.pem", "-CAkey", w.Path("other.key"), "-days", "20", "-set_serial", "0x1234567890abcdef12",
		"-extfile", w.Write("ca.ext", extensions), "-out", dir+"/ca.pem")
	w.Run("chmod", "600", w.Path("other.key"))
	w.Run(w.Tool("chanceryd"), "ca", "crl", "--number", "1", "--parent", dir+"/root.pem", "--parent-key", "file:"+w.Path("other.key"), "--out", dir+"/root.crl")
	return []string{"ca/one.pem", "other/ca.pem", `chain: "root/root.pem"`, `chain: "other/root.pem"`}
}

// A wrong PIN is offered once, and the last try is never taken, however often
// the server is started again.
func TestHSMWrongPIN(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w), newHSM(w)
		token := h.token("one")
		w.Run(w.Tool("chanceryd"), "key", "generate", token.URI("servers"))
		w.Run(w.Tool("chanceryd"), "key", "generate", token.URI("more"))
		pin := w.Write("pin", "1234\n")
		ownersOnly(w, pin)
		servers := h.uri("one")
		more := strings.Replace(servers, "object=servers", "object=more", 1)
		lines := s.caCreate("one", servers, pin) + s.caCreate("more", more, pin)
		wrong := func(text string) {
			if err := os.WriteFile(pin, []byte(text+"\n"), 0o600); err != nil {
				w.Fatal(err)
			}
		}
		once := func(what string, most int, f func()) {
			w.Helper()
			before := h.Logins("one")
			f()
			if n := h.Logins("one") - before; n != most {
				w.Errorf("%s: the PIN was offered %d times, want %d", what, n, most)
			}
		}
		w.Sub("at the start", func(w *harness.World) {
			wrong("9999")
			r := s.replica(0, s.dir, fileSigner, lines)
			for _, verb := range []string{"check", "serve"} {
				once(verb, 1, func() { // two keys on one token
					out := w.Cmd(w.Tool("chanceryd"), verb, r.conf).Fails()
					wantSaid(w, out, r.conf+":", "PIN", `token "one"`, token.Serial, "refused", "more than one try is left")
					if strings.Contains(out, "9999") {
						w.Errorf("the PIN is shown:\n%s", out)
					}
				})
			}
			once("key show", 1, func() { w.Cmd(w.Tool("chanceryd"), "key", "show", "--pin-file", pin, servers).Fails() })
			h.SetFlags("one", slowhsm.PINFinalTry)
			for range 3 {
				once("with one try left", 0, func() {
					wantSaid(w, w.Cmd(w.Tool("chanceryd"), "serve", r.conf).Fails(), r.conf+":", "PIN", `token "one"`, "isn't tried", "next wrong one locks it")
				})
			}
			h.SetFlags("one", slowhsm.PINLocked)
			once("locked", 0, func() {
				wantSaid(w, w.Cmd(w.Tool("chanceryd"), "serve", r.conf).Fails(), r.conf+":", "PIN", `token "one"`, "is locked")
			})
			h.SetFlags("one", 0)
		})
		w.Sub("of a token that comes back", func(w *harness.World) {
			wrong("1234")
			r := s.start1(fileSigner, lines)
			c := r.account()
			i := s.obtain(c, "a.test")
			wrong("9999")
			once("away", 1, func() {
				h.Unplug("one")
				// Nobody looks at a token that isn't used; one who asks does.
				if a, err := postOCSP(relying(w), r.ocspURL(), ocspRequest(w, i, crypto.SHA1)); err != nil || a.status() != ocsp.TryLater {
					w.Errorf("OCSP without a key: status %d, %v", a.status(), err)
				}
				r.outOfTurn("one", "one")
				h.Plug("one")
				r.Says("was refused")
				time.Sleep(3 * time.Second) // it would be tried again by now
			})
			once("the right one", 1, func() {
				wrong("1234")
				r.outOfTurn("", "one")
			})
			s.obtain(c, "a.test")
		})
	})
}
