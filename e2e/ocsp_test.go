package e2e_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// ocspAnswer is what a responder answered.
type ocspAnswer struct {
	code   int // of HTTP
	header http.Header
	body   []byte
}

// status is OCSP's own (RFC 6960, 4.2.1); -1 where the body is none of its.
func (a ocspAnswer) status() ocsp.ResponseStatus {
	if a.code != http.StatusOK || a.header.Get("Content-Type") != "application/ocsp-response" {
		return -1
	}
	_, err := ocsp.ParseResponse(a.body, nil)
	refused, ok := errors.AsType[ocsp.ResponseError](err)
	switch {
	case err == nil:
		return ocsp.Success
	case ok:
		return refused.Status
	}
	return -1
}

// ocspRequest is Go's request for a certificate.
func ocspRequest(w *harness.World, i *issued, hash crypto.Hash) []byte {
	w.Helper()
	der, err := ocsp.CreateRequest(i.leaf, i.issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		w.Fatal(err)
	}
	return der
}

// postOCSP asks by POST (RFC 6960, appendix A.1).
func postOCSP(h *http.Client, url string, der []byte) (ocspAnswer, error) {
	res, err := h.Post(url, "application/ocsp-request", bytes.NewReader(der))
	return readOCSP(res, err)
}

// getOCSP asks by GET, with the request in the path.
func getOCSP(h *http.Client, base string, der []byte) (ocspAnswer, error) {
	res, err := h.Get(base + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(der)))
	return readOCSP(res, err)
}

