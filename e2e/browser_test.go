package e2e_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// people is a CA for client certificates, and for the site that wants them.
type people struct {
	w           *harness.World
	root, inter *x509.Certificate
	key         crypto.Signer // the intermediate's
	subject     pkix.Name     // of client certificates; empty, as Chancery's are unless a profile says otherwise
}

func newPeople(w *harness.World) *people {
	w.Helper()
	p := &people{w: w}
	key := w.NewKey()
	self := &x509.Certificate{Subject: pkix.Name{CommonName: "People root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	p.root = p.sign(self, self, key.Public(), key)
	p.key = w.NewKey()
	p.inter = p.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "People intermediate"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, p.root, p.key.Public(), key)
	return p
}

func (p *people) sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	p.w.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		p.w.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		p.w.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		p.w.Fatal(err)
	}
	return c
}

func (p *people) leaf(name string, public crypto.PublicKey, use x509.ExtKeyUsage) *x509.Certificate {
	p.w.Helper()
	return p.sign(&x509.Certificate{Subject: p.subject, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}}, p.inter, public, p.key)
}

// intoNSS puts alice's certificate where browsers of this home look for it.
func (p *people) intoNSS(home string) (place.Target, place.Placed) {
	p.w.Helper()
	target, err := place.Named("nss", place.Options{Home: home, NSS: place.NSS{Trust: true}})
	if err != nil {
		p.w.Fatal(err)
	}
	key := p.w.NewKey()
	leaf := p.leaf("alice.people.test", key.Public(), x509.ExtKeyUsageClientAuth)
	placed, err := target.Put(p.w.Context(), place.Pair{Name: "tls", Chain: [][]byte{leaf.Raw, p.inter.Raw}, Key: key, Roots: [][]byte{p.root.Raw}})
	if err != nil {
		p.w.Fatal(err)
	}
	return target, placed
}

// door is a site that greets whoever shows a certificate; its page tells it
// what a person sees.
type door struct {
	url string

	mu    sync.Mutex
	shown []string // guarded by mu
}

// newDoor opens one. Its clients are those of the CAs, whose names it tells
// browsers.
func newDoor(p *people, clients ...*x509.Certificate) *door {
	p.w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.w.Fatal(err)
	}
	own := p.leaf("localhost", key.Public(), x509.ExtKeyUsageServerAuth)
	pool := x509.NewCertPool()
	for _, c := range clients {
		pool.AddCert(c)
	}
	d := &door{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.w.Fatal(err)
	}
	d.url = fmt.Sprintf("https://localhost:%d/", l.Addr().(*net.TCPAddr).Port)
	s := &http.Server{
		Handler: d, ErrorLog: log.New(p.w.Output(), "door: ", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
			Certificates: []tls.Certificate{{Certificate: [][]byte{own.Raw, p.inter.Raw}, PrivateKey: key}},
		},
	}
	go s.ServeTLS(l, "", "")
	p.w.Cleanup(func() { s.Close() })
	return d
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/shown" {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.shown = append(d.shown, r.URL.Query().Get("text"))
		return
	}
	fmt.Fprintf(w, `<!doctype html><title>The door</title><body style="font: 32px sans-serif; margin: 3em">
<p id=who>Hello %s</p><script>
const seen = new Image() // the page is loaded when this is: no browser leaves before
seen.src = '/shown?text=' + encodeURIComponent(document.getElementById('who').textContent)
document.body.append(seen)
</script>`,
		html.EscapeString(strings.Join(r.TLS.PeerCertificates[0].DNSNames, " ")))
}

// greeted reports whether somebody's page greets this name.
func (d *door) greeted(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, text := range d.shown {
		if text == "Hello "+name {
			return true
		}
	}
	return false
}

// chromium is a person's browser: one home for all its runs.
type chromium struct {
	w    *harness.World
	home string
}

