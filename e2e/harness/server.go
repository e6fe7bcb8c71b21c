package harness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Pebble says that the clients run against Pebble in place of this
// repository's server (E2E_SERVER=pebble): a cross-check of the clients'
// drivers, for whoever writes them.
var Pebble = os.Getenv("E2E_SERVER") == "pebble"

// buildServer builds the programs under test into bin.
func buildServer() error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	if Pebble {
		return build("tools", bin, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	}
	if err := build("..", bin, "./cmd/chanceryd", "./cmd/chancery"); err != nil {
		return err
	}
	return buildSlowHSM(filepath.Join(bin, "slowhsm.so"))
}

// buildSlowHSM builds the PKCS#11 module that makes SoftHSM's tokens as slow as
// smart cards; its source says how it is steered.
func buildSlowHSM(to string) error {
	cmd := exec.Command("gcc", "-std=gnu11", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", to+".new",
		filepath.FromSlash("../internal/signer/pkcs11/slowhsm/module/slowhsm.c"), "-ldl", "-lpthread")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building slowhsm.so: %w\n%s", err, out)
	}
	return os.Rename(to+".new", to) // another run of the suite may be using it
}

func build(dir, bin string, pkgs ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-tags", "pcsc", "-o", bin + "/"}, pkgs...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %v: %w\n%s", pkgs, err, out)
	}
	return nil
}

// CA is a running CA.
type CA struct {
	// Directory is the URL of the directory for server certificates, Clients
	// that for client certificates.
	Directory, Clients string
	// Root is a PEM file with the root of what it issues, TLSRoot one with the
	// root of the directory's own HTTPS certificate.
	Root, TLSRoot string

	w     *World
	admin string
	eabs  int
}

// Options are what a test may ask of a CA.
type Options struct {
	// HTTPPort and TLSPort are where validation connects; 80 and 443 if zero.
	HTTPPort, TLSPort int
	// Database is a PostgreSQL DSN; empty means SQLite.
	Database string
}

// CA starts a CA that resolves names through 127.0.0.1:53 and stops it when
// the test ends.
func (w *World) CA(o Options) *CA {
	w.Helper()
	if o.HTTPPort == 0 {
		o.HTTPPort = 80
	}
	if o.TLSPort == 0 {
		o.TLSPort = 443
	}
	if Pebble {
		return w.pebble(o)
	}
	return w.chanceryd(o)
}

// listenAddr is where a test's CA listens: nobody else is in its network.
const listenAddr = "127.0.0.1:14000"

// chanceryd starts this repository's server, and reads the one line that it
// prints when it is ready.
func (w *World) chanceryd(o Options) *CA {
	w.Helper()
	args := []string{"demo", "--json", "--listen", listenAddr, "--dir", w.Mkdir("ca"),
		"--http-port", strconv.Itoa(o.HTTPPort), "--tls-port", strconv.Itoa(o.TLSPort),
		"--resolver", dnsAddr, "--allow", "127.0.0.0/8"}
	if o.Database != "" {
		args = append(args, "--database", o.Database)
	}
	var ready struct {
		Directories map[string]string
		Root, Admin string
		PID         int
	}
	c := w.Cmd(w.Tool("chanceryd"), args...)
	p := c.StartLine(func(line []byte) error { return json.Unmarshal(line, &ready) })
	if ready.PID != p.cmd.Process.Pid {
		w.Errorf("the ready line says pid %d, it is %d", ready.PID, p.cmd.Process.Pid)
	}
	if ready.Directories["servers"] == "" || ready.Directories["clients"] == "" {
		w.Fatalf("the ready line lacks a directory: %v", ready.Directories)
	}
	// The CA's folder is its own; clients that run as others read a copy.
	root := w.Write("root.pem", w.Read(ready.Root))
	return &CA{w: w, Directory: ready.Directories["servers"], Clients: ready.Directories["clients"],
		Root: root, TLSRoot: root, admin: ready.Admin}
}

// StartLine starts a server whose standard output is one line, and returns
// once that was read.
func (c *Cmd) StartLine(ready func(line []byte) error) *Proc {
	c.w.Helper()
	r, wr, err := os.Pipe()
	if err != nil {
		c.w.Fatal(err)
	}
	p := c.start(wr)
	_ = wr.Close() // the child has its own copy
	_ = r.SetReadDeadline(time.Now().Add(runLimit))
	in := bufio.NewReader(r)
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = ready(line)
	}
	if err != nil {
		c.w.Fatalf("%s: %v; it printed %q", p.name, err, line)
	}
	c.w.Cleanup(func() { // before the server is stopped: cleanups run last first
		_ = r.SetReadDeadline(time.Now())
		if rest, _ := io.ReadAll(in); len(bytes.TrimSpace(rest)) > 0 {
			c.w.Errorf("%s printed more than its one line: %q", p.name, rest)
		}
		_ = r.Close()
	})
	return p
}

// EAB makes an external account binding key of the directory for servers.
func (ca *CA) EAB() (kid, hmac string) {
	ca.w.Helper()
	if Pebble {
		ca.eabs++
		return "kid-" + strconv.Itoa(ca.eabs), pebbleEAB
	}
	return ca.NewEAB("--directory", "servers")
}