func readOCSP(res *http.Response, err error) (ocspAnswer, error) {
	if err != nil {
		return ocspAnswer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return ocspAnswer{res.StatusCode, res.Header, body}, err
}

// ocspURL is the responder's at a replica's own address.
func (r *replica) ocspURL() string { return "http://" + r.publish + "/ocsp" }

// ask asks a replica about a certificate, by POST and SHA-1 as most clients
// do. An answer that isn't signed ends the test.
func (r *replica) ask(h *http.Client, i *issued) *ocsp.Response {
	r.w.Helper()
	a, err := postOCSP(h, r.ocspURL(), ocspRequest(r.w, i, crypto.SHA1))
	if err != nil {
		r.w.Fatal(err)
	}
	return verified(r.w, a, i)
}

// verified is an answer's content, verified by Go.
func verified(w *harness.World, a ocspAnswer, i *issued) *ocsp.Response {
	w.Helper()
	if a.status() != ocsp.Success {
		w.Fatalf("answered %d, OCSP status %d: %x", a.code, a.status(), a.body)
	}
	o, err := ocsp.ParseResponseForCert(a.body, i.leaf, i.issuer)
	if err != nil {
		w.Fatal(err)
	}
	now := time.Now()
	if now.Before(o.ThisUpdate) || !now.Before(o.NextUpdate) {
		w.Errorf("an answer from %v to %v was given at %v", o.ThisUpdate, o.NextUpdate, now)
	}
	return o
}

// openssl has OpenSSL ask and verify, and returns what it printed.
func opensslOCSP(w *harness.World, s *site, i *issued, url string, options ...string) string {
	w.Helper()
	args := append([]string{"ocsp", "-CAfile", s.root, "-url", url, "-issuer", i.issuerFile}, options...)
	return w.Run("openssl", append(args, "-cert", i.file)...)
}

// saidBy checks what OpenSSL printed about a certificate.
func saidBy(w *harness.World, out string, i *issued, status string) {
	w.Helper()
	if !strings.Contains(out, i.file+": "+status) || !strings.Contains(out, "Response verify OK") {
		w.Errorf("openssl ocsp says, where it should say %s:\n%s", status, out)
	}
}

// OpenSSL and Go as relying parties, from a certificate's issuance to its
// revocation, by its owner and by an operator.
func TestOCSP(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		s := newSite(w)
		r := s.start1()
		c := r.account()
		h := relying(w)
		a, b := s.obtain(c, "a.test"), s.obtain(c, "b.test")
		w.Sub("the certificate says where", func(w *harness.World) {
			if got := a.leaf.OCSPServer; len(got) != 1 || got[0] != "http://ocsp.ca.test:8080/ocsp" {
				w.Errorf("the OCSP responder is at %q", got)
			}
			if got := a.leaf.IssuingCertificateURL; len(got) != 1 || got[0] != fmt.Sprintf("http://ca.ca.test:8080/ca/%x.cer", a.issuer.SubjectKeyId) {
				w.Fatalf("the issuer's certificate is at %q", got)
			}
			res, err := h.Get(a.leaf.IssuingCertificateURL[0])
			got, err := readOCSP(res, err)
			if err != nil || !bytes.Equal(got.body, a.issuer.Raw) || got.header.Get("Content-Type") != "application/pkix-cert" {
				w.Errorf("what is there isn't it: %d %v %v", got.code, got.header, err)
			}
		})
		w.Sub("good", func(w *harness.World) {
			for _, i := range []*issued{a, b} {
				for _, hash := range []string{"-sha1", "-sha256"} {
					saidBy(w, opensslOCSP(w, s, i, i.leaf.OCSPServer[0], hash), i, "good")
				}
			}
		})
		w.Sub("Go, GET and POST", func(w *harness.World) { goAsks(w, h, a, ocsp.Good) })
		w.Sub("curl", func(w *harness.World) {
			der := ocspRequest(w, a, crypto.SHA1)
			file := w.Path("answer")
			head := w.Run("curl", "-sS", "-D", "-", "-o", file, a.leaf.OCSPServer[0]+"/"+url.QueryEscape(base64.StdEncoding.EncodeToString(der)))
			if !strings.Contains(head, "application/ocsp-response") || strings.Contains(strings.ToLower(head), "strict-transport") {
				w.Errorf("the header is\n%s", head)
			}
			out := w.Run("openssl", "ocsp", "-CAfile", s.root, "-issuer", a.issuerFile, "-cert", a.file, "-respin", file)
			saidBy(w, out, a, "good")
		})
		w.Sub("one signature each", func(w *harness.World) { oneSignature(w, s, r, c, h) })
		w.Sub("revoked by its owner", func(w *harness.World) {
			s.revoke(c, a, acme.ReasonSuperseded)
			revokedAtOnce(w, s, h, a, "superseded", ocsp.Superseded)
			saidBy(w, opensslOCSP(w, s, b, b.leaf.OCSPServer[0]), b, "good")
		})
		w.Sub("revoked by an operator", func(w *harness.World) {
			r.admin("certs", "revoke", b.serial(), "--reason", "cessationOfOperation")
			revokedAtOnce(w, s, h, b, "cessationOfOperation", ocsp.CessationOfOperation)
		})
		w.Sub("after a restart", func(w *harness.World) {
			before := r.ask(h, a)
			r.Stop()
			r.start()
			if after := r.ask(h, a); !bytes.Equal(before.Raw, after.Raw) {
				w.Errorf("another answer after a restart: a signature spent in vain\nfrom %v\nfrom %v", before.ProducedAt, after.ProducedAt)
			}
			revokedAtOnce(w, s, h, b, "cessationOfOperation", ocsp.CessationOfOperation)
			if n := r.signatures(); n != 0 {
				w.Errorf("%d signatures after a restart, of answers that there were", n)
			}
		})
	})
}

// goAsks asks in every way that Go offers, and looks at what caches are told
// (RFC 5019, 6.2).
func goAsks(w *harness.World, h *http.Client, i *issued, status int) {
	w.Helper()
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		der := ocspRequest(w, i, hash)
		for name, how := range map[string]func(*http.Client, string, []byte) (ocspAnswer, error){"GET": getOCSP, "POST": postOCSP} {
			a, err := how(h, i.leaf.OCSPServer[0], der)
			if err != nil {
				w.Fatal(err)
			}
			if o := verified(w, a, i); o.Status != status || o.IssuerHash != hash {
				w.Errorf("%s, %v: status %d with %v, want %d", name, hash, o.Status, o.IssuerHash, status)
			}
			if a.header.Get("ETag") == "" || a.header.Get("Expires") == "" || !strings.Contains(a.header.Get("Cache-Control"), "max-age=") {
				w.Errorf("%s: caches are told %v", name, a.header)
			}
		}
	}
}

