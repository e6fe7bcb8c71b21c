package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

const day = 24 * time.Hour

var (
	serverProfile = cert.Profile{Name: "server", Usages: []cert.Usage{cert.Server}, Lifetime: day, MaxLifetime: 7 * day, Backdate: time.Minute,
		Challenges: []protocol.ChallengeType{protocol.HTTP01, protocol.DNS01, protocol.TLSALPN01}}
	clientProfile = cert.Profile{Name: "client", Usages: []cert.Usage{cert.Client}, Lifetime: day, MaxLifetime: day}
	bothProfile   = cert.Profile{Name: "both", Usages: []cert.Usage{cert.Server, cert.Client}, Lifetime: day, MaxLifetime: day,
		Challenges: []protocol.ChallengeType{protocol.DNS01}}
)

func directory(t *testing.T) Directory {
	return Directory{
		Name:           "main",
		Profiles:       []cert.Profile{bothProfile, serverProfile, clientProfile},
		DefaultProfile: "server",
		Challenges:     []protocol.ChallengeType{protocol.HTTP01, protocol.TLSALPN01, protocol.DNS01},
		Names:          Names{Allow: set(t, "*.prod.internal", "prod.internal"), Deny: set(t, "vault.prod.internal")},
	}
}

func problem(t *testing.T, err error, want protocol.ProblemType) *protocol.Problem {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want %s", want)
	}
	p := protocol.AsProblem(err)
	if p.Type != want {
		t.Fatalf("problem %v; want %s", p, want)
	}
	return p
}

func TestCheckNames(t *testing.T) {
	d := directory(t)
	if err := d.Check([]protocol.Identifier{dns("a.prod.internal"), dns("prod.internal")}, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   protocol.Identifier
		says string
	}{
		{dns("example.com"), "ask the operator"},
		{dns("vault.prod.internal"), "ask the operator"},
		{dns("*.prod.internal"), "wildcard"},
		{ip("10.0.0.1"), "IP address"},
	} {
		// RFC 8555 section 6.7.1: the identifier stands in subproblems only.
		p := problem(t, d.Check([]protocol.Identifier{dns("a.prod.internal"), c.id}, nil), protocol.RejectedIdentifier)
		if p.Identifier != nil || len(p.Sub) != 1 || *p.Sub[0].Identifier != c.id || p.Sub[0].Type != protocol.RejectedIdentifier {
			t.Errorf("%v: %+v", c.id, p)
		}
		if !strings.Contains(p.Detail, c.says) || !strings.Contains(p.Detail, c.id.Value) {
			t.Errorf("%v: detail %q", c.id, p.Detail)
		}
	}
	p := problem(t, d.Check([]protocol.Identifier{dns("x.example"), dns("ok.prod.internal"), dns("y.example")}, nil), protocol.RejectedIdentifier)
	if len(p.Sub) != 2 || p.Sub[0].Identifier.Value != "x.example" || p.Sub[1].Identifier.Value != "y.example" {
		t.Errorf("subproblems %+v", p.Sub)
	}
}

// A stranger can't tell a denied name from one that was never allowed, and
// sees no pattern.
func TestCheckTellsNothingOfTheLists(t *testing.T) {
	d := directory(t)
	d.Names.Allow = set(t, "*.prod.internal", "*.hidden-domain.internal")
	text := func(v string) string {
		p := protocol.AsProblem(d.Check([]protocol.Identifier{dns(v)}, nil))
		return strings.ReplaceAll(p.Detail+p.Sub[0].Detail, v, "NAME")
	}
	denied, unlisted := text("vault.prod.internal"), text("a.example.com")
	if denied != unlisted {
		t.Errorf("denied: %q, unlisted: %q", denied, unlisted)
	}
	if strings.Contains(unlisted, "hidden") || strings.Contains(unlisted, "prod") {
		t.Errorf("leaks: %q", unlisted)
	}
}

func TestCheckCounts(t *testing.T) {
	d := directory(t)
	problem(t, d.Check(nil, nil), protocol.Malformed)
	many := slices.Repeat([]protocol.Identifier{dns("a.prod.internal")}, DefaultMaxIdentifiers+1)
	problem(t, d.Check(many, nil), protocol.Malformed)
	if err := d.Check(many[1:], nil); err != nil {
		t.Error(err)
	}
	d.MaxIdentifiers = 2
	problem(t, d.Check(many[:3], nil), protocol.Malformed)
}

