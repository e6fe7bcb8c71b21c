//go:build pcsc && cgo

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	adminapi "github.com/chancery-pki/chancery/internal/admin"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// TestDevices runs testdata/devices/*.txtar against two CAs: east on a unix
// socket, west over mutual TLS with an operator's certificate, and a soft card
// behind the real pcscd. Beside testscript's own commands there are
//
//	away CA, back CA     stops and starts a CA
//	touched, untouched   says whether somebody touches the card
//	hold CA SLOT URL     gives the device a certificate, with a CRL if URL isn't "-"
func TestDevices(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/devices",
		Setup: startFleet,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"away": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(ts.Value(args[0]).(*oneCA).stop()) },
			"back": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(ts.Value(args[0]).(*oneCA).start()) },
			"touched": func(ts *testscript.TestScript, neg bool, _ []string) {
				ts.Value("card").(*softcard.Card).SetTouched(!neg)
			},
			"keep": keep,
			"hold": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Value(args[0]).(*oneCA).hold(args[1], args[2]))
			},
			"usage": usage,
		},
	})
}

// oneCA is one CA's admin API, and what it knows.
type oneCA struct {
	db      *store.DB
	admin   *adminapi.Server
	address string   // of the socket or host:port
	pki     *testPKI // nil: a socket
	server  *http.Server
}

// chains is an issuer that only knows what stands above its certificates:
// nothing.
type chains struct{ ca.Issuer }

func (chains) Chain(string, int) ([][]byte, int, error) { return nil, 1, nil }

// newCA makes one that believes the maker's devices.
func newCA(ctx context.Context, path string, maker *softcard.Maker) (*oneCA, error) {
	db, err := store.Open(ctx, store.Options{DSN: path})
	if err != nil {
		return nil, err
	}
	authority := ca.New(ca.Options{DB: db, Issuers: map[string]ca.Issuer{"people": chains{}}, Directories: map[string]*ca.Directory{"people": {Policy: policy.Directory{Name: "people"}}}})
	console := operator.New(authority, db, nil)
	console.Enrolment = func() operator.Enrolment { return operator.Enrolment{Issuers: maker.Issuers()} }
	return &oneCA{db: db, admin: &adminapi.Server{Console: console, Version: "test", Logger: slog.New(slog.DiscardHandler)}}, nil
}

// hold records a certificate of the device in a slot.
func (c *oneCA) hold(slot, crl string) error {
	all, err := c.db.Devices(context.Background(), store.DeviceFilter{Serial: 4711})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(d protocol.Device) bool { return d.Slot == slot })
	if i < 0 {
		return fmt.Errorf("no device in slot %s", slot)
	}
	pki, err := newTestPKI("")
	if err != nil {
		return err
	}
	template := &x509.Certificate{DNSNames: []string{"alice.people.example"}}
	if crl != "-" {
		template.CRLDistributionPoints = []string{crl}
	}
	leaf, err := pki.sign(template, pki.caKey, pki.ca)
	if err != nil {
		return err
	}
	return c.record(leaf, "people", all[i].Subject())
}

// record makes a certificate one that the CA issued.
func (c *oneCA) record(leaf *x509.Certificate, profile, subject string) error {
	return c.db.Update(context.Background(), func(tx *store.Tx) error {
		return tx.InsertCertificate(cert.Certificate{
			Serial: cert.SerialOf(leaf.SerialNumber), State: cert.Issued, Issuer: "people", Profile: profile, Directory: "people", DER: leaf.Raw,
			Subject: subject, Names: []protocol.Identifier{{Type: protocol.DNS, Value: leaf.DNSNames[0]}},
			KeyHash: strings.Repeat("0a", 32), IssuerKeyID: "aa", NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, PlannedAt: leaf.NotBefore,
		}, time.Time{})
	})
}

// admit makes the PKI's certificate an administrator's.
func (c *oneCA) admit(pki *testPKI) error {
	c.pki = pki
	d := protocol.Device{ID: "admin", Owner: "admin", State: protocol.DeviceActive, Key: []byte{1}, KeyHash: strings.Repeat("ab", 32), Serial: 1, Slot: "9a", EnrolledAt: time.Now(),
		Identities: protocol.Identities{Names: pki.operator.DNSNames}}
	if err := c.db.Update(context.Background(), func(tx *store.Tx) error { return tx.InsertDevice(d) }); err != nil {
		return err
	}
	return c.record(pki.operator, "operator", d.Subject())
}

func (c *oneCA) start() error {
	if c.pki == nil {
		l, err := adminapi.Listen(c.address)
		if err != nil {
			return err
		}
		c.server = c.admin.HTTPServer()
		go c.server.Serve(l)
		return nil
	}
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		return err
	}
	c.address = l.Addr().String()
	access := adminapi.Access{
		Grants:  []operator.Grant{{Issuer: "people", Profile: "operator", Name: c.pki.operator.DNSNames[0], Role: operator.Administrator}},
		Issuers: x509.NewCertPool(),
	}
	access.Issuers.AddCert(c.pki.ca)
	own := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.pki.own, nil }
	c.server = c.admin.TLSServer(operator.NewGate(c.db, nil), own, func() adminapi.Access { return access })
	go c.server.ServeTLS(l, "", "")
	return nil
}