// revokedAtOnce checks that the first answers after the revocation say so, to
// everyone.
func revokedAtOnce(w *harness.World, s *site, h *http.Client, i *issued, word string, reason int) {
	w.Helper()
	a, err := postOCSP(h, i.leaf.OCSPServer[0], ocspRequest(w, i, crypto.SHA1))
	if err != nil {
		w.Fatal(err)
	}
	o := verified(w, a, i)
	if o.Status != ocsp.Revoked || o.RevocationReason != reason || time.Since(o.RevokedAt) > time.Minute {
		w.Errorf("the first answer: status %d, reason %d, revoked at %v", o.Status, o.RevocationReason, o.RevokedAt)
	}
	goAsks(w, h, i, ocsp.Revoked)
	for _, hash := range []string{"-sha1", "-sha256"} {
		out := opensslOCSP(w, s, i, i.leaf.OCSPServer[0], hash)
		saidBy(w, out, i, "revoked")
		if !strings.Contains(out, "Reason: "+word) {
			w.Errorf("no reason %s:\n%s", word, out)
		}
	}
}

// oneSignature: however many ask for a certificate at once, one answer is
// signed, and it serves those who come later.
func oneSignature(w *harness.World, s *site, r *replica, c *acme.Client, h *http.Client) {
	w.Helper()
	i := s.obtain(c, "storm.test")
	before := r.signatures()
	der := ocspRequest(w, i, crypto.SHA256)
	var asking sync.WaitGroup
	for n := range 64 {
		asking.Go(func() {
			how := postOCSP
			if n%2 == 0 {
				how = getOCSP
			}
			a, err := how(h, r.ocspURL(), der)
			if err != nil || a.status() != ocsp.Success {
				w.Errorf("one of many: OCSP status %d, %v", a.status(), err)
			}
		})
	}
	asking.Wait()
	if n := r.signatures() - before; n != 1 {
		w.Errorf("%d signatures for one certificate", n)
	}
}

// A delegated responder answers nonces and knows what isn't there, with a key
// of its own.
func TestOCSPResponder(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		s := newSite(w)
		made := w.Run(w.Tool("chanceryd"), "ca", "create", "--ocsp-responder", "--name", "E2E OCSP", "--generate", "--key", "file:"+s.dir+"/ca/ocsp.key",
			"--parent", s.dir+"/ca/servers.pem", "--parent-key", "file:"+s.dir+"/ca/servers.key", "--out", s.dir+"/ca/ocsp.pem")
		w.Log(made)
		delegate := w.Chain(w.Read(s.dir + "/ca/ocsp.pem"))[0]
		r := s.start1("        certificate: \"ca/servers.pem\"\n",
			"        certificate: \"ca/servers.pem\"\n        ocsp_responder:\n          key: \"file:ca/ocsp.key\"\n          certificate: \"ca/ocsp.pem\"\n")
		c := r.account()
		h := relying(w)
		i := s.obtain(c, "a.test")
		url := i.leaf.OCSPServer[0]
		w.Sub("nonce", func(w *harness.World) {
			for _, hash := range []string{"-sha1", "-sha256"} {
				out := opensslOCSP(w, s, i, url, "-nonce", hash)
				saidBy(w, out, i, "good")
				if strings.Contains(out, "WARNING") { // no nonce in response
					w.Errorf("openssl warns:\n%s", out)
				}
			}
		})
		w.Sub("no nonce", func(w *harness.World) {
			saidBy(w, opensslOCSP(w, s, i, url, "-no_nonce"), i, "good")
			a := r.ask(h, i)
			if a.Certificate == nil || !bytes.Equal(a.Certificate.Raw, delegate.Raw) {
				w.Errorf("the answer isn't the delegated responder's: %v", a.Certificate)
			}
		})
		w.Sub("unknown", func(w *harness.World) {
			out := w.Run("openssl", "ocsp", "-CAfile", s.root, "-issuer", i.issuerFile, "-url", url, "-serial", "0x0102030405060708")
			if !strings.Contains(out, ": unknown") || !strings.Contains(out, "Response verify OK") || strings.Contains(out, "WARNING") {
				w.Errorf("openssl says of what isn't there:\n%s", out)
			}
		})
		w.Sub("revoked", func(w *harness.World) {
			s.revoke(c, i, acme.ReasonKeyCompromise)
			out := opensslOCSP(w, s, i, url, "-nonce")
			saidBy(w, out, i, "revoked")
			if o := r.ask(h, i); o.Status != ocsp.Revoked || o.RevocationReason != ocsp.KeyCompromise {
				w.Errorf("status %d, reason %d", o.Status, o.RevocationReason)
			}
		})
		if n := r.signatures(fmt.Sprintf("%x", i.issuer.SubjectKeyId)); n != 0 {
			w.Errorf("the issuing key signed %d OCSP answers", n)
		}
		if n := r.signatures(fmt.Sprintf("%x", delegate.SubjectKeyId)); n < 5 {
			w.Errorf("the responder's key signed %d OCSP answers", n)
		}
	})
}

