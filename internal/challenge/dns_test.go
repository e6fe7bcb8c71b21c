package challenge

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

func keyDigest() string {
	d := sha256.Sum256([]byte(testToken + "." + testThumb))
	return base64.RawURLEncoding.EncodeToString(d[:])
}

// RFC 8555 section 8.4.
func TestDNS01(t *testing.T) {
	const at = "_acme-challenge." + testName + "."
	good := at + " 1 IN TXT " + keyDigest()
	long := at + " 1 IN TXT"
	for range 200 { // 50 kB: only TCP brings it
		long += ` "` + strings.Repeat("x", 250) + `"`
	}
	var crowd []string
	for i := range 60 {
		crowd = append(crowd, fmt.Sprintf("%s 1 IN TXT %043d", at, i))
	}
	for _, c := range []struct {
		name    string
		records []string
		ok      bool
		words   string
	}{
		{"the value", []string{good}, true, ""},
		{"among others", []string{at + " 1 IN TXT other", good}, true, ""},
		{"in several strings", []string{at + ` 1 IN TXT "` + keyDigest()[:20] + `" "` + keyDigest()[20:] + `"`}, true, ""},
		{"after sixty others, by TCP", append(crowd, good), true, ""},
		{"beside an oversized one, by TCP", []string{long, good}, true, ""},
		{"none", nil, false, "no TXT record"},
		{"another", []string{at + " 1 IN TXT " + secret}, false, "none of the 1 TXT records"},
		{"padded", []string{at + " 1 IN TXT " + keyDigest() + "="}, false, ""},
		{"the key authorization itself", []string{at + " 1 IN TXT " + testToken + "." + testThumb}, false, ""},
		{"at another name", []string{"_acme-challenge.example.test. 1 IN TXT " + keyDigest()}, false, "no TXT record"},
		{"another type", []string{at + " 1 IN A 192.0.2.1"}, false, "no TXT record"},
		{"more values than are looked at", append(slicesRepeat(at+" 1 IN TXT x%d", 200), good), false, "none of the 128"},
	} {
		t.Run(c.name, func(t *testing.T) {
			z, r := serveDNS(t)
			z.set(at+" TXT", c.records...)
			for _, wildcard := range []bool{false, true} {
				v := testValidation()
				v.Wildcard = wildcard
				e, err := DNS01{r}.Validate(t.Context(), v)
				if c.ok && (err != nil || e.Target != strings.TrimSuffix(at, ".") || e.Type != protocol.DNS01) {
					t.Errorf("wildcard %v: %+v, %v", wildcard, e, err)
				}
				if !c.ok {
					wantNo(t, err, protocol.Unauthorized, true, c.words, "_acme-challenge."+testName)
					if strings.Contains(err.Error(), secret) {
						t.Errorf("the problem repeats the record: %v", err)
					}
				}
			}
		})
	}
}

func slicesRepeat(format string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf(format, i))
	}
	return all
}

func TestDNSChallengesRefuseAddresses(t *testing.T) {
	_, r := serveDNS(t)
	v := testValidation()
	v.Identifier = protocol.Identifier{Type: protocol.IP, Value: "192.0.2.1"}
	_, err := DNS01{r}.Validate(t.Context(), v)
	wantNo(t, err, protocol.Malformed, false)
	_, err = DNSAccount01{r}.Validate(t.Context(), v)
	wantNo(t, err, protocol.Malformed, false)
	_, err = DNSPersist01{Resolver: r}.Validate(t.Context(), v)
	wantNo(t, err, protocol.Malformed, false)
}

// A name so long that the challenge's label doesn't fit any more.
func TestDNS01TooLong(t *testing.T) {
	_, r := serveDNS(t)
	v := testValidation()
	v.Identifier.Value = strings.Repeat(strings.Repeat("a", 60)+".", 4) + "test"
	_, err := DNS01{r}.Validate(t.Context(), v)
	wantNo(t, err, protocol.DNSFailed, false, "too long")
}

