package catest_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

// stranger is a peer that uses crypto/tls alone, as a server or as a client.
func stranger(c tls.Certificate, roots *x509.CertPool, now func() time.Time) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c}, RootCAs: roots, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
		ServerName: "web.test", Time: now}
}

// While a root is replaced, peers who know the old one, the new one or both
// accept our server and our client, as soon as we know both.
func TestPeersWhileRootRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := catest.New(t, catest.InMemory())
		old := ca.Roots()
		file := filepath.Join(t.TempDir(), "roots.pem")
		publish := func() {
			if err := os.WriteFile(file, ca.RootPEM(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		publish()
		c := ca.Config("web.test")
		roots := []mtls.Roots{mtls.RootsFile(file)}
		c.Trust = trusting(t, mtls.TrustConfig{Servers: roots, Clients: roots, Clock: c.Clock})
		id := run(t, c)
		check := func(when, who string, pool *x509.CertPool) {
			t.Helper()
			peer := stranger(ca.Issue(mtls.UsageBoth, "web.test"), pool, ca.Clock().Now)
			if _, err := dial(t, id.Server(acl.Allow("web.test")), peer); err != nil {
				t.Errorf("%s: our server, for a client who trusts %s: %v", when, who, err)
			}
			if _, err := dial(t, peer, id.ClientTo("web.test")); err != nil {
				t.Errorf("%s: our client, for a server who trusts %s: %v", when, who, err)
			}
		}
		check("before", "the root", old)
		ca.Rotate()
		check("under another issuing CA", "the root", old)
		time.Sleep(20 * time.Hour)
		check("under another issuing CA, renewed", "the root", old)

		ca.RotateRoot()
		publish()
		fresh := x509.NewCertPool()
		_, rest := pem.Decode(ca.RootPEM())
		fresh.AppendCertsFromPEM(rest)
		time.Sleep(2 * time.Minute) // the file is looked at once a minute
		check("certified by the old root", "the old root", old)
		check("certified by the old root", "both roots", ca.Roots())
		time.Sleep(20 * time.Hour)
		check("certified by the new root", "the old root", old)
		check("certified by the new root", "the new root", fresh)
		check("certified by the new root", "both roots", ca.Roots())
	})
}

// A peer whose certificate was revoked is refused as soon as the last answer
// about it has ended; both say so, OCSP and the CRL.
func TestRevokedPeer(t *testing.T) {
	for _, tc := range []struct {
		name  string
		check mtls.Check
	}{{"OCSP", mtls.CheckOCSP}, {"CRL", mtls.CheckCRL}} {
		t.Run(tc.name, func(t *testing.T) {
			ca := catest.New(t, catest.WithRevocation(), catest.StoppedAt(noon))
			c := ca.Config("web.test")
			roots := []mtls.Roots{mtls.RootsPool(ca.Roots())}
			c.Trust = trusting(t, mtls.TrustConfig{Servers: roots, Clients: roots, Clock: c.Clock, Logger: quiet, Revocation: mtls.Revocation{Check: tc.check, Hard: true}})
			id := run(t, c)
			rules := acl.Allow("batch.test")
			bad, good := ca.Issue(mtls.UsageClient, "batch.test"), ca.Issue(mtls.UsageClient, "batch.test")
			meet := func(c tls.Certificate) error {
				_, err := dial(t, id.Server(rules), stranger(c, ca.Roots(), ca.Clock().Now))
				return err
			}
			for _, c := range []tls.Certificate{bad, good} {
				if err := meet(c); err != nil {
					t.Fatal(err)
				}
			}
			ca.Revoke(bad.Leaf)
			ca.Advance(2 * time.Hour)
			tells(t, "the revoked", meet(bad), "revoked")
			if err := meet(good); err != nil {
				t.Error(err)
			}
			if !strings.Contains(id.log.String(), "was revoked") {
				t.Errorf("the log doesn't say it: %s", id.log)
			}
			// Nothing can be found out any more: Hard refuses.
			ca.Down()
			ca.Advance(2 * time.Hour)
			tells(t, "without an answer", meet(good), "batch.test")
		})
	}
}

