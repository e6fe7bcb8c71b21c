package config

import (
	"bytes"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// initial is what `chanceryd init` writes.
func initial() Example {
	return Example{
		Name: "Example", ExternalURL: "https://ca.internal", Database: "chancery.db", AdminSocket: "admin.sock",
		Metrics: "127.0.0.1:9402", Allow: []string{"*.internal"},
		Issuers: []ExampleIssuer{
			{Name: "servers", Profile: "server", Usage: cert.Server, Signers: []Signer{{Key: "file:ca/servers.key", Certificate: "ca/servers.pem"}}},
			{Name: "clients", Profile: "client", Usage: cert.Client, Signers: []Signer{{Key: "file:ca/clients.key", Certificate: "ca/clients.pem"}}},
		},
	}
}

func write(t *testing.T, e Example) *Config {
	t.Helper()
	var b bytes.Buffer
	if err := e.Write(&b); err != nil {
		t.Fatal(err)
	}
	return parse(t, b.String())
}

func TestExampleIsWithoutFault(t *testing.T) {
	withSSH := initial()
	withSSH.SSH, withSSH.Publish, withSSH.PublishURL = true, ":8080", "http://ca.internal:8080"
	if found := Check(write(t, withSSH)); len(found) > 0 {
		t.Error(found)
	}
	both := initial()
	both.Issuers = append(both.Issuers,
		ExampleIssuer{Name: "servers-rsa", Profile: "server-rsa", Usage: cert.Server, Chain: "ca/chain.pem", Chains: []string{"ca/a.pem", "ca/b.pem"},
			Signers: []Signer{{Key: "file:ca/servers-rsa.key", Certificate: "ca/servers-rsa.pem", PasswordFile: "ca/password"}, {Key: "file:ca/2.key", Certificate: "ca/2.pem"}}},
		ExampleIssuer{Name: "clients-rsa", Profile: "client-rsa", Usage: cert.Client, Signers: []Signer{{Key: "file:ca/clients-rsa.key", Certificate: "ca/clients-rsa.pem"}}})
	odd := initial()
	odd.Name, odd.Database, odd.Metrics, odd.Listen = "A \"quoted\"\nname: #1", "C:\\a b\\\"x\".db", "", "10.0.0.1:8443"
	for name, e := range map[string]Example{"plain": initial(), "both key types": both, "odd": odd} {
		c := write(t, e)
		if found := Check(c); len(found) > 0 {
			t.Errorf("%s: %v", name, found.Error())
		}
		if c.Database.DSN != e.Database || len(c.Issuers) != len(e.Issuers) || len(c.Profiles) != len(e.Issuers) || len(c.Directories) != 2 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	c := write(t, both)
	if got := c.Issuers["servers-rsa"]; got.Chain != "ca/chain.pem" || len(got.AlternateChains) != 2 || len(got.Signers) != 2 || got.Signers[0].PasswordFile != "ca/password" {
		t.Errorf("%+v", got)
	}
	if got := c.Directories["servers"].Profiles; strings.Join(got, " ") != "server server-rsa" {
		t.Error(got)
	}
	d, err := write(t, initial()).Directory("clients")
	if err != nil || !d.EABRequired || len(d.Challenges) != 0 || d.Names.Wildcards {
		t.Errorf("the clients' directory must ask for EAB keys: %+v, %v", d, err)
	}
}

func TestExampleForDemo(t *testing.T) {
	e := initial()
	e.Allow, e.Wildcards, e.NoRateLimits, e.OpenClients, e.Workloads = []string{"*"}, true, true, true, true
	e.HTTPPort, e.TLSPort, e.Resolvers, e.Networks = 5002, 5001, []string{"127.0.0.1:5353"}, []string{"127.0.0.0/8", "::1/128"}
	c := write(t, e)
	found := Check(c)
	if len(found.Errors()) > 0 || len(found) != 3 { // the three classic types for clients
		t.Error(found.Error())
	}
	for _, name := range []string{"servers", "clients", "workloads"} {
		d, err := c.Directory(name)
		if both := name == "workloads"; d.EKUFromCSR != both || (len(d.Profiles) == 2) != both {
			t.Errorf("%+v", d)
		}
		if err != nil || d.EABRequired || !d.Names.Permits(protocol.Identifier{Type: protocol.DNS, Value: "*.x"}) || len(d.Challenges) != 3 {
			t.Errorf("%+v, %v", d, err)
		}
		v := c.Directories[name].Validation
		if v.HTTPPort != 5002 || v.TLSPort != 5001 || len(v.Resolvers) != 1 || len(v.Allow) != 2 {
			t.Errorf("%+v", v)
		}
		l := c.Limits(name)
		if !l.OrdersPerAccount.Off || !l.NewAccountsPerAddress.Off || !l.OrdersPerClient.Off || !l.CertificatesPerName.Off || !l.FailedValidationsPerAccount.Off || !l.AccountsPerPod.Off {
			t.Errorf("%+v", l)
		}
	}
}

// What `init --kubernetes` writes: pods prove themselves in a directory of their
// own, by nothing else, for both usages; everything else asks for an EAB key or
// proves a server's name.
func TestExampleForKubernetes(t *testing.T) {
	e := initial()
	e.Kubernetes, e.Allow = "cluster.local", []string{"*.cluster.local"}
	c := write(t, e)
	if found := Check(c); len(found) > 0 {
		t.Error(found.Error())
	}
	if c.Clusters["local"].Domain != "cluster.local" || c.Directories["workloads"].Kubernetes.Cluster != "local" {
		t.Errorf("%+v", c.Clusters)
	}
	for name, want := range map[string]struct {
		challenges, profiles int
		eab, eku             bool
	}{"servers": {3, 1, false, false}, "clients": {0, 1, true, false}, "workloads": {1, 2, false, true}, "legacy": {3, 2, true, true}} {
		d, err := c.Directory(name)
		if err != nil || len(d.Challenges) != want.challenges || len(d.Profiles) != want.profiles || d.EABRequired != want.eab || d.EKUFromCSR != want.eku {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	if d, err := c.Directory("workloads"); err != nil || d.Challenges[0] != protocol.Kubernetes01 {
		t.Errorf("%+v, %v", d, err)
	}
}
