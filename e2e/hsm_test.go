package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/slowhsm"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// hsm is a SoftHSM whose tokens behave like cards: one signature at a time, as
// slow as wanted, and they can be pulled out.
type hsm struct {
	*slowhsm.Module
	w    *harness.World
	soft *softhsm.HSM
	pins map[string]string // files, by label
}

func newHSM(w *harness.World) *hsm {
	w.Helper()
	soft, err := softhsm.In(w.Mkdir("softhsm"))
	if err != nil {
		w.Fatal(err)
	}
	slow, err := slowhsm.In(w.Mkdir("slowhsm"), soft.Module, soft.Env())
	if err != nil {
		w.Fatal(err)
	}
	return &hsm{slow, w, soft, map[string]string{}}
}

// token initializes a token, whose PIN is 1234.
func (h *hsm) token(label string) *softhsm.Token {
	h.w.Helper()
	t, err := h.soft.NewToken(label, "1234")
	if err != nil {
		h.w.Fatal(err)
	}
	t.Module, h.pins[label] = h.Path, t.PINFile
	return t
}

// uri names the key "servers" on the tokens of a label, with a PIN from
// elsewhere.
func (h *hsm) uri(label string) string {
	return "pkcs11:token=" + label + ";object=servers?module-path=" + h.Path
}

// kinds are the keys that are made on tokens, in turn.
var kinds = []string{"P-256", "P-384", "RSA-2048"}

// signers makes a key and a CA certificate on a new token for each label, and
// returns the lines of the configuration. The first names its PIN in the
// configuration, the others in the URI.
func (h *hsm) signers(s *site, labels ...string) (lines string) {
	h.w.Helper()
	for n, label := range labels {
		t, kind := h.token(label), kinds[n%len(kinds)]
		uri, pinFile := t.URI("servers"), ""
		generate := []string{"key", "generate", "--type", kind}
		if n == 0 {
			uri, pinFile = h.uri(label), t.PINFile
			generate = append(generate, "--pin-file", pinFile)
		}
		out := h.w.Run(h.w.Tool("chanceryd"), append(generate, uri)...)
		if !strings.Contains(out, kind) || !strings.Contains(out, t.Serial) {
			h.w.Errorf("key generate says\n%s", out)
		}
		lines += s.caCreate(label, uri, pinFile)
		h.SetDelay(label, cardTime)
	}
	return lines
}

// away is the metric of a token: whether a key on it is out of turn.
func (r *replica) away(label string) bool {
	r.w.Helper()
	return r.metric("chancery_signing_token_away", "token="+label+";") > 0
}

// outOfTurn waits until just these of all tokens, by their labels, are out of
// turn.
func (r *replica) outOfTurn(want string, all ...string) {
	r.w.Helper()
	start := time.Now()
	r.Until("out of turn are: "+want, func() bool {
		var got []string
		for _, label := range all {
			if r.away(label) {
				got = append(got, label)
			}
		}
		return strings.Join(got, " ") == want
	})
	r.w.Logf("out of turn are %q after %v", want, time.Since(start).Round(time.Millisecond))
}

// Keys on tokens from their making to certificates that real clients get of
// them; N keys share the work.
func TestHSM(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w, "    crl:\n      shards: 4\n", ""), newHSM(w)
		labels := []string{"one", "two", "three", "four"}
		first, fourth := h.signers(s, labels[:3]...), h.signers(s, labels[3])
		r := s.replica(0, s.dir, fileSigner, first)
		w.Run(w.Tool("chanceryd"), "check", r.conf)
		r.start()
		w.Sub("the keys never leave", func(w *harness.World) {
			for _, label := range labels {
				out := w.Run("pkcs11-tool", "--module", h.Path, "--token-label", label, "--login", "--pin", "1234", "--list-objects", "--type", "privkey")
				for _, want := range []string{"label:      servers", "Usage:      sign\n", "sensitive, always sensitive, never extractable, local"} {
					if !strings.Contains(out, want) {
						w.Errorf("pkcs11-tool doesn't show %q:\n%s", want, out)
					}
				}
			}
		})
		ca := &harness.CA{Directory: "https://ca.test:14000/acme/servers/directory", Root: s.root, TLSRoot: s.root}
		w.Sub("lego", func(w *harness.World) {
			l := lego{w, ca, w.Mkdir("lego")}
			l.cmd("-d", "a.test", "-d", "b.test", "--http", "run").OK()
			w.Verify(ca, []string{"a.test", "b.test"}, l.file("a.test.crt"))
		})
		w.Sub("certbot", func(w *harness.World) { newCertbot(w, ca).certonly(w, "a", []string{"a.test"}, "--standalone") })
		w.Sub("four keys share the work", func(w *harness.World) {
			r.reload(first, first+fourth) // one is added while the server runs
			c := r.crowd(12)
			before := map[string]int{}
			for _, label := range labels {
				before[label] = h.Signatures(label)
			}
			start := time.Now()
			c.more(r, 100)
			took := time.Since(start)
			c.stop()
			by, sum := c.signed()
			for _, label := range labels {
				// Each certificate is a signature of the token named in it.
				if n := h.Signatures(label) - before[label]; by[label] < sum/8 || n < by[label] {
					w.Errorf("token %s made %d signatures, %d of %d certificates", label, n, by[label], sum)
				}
			}
			if one := 100 * cardTime; took > one*2/3 {
				w.Errorf("100 certificates took four keys %v; one key takes %v", took, one)
			}
		})
	})
}