// draft-ietf-acme-dns-account-label-02 section 3.2, with its example account.
func TestDNSAccount01(t *testing.T) {
	if got := AccountLabel("https://example.com/acme/acct/ExampleAccount"); got != "_ujmmovf2vn55tgye" {
		t.Errorf("label %s", got)
	}
	z, r := serveDNS(t)
	v := testValidation()
	v.AccountURL = "https://example.com/acme/acct/ExampleAccount"
	z.set("_ujmmovf2vn55tgye._acme-challenge."+testName+". TXT", "_ujmmovf2vn55tgye._acme-challenge."+testName+". 1 IN TXT "+keyDigest())
	if _, err := (DNSAccount01{r}).Validate(t.Context(), v); err != nil {
		t.Error(err)
	}
	v.AccountURL += "2"
	_, err := DNSAccount01{r}.Validate(t.Context(), v)
	wantNo(t, err, protocol.Unauthorized, true, "no TXT record at _")
}

func persistValidation() protocol.Validation {
	v := testValidation()
	v.Identifier.Value = "example.com"
	return v
}

func persist(r *Resolver) DNSPersist01 {
	return DNSPersist01{Resolver: r, Issuers: []string{"authority.example", "ca.example.net"}, HashPrefix: "https://ca.example/account-hash/"}
}

// The vectors of draft-ietf-acme-dns-persist-02 section 10.2.
func TestPersistHash(t *testing.T) {
	d := persist(nil)
	if got := d.accountHash("example.com", persistValidation()); got != "https://ca.example/account-hash/sha-256/5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw" {
		t.Error(got)
	}
	if got := d.accountHash("*", persistValidation()); got != "https://ca.example/account-hash/sha-256/NpDnSwUthQK8zCgFdefYxAdAVPnygMLbs9US6oO-5ug" {
		t.Error(got)
	}
}

