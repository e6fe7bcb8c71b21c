package acl_test

import (
	"crypto/x509"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/chancery-pki/chancery/mtls/acl"
)

func ExampleAllow() {
	policy := acl.Allow("web.prod.internal", "*.batch.internal")
	fmt.Println(policy.Allow(acl.PeerOf(&x509.Certificate{DNSNames: []string{"nightly.batch.internal"}})))
	fmt.Println(policy.Allow(acl.PeerOf(&x509.Certificate{DNSNames: []string{"laptop.dev.internal"}})))
	// Output:
	// <nil>
	// no rule allows dns:"laptop.dev.internal"; "web.prod.internal" (pattern 1 of acl.Allow) comes nearest
}

func ExampleParse() {
	rules, err := acl.Parse("rules.acl", []byte(`
# the batch jobs read reports, but for the old one
allow *.batch.internal  GET /reports/*
deny  old.batch.internal
`))
	if err != nil {
		log.Fatal(err)
	}
	nightly := &acl.Peer{DNSNames: []string{"nightly.batch.internal"}}
	fmt.Println(rules.AllowRequest(nightly, acl.Request{Method: "GET", Path: "/reports/2026"}))
	fmt.Println(rules.AllowRequest(nightly, acl.Request{Method: "GET", Path: "/reports/../keys"}))
	fmt.Println(rules.Allow(&acl.Peer{DNSNames: []string{"old.batch.internal"}}))

	_, err = acl.Parse("rules.acl", []byte("allow .batch.internal\n"))
	fmt.Println(err)
	// Output:
	// <nil>
	// no rule allows dns:"nightly.batch.internal" GET "/reports/../keys"; no rule with a path allows such a path: a segment is "." or ".."; it may do something else by rules.acl:3: allow *.batch.internal GET /reports/*
	// dns:"old.batch.internal" is denied by rules.acl:4: deny old.batch.internal
	// rules.acl:1:7: ".batch.internal": for every name below a domain write "*.batch.internal"
}

// A file is followed: the next decision obeys what stands there then.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "rules.acl")
	os.WriteFile(path, []byte("allow web.prod.internal\n"), 0o600)

	policy, err := acl.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		log.Fatal(err)
	}
	web := &acl.Peer{DNSNames: []string{"web.prod.internal"}}
	fmt.Println(policy.Allow(web))

	os.WriteFile(path+".new", []byte("allow db.prod.internal\n"), 0o600)
	os.Rename(path+".new", path)
	fmt.Println(policy.Allow(web) == nil)
	// Output:
	// <nil>
	// false
}

func ExampleFunc() {
	policy := acl.Func(func(p *acl.Peer) bool {
		return len(p.Subject.OrganizationalUnit) == 1 && p.Subject.OrganizationalUnit[0] == "backup"
	})
	fmt.Println(policy.Allow(&acl.Peer{DNSNames: []string{"web.prod.internal"}}))
	// Output:
	// dns:"web.prod.internal" is not allowed: the program's own function says no
}

func ExampleExplain() {
	rules, err := acl.Parse("rules.acl", []byte("allow *.batch.internal GET /reports/*\ndeny old.batch.internal\n"))
	if err != nil {
		log.Fatal(err)
	}
	nightly := &acl.Peer{DNSNames: []string{"nightly.batch.internal"}}
	fmt.Print(acl.Explain(rules, nightly, acl.Request{Method: "POST", Path: "/reports/2026"}))
	// Output:
	// peer:       dns:"nightly.batch.internal"
	// connection: allowed by rules.acl:1: allow *.batch.internal GET /reports/*
	// request:    POST "/reports/2026"
	// decision:   denied: no rule allows dns:"nightly.batch.internal" POST "/reports/2026"; it may do something else by rules.acl:1: allow *.batch.internal GET /reports/*
	// its rules:  rules.acl:1: allow *.batch.internal GET /reports/*
}