// NewEAB makes an external account binding key with options of `chancery admin
// eab create`.
func (ca *CA) NewEAB(options ...string) (kid, hmac string) {
	ca.w.Helper()
	out := ca.Admin(append([]string{"eab", "create"}, options...)...)
	var key struct {
		KID  string `json:"kid"`
		HMAC string `json:"hmac_key"`
	}
	if err := json.Unmarshal([]byte(out), &key); err != nil || key.KID == "" || key.HMAC == "" {
		ca.w.Fatalf("chancery admin eab create printed %q (%v)", out, err)
	}
	return key.KID, key.HMAC
}

// pebbleEAB is the key of all of Pebble's bindings here.
const pebbleEAB = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

// pebble starts Pebble as a stand-in: short certificates, no artificial delays.
func (w *World) pebble(o Options) *CA {
	w.Helper()
	root, cert, key := w.httpsCert()
	eabs := map[string]string{}
	for i := range 9 {
		eabs["kid-"+strconv.Itoa(i+1)] = pebbleEAB
	}
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listenAddr, "managementListenAddress": "127.0.0.1:15000",
		"certificate": cert, "privateKey": key, "httpPort": o.HTTPPort, "tlsPort": o.TLSPort,
		"externalAccountMACKeys": eabs, "retryAfter": map[string]int{"authz": 1, "order": 1},
		"keyAlgorithm": "ecdsa",
		"profiles":     map[string]any{"default": map[string]any{"description": "a day", "validityPeriod": 86400}},
	}})
	if err != nil {
		w.Fatal(err)
	}
	p := w.Cmd(w.Tool("pebble"), "-config", w.Write("pebble.json", string(conf)), "-dnsserver", dnsAddr).
		Env("PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0").Start()
	p.Listens(listenAddr).Listens("127.0.0.1:15000")
	issued := w.httpGet(root, "https://127.0.0.1:15000/roots/0")
	return &CA{w: w, Directory: "https://" + listenAddr + "/dir", TLSRoot: root,
		Root: w.Write("pebble-root.pem", issued)}
}

// Ours ends the test when the server is Pebble, which is known not to do what
// the test asks.
func (w *World) Ours(why string) {
	if Pebble {
		w.Helper()
		w.Skip("Pebble: " + why)
	}
}

// FreePort is a TCP port of 127.0.0.1 that nothing listens on.
func (w *World) FreePort() int {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Postgres starts PostgreSQL as the user postgres in the scratch folder and
// returns its DSN.
func (w *World) Postgres() string {
	w.Helper()
	dir := w.Mkdir("postgres")
	uid, gid := w.user("postgres")
	if err := os.Chown(dir, uid, gid); err != nil {
		w.Fatal(err)
	}
	bin := w.Glob("/usr/lib/postgresql/*/bin/postgres")
	as := func(c *Cmd) *Cmd {
		c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return c
	}
	as(w.Cmd(filepath.Join(filepath.Dir(bin), "initdb"), "-D", dir+"/data", "-U", "ca", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")).OK()
	as(w.Cmd(bin, "-D", dir+"/data", "-c", "listen_addresses=127.0.0.1", "-c", "port=5432", "-c", "unix_socket_directories="+dir)).
		Start().Says("ready to accept connections")
	return "postgres://ca@127.0.0.1:5432/postgres?sslmode=disable"
}

// InitCA makes a CA as its operators do, by init, check and serve. edit
// changes the configuration file that init wrote; options are more of init's.
func (w *World) InitCA(edit func(string) string, options ...string) *CA {
	w.Helper()
	dir, socket := w.Path("ca"), w.Path("admin.sock")
	w.Run(w.Tool("chanceryd"), append(append([]string{"init", "--name", "E2E", "--dns", "ca.test"}, options...), dir)...)
	file := dir + "/chancery.yaml"
	conf := w.Replace(w.Read(file),
		`external_url: "https://ca.test"`, `external_url: "https://ca.test:14000"`,
		`# listen: ":443"`, `listen: "`+listenAddr+`"`,
		`socket: "/run/chancery/admin.sock"`, `socket: "`+socket+`"`)
	if err := os.WriteFile(file, []byte(edit(conf)), 0o600); err != nil {
		w.Fatal(err)
	}
	w.Run(w.Tool("chanceryd"), "check", file)
	// The passphrase of the root's key was printed; the key itself goes away
	// here as init said.
	if err := os.Remove(dir + "/root/root.key"); err != nil {
		w.Fatal(err)
	}
	w.Cmd(w.Tool("chanceryd"), "serve", file).Start().Listens(listenAddr)
	root := w.Write("root.pem", w.Read(dir+"/roots.pem"))
	const base = "https://ca.test:14000/acme/"
	return &CA{w: w, Directory: base + "servers/directory", Clients: base + "clients/directory", Root: root, TLSRoot: root, admin: socket}
}

// Replace makes replacements in a text, old and new in turn; each old must be
// there.
func (w *World) Replace(text string, oldnew ...string) string {
	w.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			w.Fatalf("%q is not in:\n%s", oldnew[i], text)
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	return text
}

// Admin runs `chancery admin` and returns what it printed as JSON.
func (ca *CA) Admin(args ...string) string {
	ca.w.Helper()
	return ca.w.Run(ca.w.Tool("chancery"), append([]string{"admin", "--socket", ca.admin, "--json"}, args...)...)
}
