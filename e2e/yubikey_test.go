package e2e_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// yubikeys are soft cards in readers of a pcscd of the test's own, which the
// commands that the test runs find by their environment.
type yubikeys struct {
	*reader.Reader
	w     *harness.World
	maker *softcard.Maker
	cards []*softcard.Card // by reader
	pin   string           // a file with the PIN
	// attestations are the files that key generate wrote, by reader.
	attestations map[int]string
}

// newYubiKeys makes cards of the firmwares and puts them in.
func newYubiKeys(w *harness.World, firmwares ...[3]byte) *yubikeys {
	w.Helper()
	r, err := reader.Start(w.Mkdir("pcscd"), len(firmwares))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := r.Close(); err != nil {
			w.Error(err)
		}
	})
	for _, e := range r.Env() {
		name, value, _ := strings.Cut(e, "=")
		w.Setenv(name, value)
	}
	y := &yubikeys{Reader: r, w: w, pin: w.Write("yubikey-pin", softcard.DefaultPIN+"\n"), attestations: map[int]string{}}
	ownersOnly(w, y.pin)
	if y.maker, err = softcard.NewMaker(); err != nil {
		w.Fatal(err)
	}
	for n, f := range firmwares {
		c, err := softcard.New(softcard.Options{Serial: uint32(11000001 + n), Firmware: f, Maker: y.maker})
		if err != nil {
			w.Fatal(err)
		}
		y.cards = append(y.cards, c)
		y.plug(n)
	}
	return y
}

// plug puts a card into its reader.
func (y *yubikeys) plug(n int) {
	y.w.Helper()
	if err := y.Insert(n, y.cards[n]); err != nil {
		y.w.Fatal(err)
	}
}

// uri names slot 9c of a card.
func (y *yubikeys) uri(n int) string {
	return fmt.Sprintf("yubikey:serial=%d;slot=9c", y.cards[n].Serial())
}

// signers makes a key in slot 9c of each card, and a CA certificate for it, and
// returns the lines of the configuration.
func (y *yubikeys) signers(s *site) (lines string) {
	y.w.Helper()
	for n := range y.cards {
		y.attestations[n] = y.w.Path(fmt.Sprintf("attestation-%d.pem", n))
		out := y.w.Run(y.w.Tool("chanceryd"), "key", "generate", "--pin-file", y.pin, "--attestation", y.attestations[n], y.uri(n))
		if !strings.Contains(out, "P-256") || !strings.Contains(out, "wrote the attestation") {
			y.w.Errorf("key generate says\n%s", out)
		}
		lines += s.caCreate(fmt.Sprintf("card%d", n), y.uri(n), y.pin)
		y.cards[n].SetDelay(cardTime)
	}
	return lines
}

// outOfTurn waits until a card is out of turn, or no longer.
func (y *yubikeys) outOfTurn(r *replica, n int, want bool) {
	y.w.Helper()
	start := time.Now()
	r.Until(fmt.Sprintf("card %d is out of turn: %v", n, want), func() bool {
		return (r.metric("chancery_signing_token_away", y.uri(n)) > 0) == want
	})
	y.w.Logf("card %d is out of turn: %v, after %v", n, want, time.Since(start).Round(time.Millisecond))
}

// attested checks the evidence that a card made the key that it shows: its
// statement, by the attestation certificate of the card, by the maker.
func (y *yubikeys) attested(w *harness.World, n int) {
	w.Helper()
	certs := w.Chain(w.Read(y.attestations[n]))
	if len(certs) != 2 {
		w.Fatalf("the attestation has %d certificates", len(certs))
	}
	root := w.SavePEM("maker.pem", y.maker.Root().Raw)
	var between [][]byte
	for _, c := range y.maker.Issuers() {
		between = append(between, c.Raw)
	}
	between = append(between, certs[1].Raw)
	w.Run("openssl", "verify", "-CAfile", root, "-untrusted", w.SavePEM("between.pem", between...), w.SavePEM("statement.pem", certs[0].Raw))

	var shown []struct{ Type, Fingerprint, Token string }
	out := w.Run(w.Tool("chanceryd"), "key", "show", "--json", "--pin-file", y.pin, y.uri(n))
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown) != 1 {
		w.Fatalf("key show prints %s: %v", out, err)
	}
	ca := w.Chain(w.Read(y.w.Path("ca", "ca", fmt.Sprintf("card%d.pem", n))))[0]
	if !bytes.Equal(certs[0].RawSubjectPublicKeyInfo, ca.RawSubjectPublicKeyInfo) {
		w.Error("the card attests another key than the CA certificate's")
	}
	var serial int64
	if _, err := asn1.Unmarshal(extensionOf(certs[0], 7), &serial); err != nil || serial != int64(y.cards[n].Serial()) {
		w.Errorf("attested by card %d: %v", serial, err)
	}
	// Once a session the PIN, and no touch: a server has no finger.
	if got := extensionOf(certs[0], 8); !bytes.Equal(got, []byte{2, 1}) {
		w.Errorf("PIN and touch policy are %x", got)
	}
}