// Tokens are pulled out, hang and are locked while clients order all the time:
// no order is lost, metrics, logs and `ca list` say what is wrong, and what is
// put right comes back by itself.
func TestHSMComesAndGoes(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w, "    crl:\n      shards: 4\n", ""), newHSM(w)
		labels := []string{"one", "two", "three", "four"}
		r := s.start1(fileSigner, h.signers(s, labels...), "profiles:\n", "signing:\n  stuck: 1s\n\nprofiles:\n")
		logins := map[string]int{}
		for _, label := range labels {
			logins[label] = h.Logins(label)
		}
		c := r.crowd(8)
		c.more(r, 10)
		r.outOfTurn("", labels...)

		h.Unplug("one")
		r.outOfTurn("one", labels...)
		pulled := h.Signatures("one")
		c.more(r, 10)
		if n := h.Signatures("one"); n != pulled {
			w.Errorf("a token that is out made %d signatures", n-pulled)
		}
		wantSaid(w, r.Output(), "signing token is taken out of turn", "token=one;")
		if l := r.list()["E2E Server CA one"]; l.State != "away" || l.Server == nil || l.Server.Reason == "" {
			w.Errorf("ca list says of a token that is out %+v", l)
		}
		h.Plug("one")
		r.outOfTurn("", labels...)
		wantSaid(w, r.Output(), "signing token is back", "token=one;")
		r.Until("it signs again", func() bool { return h.Signatures("one") > pulled+2 })

		// Two at once: one hangs, the other is locked while it is out.
		h.SetDelay("two", 6*time.Second)
		h.SetFlags("three", slowhsm.PINLocked)
		h.Unplug("three")
		r.outOfTurn("two three", labels...)
		h.SetDelay("two", cardTime)
		h.Plug("three")
		locked := h.Logins("three")
		r.outOfTurn("three", labels...)
		if l := r.list()["E2E Server CA three"]; l.State != "away" || l.Server == nil || !strings.Contains(l.Server.Reason, "locked") {
			w.Errorf("ca list says of a locked token %+v", l)
		}
		wantSaid(w, r.Output(), "locked", "token=three;")
		if n := h.Logins("three") - locked; n != 0 {
			w.Errorf("a locked token was offered the PIN %d times", n)
		}
		h.SetFlags("three", 0)
		r.outOfTurn("", labels...)

		c.more(r, 20)
		c.stop()
		for label, returns := range map[string]int{"one": 1, "two": 0, "three": 1, "four": 0} {
			if n := h.Logins(label) - logins[label]; n > returns {
				w.Errorf("token %s came back %d times and was offered the PIN %d times", label, returns, n)
			}
		}
	})
}

// A server starts without a token that isn't there, and takes it in when it
// comes.
func TestHSMAbsentAtStart(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w), newHSM(w)
		r := s.replica(0, s.dir, fileSigner, h.signers(s, "one", "two"))
		h.Unplug("two")
		wantSaid(w, w.Run(w.Tool("chanceryd"), "check", r.conf), "warning", "token=two;")
		r.start()
		r.outOfTurn("two", "one", "two")
		wantSaid(w, r.Output(), "token=two;", "level=ERROR", "takes it in when it comes")
		c := r.account()
		if i := s.obtain(c, "a.test"); i.issuer.Subject.CommonName != "E2E Server CA one" {
			w.Errorf("signed by %s", i.issuer.Subject)
		}
		if l := r.list()["E2E Server CA two"]; l.State != "away" {
			w.Errorf("ca list says of the token %+v", l)
		}
		h.Plug("two")
		r.outOfTurn("", "one", "two")
		before := h.Signatures("two")
		h.Unplug("one")
		if i := s.obtain(c, "a.test"); i.issuer.Subject.CommonName != "E2E Server CA two" || h.Signatures("two") <= before {
			w.Errorf("signed by %s", i.issuer.Subject)
		}
	})
}