// RFC 8555 section 7.3.4 and DESIGN section 5: an EAB key narrows, never widens.
func TestEABKey(t *testing.T) {
	d := directory(t)
	ids := func(v string) []protocol.Identifier { return []protocol.Identifier{dns(v)} }
	k := &protocol.EABKey{Directory: "main", Names: []string{"a.prod.internal", "*.example.com"}}
	if err := d.Check(ids("a.prod.internal"), k); err != nil {
		t.Error(err)
	}
	problem(t, d.Check(ids("b.prod.internal"), k), protocol.RejectedIdentifier)
	problem(t, d.Check(ids("x.example.com"), k), protocol.RejectedIdentifier) // the directory doesn't have it
	k.Names = nil
	if err := d.Check(ids("b.prod.internal"), k); err != nil {
		t.Error("a key without names may use the directory's:", err)
	}
	problem(t, d.Check(ids("a.prod.internal"), &protocol.EABKey{Directory: "other"}), protocol.Unauthorized)
	d.EABRequired = true
	problem(t, d.Check(ids("a.prod.internal"), nil), protocol.ExternalAccountRequired)
	problem(t, d.Admit(nil), protocol.ExternalAccountRequired)
	if err := d.Admit(k); err != nil {
		t.Error(err)
	}
}

func TestPreApproved(t *testing.T) {
	d := directory(t)
	d.Names.Wildcards = true
	for _, c := range []struct {
		name string
		eab  *protocol.EABKey
		id   string
		want bool
	}{
		{"listed", &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"a.prod.internal"}}, "a.prod.internal", true},
		{"below a suffix", &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"*.prod.internal"}}, "a.prod.internal", true},
		{"all of the directory's", &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"*"}}, "a.prod.internal", true},
		{"denied all the same", &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"*"}}, "vault.prod.internal", false},
		{"wildcard over a denied name", &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"*"}}, "*.prod.internal", false},
		{"wildcard", &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"*.a.prod.internal"}}, "*.a.prod.internal", true},
		{"not the directory's", &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"*"}}, "a.example.com", false},
		{"no names approve nothing", &protocol.EABKey{Directory: "main", PreApproved: true}, "a.prod.internal", false},
		{"not pre-approved", &protocol.EABKey{Directory: "main", Names: []string{"a.prod.internal"}}, "a.prod.internal", false},
		{"another directory's key", &protocol.EABKey{Directory: "other", PreApproved: true, Names: []string{"*"}}, "a.prod.internal", false},
		{"no key", nil, "a.prod.internal", false},
	} {
		if got := d.PreApproved(c.eab, dns(c.id)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestPickProfile(t *testing.T) {
	server, client := cert.Server, cert.Client
	only := func(names ...string) *protocol.EABKey { return &protocol.EABKey{Directory: "main", Profiles: names} }
	for _, c := range []struct {
		name      string
		requested string
		usage     *cert.Usage
		fromCSR   bool
		eab       *protocol.EABKey
		want      string
		problem   protocol.ProblemType
	}{
		{"default", "", nil, false, nil, "server", ""},
		{"by name", "client", nil, false, nil, "client", ""},
		{"unknown", "nope", nil, false, nil, "", protocol.InvalidProfile},
		{"by name, EKU ignored", "server", &client, true, nil, "server", ""},
		{"EKU ignored where not allowed", "", &client, false, nil, "server", ""},
		{"EKU client", "", &client, true, nil, "client", ""},
		{"EKU server", "", &server, true, nil, "server", ""},
		{"no EKU in the CSR", "", nil, true, nil, "server", ""},
		{"key forbids by name", "client", nil, false, only("server"), "", protocol.InvalidProfile},
		{"key forbids by EKU", "", &client, true, only("server"), "", protocol.BadCSR},
		{"key leaves the wider one", "", &client, true, only("both"), "both", ""},
		{"key excludes the default", "", nil, false, only("client"), "client", ""},
		{"key knows only lost profiles", "", nil, false, only("gone"), "", protocol.InvalidProfile},
	} {
		d := directory(t)
		d.EKUFromCSR = c.fromCSR
		p, err := d.PickProfile(c.requested, c.usage, c.eab)
		if c.problem != "" {
			if err == nil || protocol.AsProblem(err).Type != c.problem {
				t.Errorf("%s: %q, %v; want %s", c.name, p.Name, err, c.problem)
			}
		} else if err != nil || p.Name != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, p.Name, err, c.want)
		}
	}
}