func (c *oneCA) stop() error { return c.server.Close() }

// startFleet makes the CAs, the card and the settings of one script.
func startFleet(e *testscript.Env) error {
	dir, card, err := insertCard(e)
	if err != nil {
		return err
	}
	return addCAs(e, dir, card.Maker())
}

// insertCard makes a card in a reader of the script's own, its PIN in a file
// and a folder for sockets.
func insertCard(e *testscript.Env) (dir string, card *softcard.Card, err error) {
	if dir, err = os.MkdirTemp("", "chancery-"); err != nil { // $WORK is too long for a socket
		return "", nil, err
	}
	e.Defer(func() { os.RemoveAll(dir) })
	readers, err := reader.Start(dir, 1)
	if err != nil {
		return "", nil, err
	}
	e.Defer(func() { readers.Close() })
	if card, err = softcard.New(softcard.Options{Serial: 4711}); err != nil {
		return "", nil, err
	}
	if err := readers.Insert(0, card); err != nil {
		return "", nil, err
	}
	e.Values["card"] = card
	e.Vars = append(e.Vars, readers.Env()...)
	return dir, card, os.WriteFile(filepath.Join(e.WorkDir, "pin"), []byte(softcard.DefaultPIN+"\n"), 0o600)
}

// addCAs starts east and west and writes the settings.
func addCAs(e *testscript.Env, dir string, maker *softcard.Maker) error {
	pki, err := newTestPKI(e.WorkDir)
	if err != nil {
		return err
	}
	east, err := newCA(context.Background(), filepath.Join(dir, "east.db"), maker)
	if err != nil {
		return err
	}
	west, err := newCA(context.Background(), filepath.Join(dir, "west.db"), maker)
	if err != nil {
		return err
	}
	east.address, west.address = filepath.Join(dir, "east.sock"), pki.host+":8444"
	if err := west.admit(pki); err != nil {
		return err
	}
	for name, ca := range map[string]*oneCA{"east": east, "west": west} {
		if err := ca.start(); err != nil {
			return err
		}
		e.Values[name] = ca
		e.Defer(func() {
			ca.stop()
			ca.db.Close()
		})
	}
	e.Setenv("EAST", east.address)
	e.Setenv("WEST", "https://"+west.address)
	e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
	e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
	settings := filepath.Join(e.WorkDir, "config", "chancery", "config.yaml")
	if err := os.MkdirAll(filepath.Dir(settings), 0o700); err != nil {
		return err
	}
	return os.WriteFile(settings, fmt.Appendf(nil, `cas:
  - {name: east, directory: "https://east.internal/acme/people/directory", admin: "unix:%s"}
  - {name: west, directory: "https://west.internal/acme/people/directory", roots: %q, admin: "https://%s"}
  - {name: north, directory: "https://north.internal/acme/people/directory"}
operator:
  certificate: %q
  key: %q
`, east.address, pki.root, west.address, pki.certificate, pki.key), 0o600)
}

// testPKI is a root that signs the server and one operator.
type testPKI struct {
	root, certificate, key string // files
	host                   string // the server's address
	ca                     *x509.Certificate
	caKey                  *ecdsa.PrivateKey
	own                    tls.Certificate
	operator               *x509.Certificate
}

func newTestPKI(dir string) (*testPKI, error) {
	p := &testPKI{host: loopback(), root: filepath.Join(dir, "root.pem"), certificate: filepath.Join(dir, "operator.pem"), key: filepath.Join(dir, "operator.key")}
	var err error
	if p.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if p.ca, err = p.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "Test Root"}, IsCA: true, BasicConstraintsValid: true}, p.caKey, nil); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	server, err := p.sign(&x509.Certificate{IPAddresses: []net.IP{net.ParseIP(p.host)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, key, p.ca)
	if err != nil {
		return nil, err
	}
	p.own = tls.Certificate{Certificate: [][]byte{server.Raw}, PrivateKey: key}
	p.operator, err = p.sign(&x509.Certificate{DNSNames: []string{"alice-admin.internal"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, key, p.ca)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return p, nil
	}
	return p, errors.Join(
		os.WriteFile(p.root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}), 0o600),
		os.WriteFile(p.certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.operator.Raw}), 0o600),
		os.WriteFile(p.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// sign makes a certificate for an hour; above nil: self-signed.
func (p *testPKI) sign(c *x509.Certificate, key *ecdsa.PrivateKey, above *x509.Certificate) (*x509.Certificate, error) {
	if above == nil {
		above = c
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = serial.SetBit(serial, 120, 1), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, above, key.Public(), p.caKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