// newChromium makes the home, and a policy by which the browser doesn't ask
// which certificate to show. Policies are the machine's, so it lies in a file
// system of the test's own.
func newChromium(w *harness.World, d *door) *chromium {
	w.Helper()
	if err := unix.Mount("tmpfs", "/etc/chromium", "tmpfs", 0, "mode=755"); err != nil {
		w.Fatalf("mounting /etc/chromium: %v (apt-get install chromium)", err)
	}
	const policies = "/etc/chromium/policies/managed"
	if err := os.MkdirAll(policies, 0o755); err != nil {
		w.Fatal(err)
	}
	text := fmt.Sprintf(`{"AutoSelectCertificateForUrls": ["{\"pattern\":\"%s\",\"filter\":{}}"]}`, strings.TrimSuffix(d.url, "/"))
	if err := os.WriteFile(filepath.Join(policies, "test.json"), []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
	return &chromium{w, w.Mkdir("home")}
}

// database is where it looks for certificates.
func (c *chromium) database() string { return "sql:" + filepath.Join(c.home, ".pki", "nssdb") }

func (c *chromium) cmd(args ...string) *harness.Cmd {
	flags := []string{
		"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--disable-extensions", "--password-store=basic", "--user-data-dir=" + filepath.Join(c.home, "profile"), "--window-size=800,600",
	}
	return c.w.Cmd("chromium", append(flags, args...)...).Env("HOME="+c.home, "XDG_RUNTIME_DIR="+c.home)
}

// keep puts a picture where one can look at it after the test: bin/browser of
// this module, the only place that outlives it.
func keep(w *harness.World, name string, picture []byte) {
	w.Helper()
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		w.Fatalf("%s: %v", name, err)
	}
	colours := map[color.Color]bool{}
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			colours[img.At(x, y)] = true
		}
	}
	if len(colours) < 5 {
		w.Errorf("%s shows nothing: %d colours", name, len(colours))
	}
	bin := filepath.Dir(w.Tool("chanceryd"))
	if err := unix.Mount(bin, bin, "", unix.MS_BIND, ""); err != nil {
		w.Fatal(err)
	}
	if err := unix.Mount("", bin, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil { // all else is read-only
		w.Fatal(err)
	}
	file := filepath.Join(bin, "browser", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(file, picture, 0o644); err != nil {
		w.Fatal(err)
	}
	w.Logf("the picture is in %s", file)
}

// A browser shows the certificate that was put into its database, with the
// intermediate, to a server that knows only the root; after logout it has none.
func TestBrowserNSS(t *testing.T) {
	harness.Alone(t, 3*time.Minute, func(w *harness.World) {
		p := newPeople(w)
		d := newDoor(p, p.root)
		c := newChromium(w, d)
		target, placed := p.intoNSS(c.home)
		if dom := c.cmd("--headless", "--dump-dom", d.url).OK(); !strings.Contains(dom, ">Hello alice.people.test</p>") {
			w.Errorf("the page is\n%s", dom)
		}
		if !d.greeted("alice.people.test") {
			w.Error("the page doesn't say that it greets alice")
		}
		picture := w.Path("page.png")
		c.cmd("--headless", "--screenshot="+picture, d.url).OK()
		keep(w, "nss.png", []byte(w.Read(picture)))

		if err := target.Remove(w.Context(), placed); err != nil {
			w.Fatal(err)
		}
		if dom := c.cmd("--headless", "--dump-dom", d.url).OK(); strings.Contains(dom, "Hello") {
			w.Errorf("after logout the page is\n%s", dom)
		}
	})
}

// Firefox makes its profile where it likes to; the certificate is put there,
// and its page greets alice.
func TestBrowserFirefox(t *testing.T) {
	harness.Alone(t, 4*time.Minute, func(w *harness.World) {
		p := newPeople(w)
		d := newDoor(p, p.root)
		home := w.Mkdir("home")
		picture := w.Path("page.png")
		firefox := func(args ...string) *harness.Cmd {
			return w.Cmd("firefox-esr", append([]string{"--headless", "--no-remote", "--window-size=800,600"}, args...)...).Env("HOME="+home, "XDG_RUNTIME_DIR="+home)
		}
		firefox("--screenshot", picture, "about:blank").OK()
		target, placed := p.intoNSS(home)
		if len(placed.Where) != 1 || !strings.Contains(placed.Where[0], "firefox") {
			w.Fatalf("it was put into %q", placed.Where)
		}
		for _, profile := range placed.Where { // as a person chooses it in the settings
			if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(`user_pref("security.default_personal_cert", "Select Automatically");`), 0o600); err != nil {
				w.Fatal(err)
			}
		}
		running := firefox(d.url).Start()
		w.Until("the page greets alice", func() bool { return d.greeted("alice.people.test") })
		running.Stop()
		firefox("--screenshot", picture, d.url).OK()
		keep(w, "firefox.png", []byte(w.Read(picture)))
		if err := target.Remove(w.Context(), placed); err != nil {
			w.Fatal(err)
		}
	})
}

// A browser that was told of OpenSC shows the certificate that was put into the
// slot, and signs with the key there after asking for the PIN. OpenSC 0.23
// hides certificates with an empty subject from NSS, so this one has a common
// name.
func TestBrowserOpenSC(t *testing.T) {
	harness.Alone(t, 4*time.Minute, func(w *harness.World) {
		browserWithCard(w, "opensc-pkcs11.so", pkix.Name{CommonName: "alice.cards.test"}, "opensc.png")
	})
}

// Yubico's own module doesn't mind an empty subject.
func TestBrowserYKCS11(t *testing.T) {
	harness.Alone(t, 4*time.Minute, func(w *harness.World) {
		browserWithCard(w, "libykcs11.so", pkix.Name{}, "ykcs11.png")
	})
}