func TestDNSPersist01(t *testing.T) {
	const (
		account  = "accounturi=https://ca.example/account-hash/sha-256/5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw"
		anyName  = "accounturi=https://ca.example/account-hash/sha-256/NpDnSwUthQK8zCgFdefYxAdAVPnygMLbs9US6oO-5ug"
		otherOne = "accounturi=https://ca.example/account-hash/sha-256/NpDnSwUthQK8zCgFdefYxAdAVPnygMLbs9US6oO-5uh"
		plain    = "accounturi=https://ca.example/acct/123"
	)
	const yes = protocol.ProblemType("yes")
	future, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	for _, c := range []struct {
		name      string
		records   []string
		wildcard  bool
		want      protocol.ProblemType
		retryable bool
		words     string // of the problem, or of the evidence
	}{
		{"section 10.1", []string{"authority.example; " + account}, false, yes, false, ""},
		{"the second issuer", []string{"ca.example.net;" + account}, false, yes, false, ""},
		{"issuer in capitals", []string{" AUTHORITY.example\t;\t" + account + " "}, false, yes, false, ""},
		{"for any name (section 4.1)", []string{"authority.example;" + anyName}, false, yes, false, ""},
		{"unknown parameters", []string{"authority.example;x=y;" + account + ";z=;policy=later"}, false, yes, false, ""},
		{"wildcard by section 10.4", []string{"authority.example;" + account + ";policy=wildcard"}, true, yes, false, ""},
		{"wildcard in capitals", []string{"authority.example;" + account + ";POLICY=WildCard"}, true, yes, false, ""},
		{"wildcard policy for the name", []string{"authority.example;" + account + ";policy=wildcard"}, false, yes, false, ""},
		{"persistUntil", []string{fmt.Sprintf("authority.example;%s;persistUntil=%d", account, future)}, false, yes, false, fmt.Sprintf("persistUntil=%d", future)},
		{"another CA's beside it (section 4.3)", []string{"ca2.example;" + otherOne, "v=spf1 -all", "authority.example;" + account}, false, yes, false, ""},
		{"a bad one of ours beside it", []string{"authority.example;" + account + ";persistUntil=x", "authority.example;" + account}, false, yes, false, ""},

		{"none", nil, false, protocol.Unauthorized, true, "no TXT record at _validation-persist.example.com"},
		{"another CA's", []string{"ca2.example;" + account}, false, protocol.Unauthorized, true, "5SQm7n6tPh2"},
		{"no issuer", []string{";" + account}, false, protocol.Unauthorized, true, ""},
		{"another account", []string{"authority.example;" + otherOne}, false, protocol.Unauthorized, false, "another account"},
		{"the hash in another case (section 4.1)", []string{"authority.example;" + strings.ToUpper(account)}, false, protocol.Unauthorized, false, "another account"},
		{"the account's URL, as before -02", []string{"authority.example;" + plain}, false, protocol.Unauthorized, false, "another account"},
		{"no account", []string{"authority.example"}, false, protocol.Malformed, false, "accounturi"},
		{"two accounts", []string{"authority.example;" + account + ";" + account}, false, protocol.Malformed, false, "accounturi"},
		{"two policies", []string{"authority.example;" + account + ";policy=wildcard;policy=wildcard"}, true, protocol.Malformed, false, "policy"},
		{"not the grammar", []string{"authority.example;" + account + ";;"}, false, protocol.Malformed, false, "issue-value"},
		{"wildcard without policy", []string{"authority.example;" + account}, true, protocol.Unauthorized, false, "policy=wildcard"},
		{"wildcard with another policy", []string{"authority.example;" + account + ";policy=wildcards"}, true, protocol.Unauthorized, false, "policy=wildcard"},
		{"over (section 4.1)", []string{fmt.Sprintf("authority.example;%s;persistUntil=%d", account, past)}, false, protocol.Unauthorized, false, "good until"},
		{"until is no integer", []string{"authority.example;" + account + ";persistUntil=2030-01-01"}, false, protocol.Malformed, false, "persistUntil"},
		{"until is empty", []string{"authority.example;" + account + ";persistUntil="}, false, protocol.Malformed, false, "persistUntil"},
		{"until is beyond 64 bits", []string{"authority.example;" + account + ";persistUntil=99999999999999999999"}, false, protocol.Malformed, false, "persistUntil"},
		{"until beyond all clocks", []string{"authority.example;" + account + ";persistUntil=9223372036854775807"}, false, yes, false, "persistUntil=253402300799"},
		{"until twice", []string{fmt.Sprintf("authority.example;%s;persistUntil=%d;persistuntil=%d", account, future, past)}, false, protocol.Malformed, false, "persistUntil"},
	} {
		t.Run(c.name, func(t *testing.T) {
			z, r := serveDNS(t)
			var records []string
			for _, text := range c.records {
				records = append(records, "_validation-persist.example.com. 1 IN TXT "+quoted(text))
			}
			z.set("_validation-persist.example.com. TXT", records...)
			v := persistValidation()
			v.Wildcard = c.wildcard
			e, err := persist(r).Validate(t.Context(), v)
			if c.want != yes {
				wantNo(t, err, c.want, c.retryable, c.words)
			} else if err != nil || e.Detail != c.words || e.Target != "_validation-persist.example.com" {
				t.Errorf("got %+v, %v", e, err)
			} else if want := strings.TrimPrefix(c.words, "persistUntil="); want != "" && strconv.FormatInt(e.ValidUntil.Unix(), 10) != want ||
				want == "" && !e.ValidUntil.IsZero() {
				t.Errorf("valid until %v, want %q", e.ValidUntil, want)
			}
		})
	}
	t.Run("PlainAccountURL", func(t *testing.T) {
		z, r := serveDNS(t)
		z.set("_validation-persist.example.com. TXT", "_validation-persist.example.com. 1 IN TXT "+quoted("authority.example;"+plain))
		d := persist(r)
		d.PlainAccountURL = true
		if _, err := d.Validate(t.Context(), persistValidation()); err != nil {
			t.Error(err)
		}
	})
	t.Run("what we tell the client to publish is taken", func(t *testing.T) {
		z, r := serveDNS(t)
		v := persistValidation()
		v.Wildcard = true
		z.set("_validation-persist.example.com. TXT", "_validation-persist.example.com. 1 IN TXT "+quoted(persist(r).Record("example.com", v, true)))
		if _, err := persist(r).Validate(t.Context(), v); err != nil {
			t.Error(err)
		}
	})
}

// quoted splits a value into strings of a TXT record (section 9.1).
func quoted(text string) string {
	out := ""
	for len(text) > 100 {
		out += `"` + text[:100] + `" `
		text = text[100:]
	}
	return out + `"` + text + `"`
}