// extensionOf is a YubiKey's own extension of an attestation.
func extensionOf(c *x509.Certificate, n int) []byte {
	for _, e := range c.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n}) {
			return e.Value
		}
	}
	return nil
}

// Keys on two YubiKeys, from their making to certificates; one is pulled and
// plugged in again while clients order.
func TestYubiKey(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, y := newSite(w, "    crl:\n      shards: 4\n", ""), newYubiKeys(w, [3]byte{5, 7, 1}, [3]byte{5, 4, 3})
		lines := y.signers(s)
		w.Sub("attested", func(w *harness.World) {
			for n := range y.cards {
				y.attested(w, n)
			}
		})
		w.Sub("other software sees them", func(w *harness.World) {
			for n, c := range y.cards {
				out := w.Run("yubico-piv-tool", "-r", fmt.Sprintf("#%d", n), "-a", "status")
				for _, want := range []string{fmt.Sprintf("Serial Number:\t%d", c.Serial()), "Slot 9c", "ECCP256"} {
					if !strings.Contains(out, want) {
						w.Errorf("yubico-piv-tool doesn't show %q:\n%s", want, out)
					}
				}
			}
		})
		w.Sub("a key isn't overwritten", func(w *harness.World) {
			out := w.Cmd(w.Tool("chanceryd"), "key", "generate", "--pin-file", y.pin, y.uri(0)).Fails()
			if !strings.Contains(out, "holds a key already") {
				w.Errorf("key generate says\n%s", out)
			}
		})
		w.Sub("two cards match", func(w *harness.World) {
			s.refusedAt(w, "- key: \"yubikey:slot=9c\"", []string{fmt.Sprint(y.cards[0].Serial()), fmt.Sprint(y.cards[1].Serial()), "serial"},
				fileSigner, strings.Replace(lines, fmt.Sprintf("serial=%d;", y.cards[0].Serial()), "", 1))
		})
		w.Sub("no key in the slot", func(w *harness.World) {
			s.refusedAt(w, "- key: \""+y.uri(0)[:len(y.uri(0))-2], []string{"holds no key in slot 9a", "chanceryd key generate"},
				fileSigner, strings.Replace(lines, "slot=9c", "slot=9a", 1))
		})
		r := s.replica(0, s.dir, fileSigner, lines)
		w.Run(w.Tool("chanceryd"), "check", r.conf)
		r.start()
		w.Sub("lego", func(w *harness.World) {
			ca := &harness.CA{Directory: "https://ca.test:14000/acme/servers/directory", Root: s.root, TLSRoot: s.root}
			l := lego{w, ca, w.Mkdir("lego")}
			l.cmd("-d", "a.test", "--http", "run").OK()
			w.Verify(ca, []string{"a.test"}, l.file("a.test.crt"))
		})
		w.Sub("pulled and plugged in again", func(w *harness.World) { y.pulled(w, r) })
	})
}