func TestCandidates(t *testing.T) {
	names := func(ps []cert.Profile) (out []string) {
		for _, p := range ps {
			out = append(out, p.Name)
		}
		return out
	}
	for _, c := range []struct {
		requested string
		fromCSR   bool
		eab       *protocol.EABKey
		want      []string
	}{
		{"", false, nil, []string{"server"}},
		{"client", true, nil, []string{"client"}},
		{"", true, nil, []string{"both", "server", "client"}},
		{"", true, &protocol.EABKey{Profiles: []string{"client"}}, []string{"client"}},
		{"", true, &protocol.EABKey{Profiles: []string{"gone"}}, nil},
		{"gone", true, nil, nil},
	} {
		d := directory(t)
		d.EKUFromCSR = c.fromCSR
		ps, err := d.Candidates(c.requested, c.eab)
		if !slices.Equal(names(ps), c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("Candidates(%q, %v): %q, %v; want %q", c.requested, c.fromCSR, names(ps), err, c.want)
		}
	}
}

func TestOffered(t *testing.T) {
	d := directory(t)
	for _, c := range []struct {
		name     string
		profiles []cert.Profile
		id       protocol.Identifier
		want     []protocol.ChallengeType
	}{
		{"server", []cert.Profile{serverProfile}, dns("a.prod.internal"), []protocol.ChallengeType{protocol.HTTP01, protocol.TLSALPN01, protocol.DNS01}},
		{"wildcard: DNS only (RFC 8555 7.1.3)", []cert.Profile{serverProfile}, dns("*.prod.internal"), []protocol.ChallengeType{protocol.DNS01}},
		{"address: never DNS (RFC 8738 7)", []cert.Profile{serverProfile}, ip("10.0.0.1"), []protocol.ChallengeType{protocol.HTTP01, protocol.TLSALPN01}},
		{"client lists none", []cert.Profile{clientProfile}, dns("a.prod.internal"), nil},
		{"profile narrows", []cert.Profile{bothProfile}, dns("a.prod.internal"), []protocol.ChallengeType{protocol.DNS01}},
		{"either of two", []cert.Profile{bothProfile, clientProfile}, dns("a.prod.internal"), []protocol.ChallengeType{protocol.DNS01}},
		{"no way", []cert.Profile{bothProfile}, ip("10.0.0.1"), nil},
	} {
		if got := d.Offered(c.profiles, c.id); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestProvable(t *testing.T) {
	d := directory(t)
	ids := []protocol.Identifier{dns("a.prod.internal"), dns("b.prod.internal")}
	if err := d.Provable([]cert.Profile{serverProfile}, ids, nil); err != nil {
		t.Error(err)
	}
	p := problem(t, d.Provable([]cert.Profile{clientProfile}, ids, nil), protocol.RejectedIdentifier)
	if len(p.Sub) != 2 {
		t.Errorf("%+v", p)
	}
	k := &protocol.EABKey{Directory: "main", PreApproved: true, Names: []string{"a.prod.internal"}}
	p = problem(t, d.Provable([]cert.Profile{clientProfile}, ids, k), protocol.RejectedIdentifier)
	if len(p.Sub) != 1 || p.Sub[0].Identifier.Value != "b.prod.internal" {
		t.Errorf("%+v", p)
	}
	d.Challenges = []protocol.ChallengeType{protocol.HTTP01}
	p = problem(t, d.Provable([]cert.Profile{serverProfile}, []protocol.Identifier{dns("*.prod.internal")}, nil), protocol.RejectedIdentifier)
	if !strings.Contains(p.Detail, "wildcard") {
		t.Error(p.Detail)
	}
}

// DESIGN section 5: http-01 never makes a client certificate unless the
// profile says so; a pre-approved name counts everywhere.
func TestCheckProofs(t *testing.T) {
	by := func(v string, proof protocol.ChallengeType) protocol.Authorization {
		return protocol.Authorization{Identifier: dns(v), Attempt: protocol.Attempt{Type: proof}}
	}
	all := []protocol.Authorization{by("a.prod.internal", protocol.HTTP01), by("b.prod.internal", protocol.PreApproved)}
	if err := CheckProofs(serverProfile, all); err != nil {
		t.Error(err)
	}
	p := problem(t, CheckProofs(clientProfile, all), protocol.Unauthorized)
	if len(p.Sub) != 1 || p.Sub[0].Identifier.Value != "a.prod.internal" || p.Identifier != nil {
		t.Errorf("%+v", p)
	}
	problem(t, CheckProofs(serverProfile, []protocol.Authorization{by("a.prod.internal", "")}), protocol.Unauthorized)
	p = problem(t, CheckProofs(bothProfile, []protocol.Authorization{by("a.prod.internal", protocol.HTTP01), by("b.prod.internal", protocol.TLSALPN01)}), protocol.Unauthorized)
	if len(p.Sub) != 2 || !strings.Contains(p.Sub[0].Detail, "dns-01") {
		t.Errorf("%+v", p)
	}
}