// draft-ietf-acme-dns-persist-02 section 6: a parent's record, where the CA
// wants that.
func TestDNSPersist01Subdomains(t *testing.T) {
	v := persistValidation()
	v.Identifier.Value = "server.dept.example.com"
	for _, c := range []struct {
		name, at, policy string
		on, ok           bool
	}{
		{"the parent's parent", "example.com", ";policy=wildcard", true, true},
		{"without policy", "example.com", "", true, false},
		{"switched off", "example.com", ";policy=wildcard", false, false},
		{"a top-level name", "com", ";policy=wildcard", true, false},
		{"a sister", "web.dept.example.com", ";policy=wildcard", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			z, r := serveDNS(t)
			d := persist(r)
			d.Subdomains = c.on
			z.set("_validation-persist."+c.at+". TXT", "_validation-persist."+c.at+". 1 IN TXT "+
				quoted("authority.example;accounturi="+d.accountHash(c.at, v)+c.policy))
			for _, v.Wildcard = range []bool{false, true} {
				e, err := d.Validate(t.Context(), v)
				if c.ok && (err != nil || e.Target != "_validation-persist."+c.at) {
					t.Errorf("wildcard %v: %v, %v", v.Wildcard, e, err)
				}
				if !c.ok {
					wantNo(t, err, protocol.Unauthorized, true, "_validation-persist.server.dept.example.com")
				}
			}
		})
	}
}

// RFC 8659 section 4.2.
func TestIssueValue(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		" \t":                    "",
		";":                      "",
		"ca.example":             "ca.example",
		"  ca.example \t":        "ca.example",
		"CA.Example;":            "ca.example",
		"ca.example; a=b":        "ca.example a=b",
		"ca.example;A=B; c = d ": "ca.example a=B c=d",
		"; a=b":                  " a=b",
		"ca.example;a=b;":        "ca.example a=b",
		"ca.example;a=":          "ca.example a=",
		"ca.example;a=b=c":       "ca.example a=b=c",
		"c--a.example;a--b=c":    "c--a.example a--b=c",
		"localca":                "localca",
		"ca.example;a=b;a=c":     "ca.example a=b a=c",
		// Not in the grammar.
		"ca..example":      "error",
		"-ca.example":      "error",
		"ca.example-":      "error",
		"ca.example.":      "error",
		"ca_.example":      "error",
		"ca.example a=b":   "error",
		"ca.example;a":     "error",
		"ca.example;a b":   "error",
		"ca.example;=b":    "error",
		"ca.example;-a=b":  "error",
		"ca.example;a=b c": "error",
		"ca.example;;a=b":  "error",
		"ca.example;a=b\n": "error",
		"ca.example;a=ü":   "error",
		"cä.example":       "error",
	} {
		got := "error"
		if v, err := parseIssueValue(in); err == nil {
			got = v.issuer
			for _, p := range v.parameters {
				got += " " + p.tag + "=" + p.value
			}
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzIssueValue: what parses is the same after printing and parsing again.
func FuzzIssueValue(f *testing.F) {
	for _, s := range []string{"", ";", "ca.example", "ca.example; accounturi=https://ca/1;validationmethods=dns-01,http-01", "a;b=c;", ";;", "a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseIssueValue(s)
		if err != nil {
			return
		}
		printed := v.issuer + ";"
		for i, p := range v.parameters {
			if i > 0 {
				printed += ";"
			}
			printed += p.tag + "=" + p.value
		}
		again, err := parseIssueValue(printed)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(v) {
			t.Fatalf("%q parses to %v, printed %q parses to %v, %v", s, v, printed, again, err)
		}
	})
}

// FuzzPersistRecord: only a record that bears the account's own hash, and for
// wildcards the policy, is ever taken.
func FuzzPersistRecord(f *testing.F) {
	d := persist(nil)
	good := d.Record("example.com", persistValidation(), true)
	f.Add(good, false)
	f.Add(strings.Replace(good, "policy=wildcard", "persistUntil=99999999999", 1), true)
	f.Add("authority.example", false)
	f.Add("ca.example.net; accounturi=; persistUntil=-1", false)
	f.Fuzz(func(t *testing.T, s string, wildcard bool) {
		v := persistValidation()
		if !d.concerns(s) {
			return
		}
		if _, err := d.check(s, "example.com", v, wildcard, time.Unix(1e9, 0)); err != nil {
			return
		}
		if !strings.Contains(s, d.accountHash("example.com", v)) && !strings.Contains(s, d.accountHash("*", v)) ||
			wildcard && !strings.Contains(strings.ToLower(s), "wildcard") {
			t.Fatalf("took %q", s)
		}
	})
}