// pulled has clients order while a card is pulled and plugged in again: each
// comes to its own, and the PIN is shown once for each session.
func (y *yubikeys) pulled(w *harness.World, r *replica) {
	w.Helper()
	c := r.crowd(6)
	c.more(r, 15)
	by, sum := c.signed()
	if by["card0"] < sum/4 || by["card1"] < sum/4 {
		w.Errorf("%d certificates, by %v", sum, by)
	}
	verifies := y.cards[0].Verifies()
	y.Pull(0)
	y.outOfTurn(r, 0, true)
	wantSaid(w, r.Output(), "signing token is taken out of turn", y.uri(0))
	if l := r.list()["E2E Server CA card0"]; l.State != "away" || l.Server == nil || l.Server.Reason == "" {
		w.Errorf("ca list says of a card that was pulled %+v", l)
	}
	before := y.cards[0].Signatures()
	c.more(r, 15)
	if n := y.cards[0].Signatures() - before; n != 0 {
		w.Errorf("a card that is out made %d signatures", n)
	}
	y.plug(0)
	y.outOfTurn(r, 0, false)
	wantSaid(w, r.Output(), "signing token is back", y.uri(0))
	c.more(r, 10)
	c.stop()
	if y.cards[0].Signatures() == before {
		w.Error("the card that came back isn't used")
	}
	if n := y.cards[0].Verifies() - verifies; n != 1 {
		w.Errorf("the PIN was shown %d times to the card that came back", n)
	}
}

// A card that isn't there at the start comes in later.
func TestYubiKeyAbsentAtStart(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, y := newSite(w), newYubiKeys(w, [3]byte{5, 7, 1}, [3]byte{5, 4, 3})
		r := s.replica(0, s.dir, fileSigner, y.signers(s))
		if err := y.Remove(1); err != nil {
			w.Fatal(err)
		}
		r.start()
		y.outOfTurn(r, 1, true)
		wantSaid(w, r.Output(), y.uri(1), "takes it in when it comes")
		c := r.account()
		if i := s.obtain(c, "a.test"); i.issuer.Subject.CommonName != "E2E Server CA card0" {
			w.Errorf("signed by %s", i.issuer.Subject)
		}
		y.plug(1)
		y.outOfTurn(r, 1, false)
		y.Pull(0)
		if i := s.obtain(c, "a.test"); i.issuer.Subject.CommonName != "E2E Server CA card1" {
			w.Errorf("signed by %s", i.issuer.Subject)
		}
	})
}

// A wrong PIN costs one of three tries at each start, and never the last,
// however often the server is started again.
func TestYubiKeyWrongPIN(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no keys on tokens")
		s, y := newSite(w), newYubiKeys(w, [3]byte{5, 4, 3})
		r := s.replica(0, s.dir, fileSigner, y.signers(s))
		place := r.place("- key: \"" + y.uri(0))
		card := y.cards[0]
		set := func(pin string) {
			if err := os.WriteFile(y.pin, []byte(pin+"\n"), 0o600); err != nil {
				w.Fatal(err)
			}
		}
		refused := func(left int, words ...string) {
			w.Helper()
			out := w.Cmd(w.Tool("chanceryd"), "serve", r.conf).Fails()
			wantSaid(w, out, append(words, place, "PIN", fmt.Sprint(card.Serial()))...)
			if card.Tries() != left {
				w.Errorf("%d tries are left, want %d", card.Tries(), left)
			}
			if strings.Contains(out, "999999") {
				w.Errorf("the PIN is shown:\n%s", out)
			}
		}
		set("999999")
		refused(2, "2 tries left")
		refused(1, "1 try left")
		for range 3 {
			refused(1, "1 try left", "isn't risked")
		}
		// Not with the right one either: it can't be told from a wrong one.
		set(softcard.DefaultPIN)
		refused(1, "isn't risked", "yubico-piv-tool -a verify-pin")
		w.Run("yubico-piv-tool", "-r", "#0", "-a", "verify-pin", "-P", softcard.DefaultPIN)
		r.start()
		c := r.account()
		i := s.obtain(c, "a.test")

		// The PIN's file is wrong when the card comes back: one try, and none
		// more until there is another PIN.
		set("999999")
		y.Pull(0)
		if a, err := postOCSP(relying(w), r.ocspURL(), ocspRequest(w, i, crypto.SHA1)); err != nil {
			w.Errorf("%d: %v", a.code, err)
		}
		y.outOfTurn(r, 0, true)
		y.plug(0)
		r.Says("2 tries left")
		time.Sleep(4 * time.Second) // it would be tried again by now
		if card.Tries() != 2 {
			w.Errorf("%d tries are left, want 2", card.Tries())
		}
		set(softcard.DefaultPIN)
		y.outOfTurn(r, 0, false)
		s.obtain(c, "a.test")
		if card.Tries() != 3 {
			w.Errorf("%d tries are left, want 3", card.Tries())
		}
	})
}