// A server staples, so that a client may demand it; once its certificate is
// revoked, it has another within the hour.
func TestStapling(t *testing.T) {
	ca := catest.New(t, catest.WithRevocation(), catest.StoppedAt(noon))
	id := run(t, ca.Config("web.test"))
	c := ca.Config("batch.test")
	roots := []mtls.Roots{mtls.RootsPool(ca.Roots())}
	c.Trust = trusting(t, mtls.TrustConfig{Servers: roots, Clock: c.Clock, Revocation: mtls.Revocation{Check: mtls.CheckStaple}})
	c.Usage = mtls.UsageClient
	client := run(t, c)
	_, err := dial(t, stranger(ca.Issue(mtls.UsageServer, "web.test"), ca.Roots(), ca.Clock().Now), client.ClientTo("web.test"))
	tells(t, "a server without a staple", err, "staple")
	meet := func() *x509.Certificate {
		t.Helper()
		got, err := dial(t, id.Server(acl.Allow("batch.test")), client.ClientTo("web.test"))
		if err != nil {
			t.Fatalf("%v\n%s", err, id.log)
		}
		return got.shown()
	}
	old := meet()
	ca.Revoke(old)
	ca.Advance(time.Hour)
	for end := time.Now().Add(10 * time.Second); ; {
		got, err := dial(t, id.Server(acl.Allow("batch.test")), client.ClientTo("web.test"))
		if err == nil && !got.shown().Equal(old) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no other certificate: %v\n%s", err, id.log)
		}
	}
	ca.Revoke(meet()) // the new one, which nobody revoked yet
}

// The ACL's file changes while the program runs: the next connection obeys,
// one with a resumed session too, and so does the next request.
func TestRulesChange(t *testing.T) {
	ca := catest.New(t)
	file := filepath.Join(t.TempDir(), "rules")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	put("allow batch.test # the nightly job\n")
	rules, err := acl.Open(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := ca.Config("web.test")
	var shaken []mtls.Handshake // one at a time
	c.Hooks.Shaken = func(h mtls.Handshake) { shaken = append(shaken, h) }
	id := run(t, c)
	server := id.Server(rules)
	server.SessionTicketsDisabled = false
	client := run(t, ca.Config("batch.test")).ClientTo("web.test")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, step := range []struct {
		rules   string
		resumed string // "": after a refusal the client may have forgotten its ticket, or not
		denied  bool
	}{
		{"allow batch.test\n", "false", false},
		{"allow batch.test\n", "true", false},
		{"allow other.test\n", "true", true},
		{"allow other.test\nallow *.test\n", "", false},
		{"allow *.test\ndeny batch.test\n", "true", true},
		{"allow batch.test is not\n", "", true}, // a fault: the last good ones hold
	} {
		put(step.rules)
		got, err := dial(t, server, client)
		if err == nil {
			got.talk(t) // the ticket comes with it
		}
		last := shaken[len(shaken)-1]
		if (err != nil) != step.denied || (last.Err != nil) != step.denied || step.resumed != "" && step.resumed != strconv.FormatBool(last.Resumed) {
			t.Errorf("%q: %v, %+v", step.rules, err, last)
		}
		if step.denied && !strings.Contains(id.log.String(), "batch.test") {
			t.Errorf("%q: the log doesn't say who was denied: %s", step.rules, id.log)
		}
	}
}

// A service shows the world a public CA's certificate, and demands clients of
// the private PKI; being a client there is all that it is itself.
func TestPublicCertificate(t *testing.T) {
	private := catest.New(t)
	public := catest.New(t, private.Clock())
	c := private.Config("web.test")
	c.Usage = mtls.UsageClient
	id := run(t, c)
	server := id.Server(acl.Allow("*.partners.test"))
	shown := public.Issue(mtls.UsageServer, "www.test")
	server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &shown, nil }

	partner := private.Config("a.partners.test")
	partner.Trust = trusting(t, mtls.TrustConfig{Servers: []mtls.Roots{mtls.RootsPEM(public.RootPEM())}, Clock: private.Clock()})
	partner.Usage = mtls.UsageClient
	got, err := dial(t, server, run(t, partner).ClientTo("www.test"))
	if err != nil {
		t.Fatal(err)
	}
	got.talk(t)
	for _, tc := range []struct {
		who  string
		cert tls.Certificate
		want string
	}{
		{"a client of the public CA", public.Issue(mtls.UsageClient, "a.partners.test"), "isn't trusted for clients"},
		{"another client", private.Issue(mtls.UsageClient, "b.test"), "no rule"},
		{"a server's certificate", private.Issue(mtls.UsageServer, "a.partners.test"), "isn't for a client"},
		{"nobody", tls.Certificate{}, "showed no certificate"},
	} {
		client := stranger(tc.cert, public.Roots(), private.Clock().Now)
		client.ServerName, client.GetClientCertificate = "www.test", func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.cert, nil }
		_, err := dial(t, server, client)
		tells(t, tc.who, err, tc.want)
		if !strings.Contains(id.log.String(), tc.want) {
			t.Errorf("%s: not in the log: %s", tc.who, id.log)
		}
	}
	// The private PKI's clients don't take what the public CA says for theirs.
	_, err = dial(t, server, run(t, private.Config("a.partners.test")).ClientTo("www.test"))
	tells(t, "a client who trusts the private PKI's servers only", err, "isn't trusted for servers")
}
