package challenge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// RFC 8659 sections 3 and 4, RFC 8657 sections 3 and 4.
func TestCAA(t *testing.T) {
	const yes, forbidden, failed = "", string(protocol.CAAForbids), string(protocol.DNSFailed)
	const account = "https://ca.example/acct/123"
	type records map[string][]string // at a name, in short form
	for _, c := range []struct {
		name     string
		zone     records
		wildcard bool
		want     string
	}{
		{"none", records{}, false, yes},
		{"none, wildcard", records{}, true, yes},
		{"ours", records{"www.example.test.": {`0 issue "ca.example"`}}, false, yes},
		{"our second name", records{"www.example.test.": {`0 issue "ca2.example"`}}, false, yes},
		{"ours in capitals", records{"www.example.test.": {`0 ISSUE "CA.Example"`}}, false, yes},
		{"ours among others", records{"www.example.test.": {`0 issue "other.example"`, `0 issue "ca.example"`}}, false, yes},
		{"nobody", records{"www.example.test.": {`0 issue ";"`}}, false, forbidden},
		{"empty", records{"www.example.test.": {`0 issue ""`}}, false, forbidden},
		{"another CA", records{"www.example.test.": {`0 issue "other.example"`}}, false, forbidden},
		{"a subdomain of ours", records{"www.example.test.": {`0 issue "x.ca.example"`}}, false, forbidden},
		{"malformed is nobody (section 4.2)", records{"www.example.test.": {`0 issue "ca.example;%"`}}, false, forbidden},
		{"malformed beside ours", records{"www.example.test.": {`0 issue "%%"`, `0 issue "ca.example"`}}, false, yes},
		{"unknown parameter", records{"www.example.test.": {`0 issue "ca.example; policy=ev"`}}, false, yes},
		{"critical issue is known", records{"www.example.test.": {`128 issue "ca.example"`}}, false, yes},
		// Climbing (section 3).
		{"the parent's", records{"example.test.": {`0 issue "other.example"`}}, false, forbidden},
		{"the top-level name's", records{"test.": {`0 issue "other.example"`}}, false, forbidden},
		{"the nearest counts", records{"www.example.test.": {`0 issue "ca.example"`}, "example.test.": {`0 issue ";"`}}, false, yes},
		{"the nearest counts, without issue", records{"www.example.test.": {`0 iodef "mailto:a@b"`}, "example.test.": {`0 issue ";"`}}, false, yes},
		{"a sister's", records{"mail.example.test.": {`0 issue ";"`}}, false, yes},
		{"a child's", records{"a.www.example.test.": {`0 issue ";"`}}, false, yes},
		// Wildcards (section 4.3).
		{"issuewild wins for wildcards", records{"www.example.test.": {`0 issue ";"`, `0 issuewild "ca.example"`}}, true, yes},
		{"issuewild forbids wildcards", records{"www.example.test.": {`0 issue "ca.example"`, `0 issuewild ";"`}}, true, forbidden},
		{"issue for wildcards without issuewild", records{"www.example.test.": {`0 issue "other.example"`}}, true, forbidden},
		{"issuewild alone doesn't bind names", records{"www.example.test.": {`0 issuewild ";"`}}, false, yes},
		{"issuewild doesn't let names in", records{"www.example.test.": {`0 issue ";"`, `0 issuewild "ca.example"`}}, false, forbidden},
		// Critical (section 4.5).
		{"unknown and critical", records{"www.example.test.": {`0 issue "ca.example"`, `128 tbs "x"`}}, false, forbidden},
		{"unknown", records{"www.example.test.": {`0 tbs "x"`}}, false, yes},
		{"unknown, another bit", records{"www.example.test.": {`64 tbs "x"`}}, false, yes},
		{"unknown and critical at the parent", records{"example.test.": {`128 tbs "x"`}}, false, forbidden},
		// RFC 8657.
		{"our account", records{"www.example.test.": {`0 issue "ca.example; accounturi=` + account + `"`}}, false, yes},
		{"another account", records{"www.example.test.": {`0 issue "ca.example; accounturi=` + account + `4"`}}, false, forbidden},
		{"the account in another case", records{"www.example.test.": {`0 issue "ca.example; accounturi=` + strings.ToUpper(account) + `"`}}, false, forbidden},
		{"two accounts", records{"www.example.test.": {`0 issue "ca.example; accounturi=` + account + `; accounturi=` + account + `"`}}, false, forbidden},
		{"two records, one our account", records{"www.example.test.": {`0 issue "ca.example; accounturi=x:y"`, `0 issue "ca.example; accounturi=` + account + `"`}}, false, yes},
		{"our method", records{"www.example.test.": {`0 issue "ca.example; validationmethods=http-01,dns-01"`}}, false, yes},
		{"another method", records{"www.example.test.": {`0 issue "ca.example; validationmethods=http-01"`}}, false, forbidden},
		{"no method", records{"www.example.test.": {`0 issue "ca.example; validationmethods="`}}, false, forbidden},
		{"methods twice", records{"www.example.test.": {`0 issue "ca.example; validationmethods=dns-01;validationmethods=dns-01"`}}, false, forbidden},
		{"account and another method", records{"www.example.test.": {`0 issue "ca.example; accounturi=` + account + `; validationmethods=ca-x"`}}, false, forbidden},
		{"too many to look at", records{"www.example.test.": append(slicesRepeat(`0 issue "c%d.example"`, 200), `0 issue "ca.example"`)}, false, forbidden},
		// No answer is no leave (section 3).
		{"no answer", records{"www.example.test.": {"SERVFAIL"}}, false, failed},
		{"no answer from the parent", records{"example.test.": {"SERVFAIL"}}, false, failed},
		{"an alias", records{"www.example.test.": {"CNAME target.test."}, "target.test.": {`0 issue ";"`}}, false, forbidden},
		{"an alias to a name without, then the parent", records{"www.example.test.": {"CNAME target.test."}, "example.test.": {`0 issue ";"`}}, false, forbidden},
		{"an alias's parent doesn't count", records{"www.example.test.": {"CNAME a.target.test2."}, "target.test2.": {`0 issue ";"`}}, false, yes},
	} {
		t.Run(c.name, func(t *testing.T) {
			z, r := serveDNS(t)
			for name, all := range c.zone {
				var full []string
				for _, rr := range all {
					switch target, alias := strings.CutPrefix(rr, "CNAME "); {
					case alias:
						z.set(name+" CNAME", name+" 1 IN CNAME "+target)
					case rr == "SERVFAIL":
						z.rcode[name+" CAA"] = dns.RcodeServerFailure
					default:
						full = append(full, name+" 1 IN CAA "+rr)
					}
				}
				z.set(name+" CAA", full...)
			}
			id := protocol.Identifier{Type: protocol.DNS, Value: testName}
			if c.wildcard {
				id.Value = "*." + id.Value // as in an order; an authorization's has none
			}
			err := CAA{r, []string{"ca.example", "ca2.example"}}.Check(t.Context(), id, c.wildcard, account, protocol.DNS01)
			if c.want == yes && err != nil {
				t.Errorf("forbidden: %v", err)
			}
			if c.want != yes {
				wantNo(t, err, protocol.ProblemType(c.want), c.want == failed)
			}
			if n := z.count(". CAA"); n > 0 {
				t.Error("the root was asked")
			}
		})
	}
	t.Run("an address has none", func(t *testing.T) {
		if err := (CAA{}).Check(t.Context(), protocol.Identifier{Type: protocol.IP, Value: "192.0.2.1"}, false, account, protocol.HTTP01); err != nil {
			t.Error(err)
		}
	})
}

// FuzzCAA: whatever the records say, an issuer that isn't named is refused
// once there is an issue property.
func FuzzCAA(f *testing.F) {
	f.Add("issue", "ca.example", uint8(0), true)
	f.Add("issuewild", "; a=b", uint8(128), false)
	f.Add("tbs", "x", uint8(128), false)
	f.Fuzz(func(t *testing.T, tag, value string, flag uint8, wildcard bool) {
		c := CAA{nil, []string{"ca.example"}}
		err := c.judge("a.test", []*dns.CAA{{Tag: tag, Value: value, Flag: flag}}, wildcard, "https://ca/1", protocol.HTTP01)
		if err == nil && strings.EqualFold(tag, "issue") && !strings.Contains(strings.ToLower(value), "ca.example") {
			t.Fatalf("took %q %q", tag, value)
		}
		if err != nil && !strings.Contains(fmt.Sprint(err), "a.test") {
			t.Fatalf("%v doesn't say where", err)
		}
	})
}