func browserWithCard(w *harness.World, module string, subject pkix.Name, picture string) {
	w.Helper()
	p := newPeople(w)
	p.subject = subject
	d := newDoor(p, p.root, p.inter) // the slot holds the leaf alone
	c := newChromium(w, d)
	card := newYubiKeys(w, [3]byte{5, 7, 1})
	putIntoSlot(p, fmt.Sprintf("yubikey:serial=%d;slot=9a", card.cards[0].Serial()), c.home)

	w.Mkdir("home", ".pki", "nssdb")
	root := w.SavePEM("root.pem", p.root.Raw)
	w.Run("certutil", "-N", "-d", c.database(), "--empty-password")
	w.Run("certutil", "-A", "-d", c.database(), "-n", "people", "-t", "C,,", "-i", root)
	w.Run("modutil", "-dbdir", c.database(), "-add", "card", "-libfile", module, "-force")

	screen := w.Mkdir("screen")
	w.Cmd("Xvfb", display, "-screen", "0", "1000x700x24", "-fbdir", screen, "-nolisten", "tcp").Start().Until("there is a screen", func() bool {
		ask := exec.CommandContext(w.Context(), "xdotool", "getdisplaygeometry") // its socket may be an older one's
		ask.Env = append(os.Environ(), "DISPLAY="+display)
		return ask.Run() == nil
	})
	signatures := card.cards[0].Signatures()
	c.cmd("--window-position=0,0", d.url).Env("DISPLAY=" + display).Start()
	answerPIN(w, softcard.DefaultPIN)
	w.Until("the page greets the card's owner", func() bool { return d.greeted("alice.cards.test") })
	if card.cards[0].Signatures() == signatures {
		w.Error("the card made no signature")
	}
	time.Sleep(time.Second) // for the picture alone: nobody says when the page is painted
	keep(w, picture, fromXWD(w, []byte(w.Read(filepath.Join(screen, "Xvfb_screen0")))))
}

// display is the X server's; each test has one of its own.
const display = ":77"

// putIntoSlot makes the key, and puts a certificate beside it.
func putIntoSlot(p *people, uri, home string) {
	p.w.Helper()
	pin := func(context.Context) ([]byte, error) { return []byte(softcard.DefaultPIN), nil }
	cards := new(yubikey.Cards)
	k, _, err := cards.Generate(p.w.Context(), uri, yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin, TouchPolicy: yubikey.TouchAlways})
	if err != nil {
		p.w.Fatalf("%v (these tests need -tags pcsc)", err)
	}
	if err := k.Close(); err != nil { // or OpenSC couldn't use the card
		p.w.Fatal(err)
	}
	target, err := place.Named("slot", place.Options{Home: home, Slot: place.Slot{Cards: cards, URI: uri}})
	if err != nil {
		p.w.Fatal(err)
	}
	leaf := p.leaf("alice.cards.test", k.Public(), x509.ExtKeyUsageClientAuth)
	if _, err := target.Put(p.w.Context(), place.Pair{Name: "tls", Chain: [][]byte{leaf.Raw, p.inter.Raw}}); err != nil {
		p.w.Fatal(err)
	}
}

// answerPIN waits for the browser's dialog and types the PIN. There is no
// window manager, so keys are sent to the window itself. A window that is
// found may not be shown yet, or be gone again; so nothing is typed before the
// same one was seen for a second; and the dialog closes when Return goes down,
// so there is no window to let it up in.
func answerPIN(w *harness.World, pin string) {
	w.Helper()
	var id string
	since := time.Now()
	w.Until("the browser asks for the PIN", func() bool {
		search := exec.CommandContext(w.Context(), "xdotool", "search", "--onlyvisible", "--name", "Security Device")
		search.Env = append(os.Environ(), "DISPLAY="+display)
		out, _ := search.Output() // fails as long as there is no such window
		if now := strings.TrimSpace(string(out)); now == "" || now != id {
			id, since = now, time.Now()
		}
		return id != "" && time.Since(since) > time.Second
	})
	id, _, _ = strings.Cut(id, "\n")
	for _, args := range [][]string{{"type", "--window", id, pin}, {"keydown", "--window", id, "Return"}} {
		w.Cmd("xdotool", args...).Env("DISPLAY=" + display).OK()
	}
}

// fromXWD turns what Xvfb keeps of its screen into a PNG: a header of 32-bit
// words (X Window dump, version 7), colours, and pixels of 32 bits.
func fromXWD(w *harness.World, dump []byte) []byte {
	w.Helper()
	word := func(n int) int { return int(binary.BigEndian.Uint32(dump[4*n:])) }
	if len(dump) < 100 || word(1) != 7 || word(11) != 32 {
		w.Fatalf("not a dump of 32 bits per pixel: %d bytes", len(dump))
	}
	header, width, height, line, colours := word(0), word(4), word(5), word(12), word(19)
	pixels := dump[header+12*colours:]
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			b := pixels[y*line+4*x:] // blue first: the byte order of this machine
			img.Set(x, y, color.RGBA{b[2], b[1], b[0], 255})
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		w.Fatal(err)
	}
	return out.Bytes()
}
