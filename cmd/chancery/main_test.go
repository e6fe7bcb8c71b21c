package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/mtls/acme"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"chancery": main, // with its signals
	})
}

// TestScripts runs testdata/*.txtar against one real server each. Beside
// testscript's own commands, and `exec chancery`, there are
//
//	admin ARGS                 is `chancery admin ARGS` in this process, which is quicker
//	issue NAME [contact]       gets a certificate; sets $SERIAL and $ACCOUNT
//	register DIRECTORY KID MAC registers an account with an EAB key
//	keep NAME REGEXP           keeps what the group matches of stdout in $NAME
//	usage ARGS                 runs chancery with bad usage: exit code 2 and one line
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			d, err := startDemo(e)
			if err != nil {
				return err
			}
			e.Values["demo"] = d
			e.Setenv("CHANCERY_ADMIN", d.Admin)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"admin": admin, "issue": issue, "register": register, "keep": keep, "usage": usage},
	})
}

// demo is a server of this process.
type demo struct {
	Directories map[string]string `json:"directories"`
	Root        string            `json:"root"`
	Admin       string            `json:"admin"`
	http        *http.Client
	solver      acme.HTTP01Solver
}

func startDemo(e *testscript.Env) (*demo, error) {
	answers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "chancery-") // $WORK is too long for a socket
	if err != nil {
		return nil, err
	}
	out, in := io.Pipe()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := setup.Demo{
			Dir: dir, Listen: "127.0.0.1:0", JSON: true, Out: in, Logger: slog.New(slog.DiscardHandler),
			HTTPPort: answers.Addr().(*net.TCPAddr).Port,
		}.Run(ctx)
		in.CloseWithError(err)
		ended <- err
	}()
	d := new(demo)
	server := &http.Server{Handler: &d.solver}
	go server.Serve(answers)
	e.Defer(func() {
		stop()
		if err := <-ended; err != nil {
			e.T().Log(err)
		}
		server.Close()
		os.RemoveAll(dir)
	})
	if err := json.NewDecoder(out).Decode(d); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(d.Root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	return d, nil
}

// client is one with a new key.
func (d *demo) client(ts *testscript.TestScript, directory string) *acme.Client {
	return &acme.Client{DirectoryURL: d.Directories[directory], Key: newKey(ts), HTTPClient: d.http}
}

func newKey(ts *testscript.TestScript) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	return k
}

func admin(ts *testscript.TestScript, neg bool, args []string) {
	args = append([]string{"admin", "--socket", ts.Value("demo").(*demo).Admin}, args...)
	code := run(context.Background(), args, ts.Stdout(), ts.Stderr())
	if neg && code != 1 || !neg && code != 0 {
		ts.Fatalf("exit code %d", code)
	}
}

func issue(ts *testscript.TestScript, _ bool, args []string) {
	d := ts.Value("demo").(*demo)
	c := d.client(ts, "servers")
	account, err := c.Register(context.Background(), acme.Registration{TermsAgreed: true, Contact: args[1:]})
	ts.Check(err)
	chain, err := c.Obtain(context.Background(), acme.ObtainRequest{
		Order: acme.OrderRequest{Identifiers: acme.Identifiers(args[0])}, Key: newKey(ts), Solvers: []acme.Solver{&d.solver},
	})
	ts.Check(err)
	leaf, err := x509.ParseCertificate(chain.DER[0])
	ts.Check(err)
	ts.Setenv("SERIAL", string(cert.SerialOf(leaf.SerialNumber)))
	ts.Setenv("ACCOUNT", account.URL[strings.LastIndexByte(account.URL, '/')+1:])
}

func register(ts *testscript.TestScript, neg bool, args []string) {
	mac, err := base64.RawURLEncoding.DecodeString(args[2])
	ts.Check(err)
	c := ts.Value("demo").(*demo).client(ts, args[0])
	_, err = c.Register(context.Background(), acme.Registration{TermsAgreed: true, EAB: &acme.ExternalAccount{KeyID: args[1], MACKey: mac}})
	switch {
	case neg && err == nil:
		ts.Fatalf("it was taken")
	case !neg:
		ts.Check(err)
	}
}

func keep(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("nothing matches %s", args[1])
	}
	ts.Setenv(args[0], found[1])
}

func usage(ts *testscript.TestScript, _ bool, args []string) {
	var out, err strings.Builder
	if code := run(context.Background(), args, &out, &err); code != 2 || out.Len() > 0 || strings.Count(err.String(), "\n") != 1 {
		ts.Fatalf("%v: exit code %d, on standard output %q, on standard error %q", args, code, out.String(), err.String())
	}
}