// A server whose only key isn't there waits for it.
func TestHSMNoKeyAtStart(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w), newHSM(w)
		r := s.replica(0, s.dir, fileSigner, h.signers(s, "one"))
		h.Unplug("one")
		r.Proc = w.Cmd(w.Tool("chanceryd"), "serve", r.conf).Start()
		r.Says("takes it in when it comes")
		time.Sleep(3 * time.Second)
		start := time.Now()
		h.Plug("one")
		r.Until("it serves", func() bool {
			_, err := s.dial(r)
			return err == nil
		})
		w.Logf("it serves %v after its key came", time.Since(start).Round(time.Millisecond))
		s.obtain(r.account(), "a.test")
	})
}

// Orders that come while no token is there wait for one.
func TestHSMAllAway(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w, "    crl:\n      shards: 4\n", ""), newHSM(w)
		r := s.start1(fileSigner, h.signers(s, "one", "two"))
		c := r.account()
		s.obtain(c, "a.test")
		h.Unplug("one")
		h.Unplug("two")
		var got [3]time.Time
		var orders sync.WaitGroup
		for n := range got {
			orders.Go(func() {
				if _, err := s.tryObtain(c, acme.OrderRequest{Identifiers: acme.Identifiers(fmt.Sprintf("a%d.test", n))}); err != nil {
					w.Errorf("the order is lost: %v", err)
				}
				got[n] = time.Now()
			})
		}
		r.outOfTurn("one two", "one", "two")
		time.Sleep(2 * time.Second)
		list := r.list()
		for _, name := range []string{"one", "two"} {
			if l := list["E2E Server CA "+name]; l.State != "away" {
				w.Errorf("ca list says of %s: %+v", name, l)
			}
		}
		back := time.Now()
		h.Plug("two")
		r.outOfTurn("one", "one", "two")
		s.obtain(c, "b.test")
		orders.Wait()
		for _, at := range got {
			w.Logf("a certificate %v after the token came back", at.Sub(back).Round(time.Millisecond))
		}
	})
}

// Several tokens with one and the same key are one signer, used in parallel;
// it goes on while one of them is there.
func TestHSMOneKeyOnTwoTokens(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, h := newSite(w, "    crl:\n      shards: 4\n", ""), newHSM(w)
		left, right := h.token("left"), h.token("right")
		// As a NitroKey's encrypted export and import: the key is on both.
		h.put(w, "same", left, right)
		s.caCreate("both", left.URI("same"), "")
		h.SetDelay("", cardTime)
		r := s.start1(fileSigner, fmt.Sprintf("      - keys:\n          - %q\n          - %q\n        certificate: \"ca/both.pem\"\n", left.URI("same"), right.URI("same")))
		c := r.crowd(6)
		c.more(r, 5)
		l, q, start := h.Signatures("left"), h.Signatures("right"), time.Now()
		c.more(r, 40)
		took := time.Since(start)
		l, q = h.Signatures("left")-l, h.Signatures("right")-q
		if l < 10 || q < 10 {
			w.Errorf("of 40 signatures %d are the one token's, %d the other's", l, q)
		}
		if one := 40 * cardTime; took > one*9/10 {
			w.Errorf("40 certificates took two tokens %v; one takes %v", took, one)
		}
		h.Unplug("left")
		r.outOfTurn("left", "left", "right")
		if l := r.list()["E2E Server CA both"]; l.State != "ready" || len(l.Keys) != 2 {
			w.Errorf("ca list says of a signer with one of two tokens %+v", l)
		}
		c.more(r, 5)
		h.Plug("left")
		r.outOfTurn("", "left", "right")
		l = h.Signatures("left")
		c.more(r, 10)
		if h.Signatures("left") == l {
			w.Error("the token that came back isn't used")
		}
		c.stop()
	})
}

// put imports a new key into tokens.
func (h *hsm) put(w *harness.World, name string, tokens ...*softhsm.Token) {
	w.Helper()
	file := w.Path(name + ".key")
	w.Run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", file)
	for _, t := range tokens {
		w.Cmd("softhsm2-util", "--module", h.soft.Module, "--import", file, "--serial", t.Serial, "--label", name, "--id", "0a", "--pin", t.PIN).
			Env(h.soft.Env()).OK()
	}
}