// A retired key signs no more certificates, and goes on telling of those that
// it signed.
func TestOCSPRetiredKey(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		s := newSite(w)
		r := s.start1()
		c := r.account()
		h := relying(w)
		old, other := s.obtain(c, "a.test"), s.obtain(c, "b.test")
		// A new issuing certificate beside the old one, as operators do it.
		out := w.Run(w.Tool("chanceryd"), "ca", "rotate", "servers", "--config", r.conf, "--generate", "--key", "file:"+s.dir+"/ca/servers-2.key",
			"--parent", s.dir+"/root/root.pem", "--parent-key", "file:"+s.dir+"/root/root.key", "--parent-password-file", s.passphrase,
			"--out", s.dir+"/ca/servers-2.pem")
		w.Log(out)
		r.reload("        certificate: \"ca/servers.pem\"\n",
			"        certificate: \"ca/servers.pem\"\n        retired: true\n      - key: \"file:ca/servers-2.key\"\n        certificate: \"ca/servers-2.pem\"\n")
		young := s.obtain(c, "a.test")
		if bytes.Equal(young.issuer.Raw, old.issuer.Raw) || !bytes.Equal(young.issuer.SubjectKeyId, w.Chain(w.Read(s.dir + "/ca/servers-2.pem"))[0].SubjectKeyId) {
			w.Fatal("the retired key still signs")
		}
		for _, i := range []*issued{old, young} {
			saidBy(w, opensslOCSP(w, s, i, i.leaf.OCSPServer[0]), i, "good")
			// RFC 6960, 4.2.2.2: an answer is of the key that issued.
			if o := r.ask(h, i); o.CheckSignatureFrom(i.issuer) != nil {
				w.Errorf("the answer about %s isn't its issuer's", i.serial())
			}
		}
		s.revoke(c, old, acme.ReasonSuperseded)
		revokedAtOnce(w, s, h, old, "superseded", ocsp.Superseded)
		w.Until("the retired key's list shows it", func() bool { return onList(w, h, old, 0) })
		if onList(w, h, other, 0) || onList(w, h, young, 0) {
			w.Error("what wasn't withdrawn is on a list")
		}
		w.Sub("after a restart", func(w *harness.World) {
			r.Stop()
			r.start()
			saidBy(w, opensslOCSP(w, s, old, old.leaf.OCSPServer[0]), old, "revoked")
			saidBy(w, opensslOCSP(w, s, other, other.leaf.OCSPServer[0]), other, "good")
			if !onList(w, h, old, 0) {
				w.Error("the retired key's list is gone")
			}
		})
	})
}
