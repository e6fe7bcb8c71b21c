package challenge

import (
	"context"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// CAA asks whether the owner of a name lets this CA issue for it (RFC 8659),
// to this account and by this challenge (RFC 8657).
type CAA struct {
	Resolver *Resolver
	Issuers  []string // what the CA calls itself in CAA records, in lower case
}

// Check looks at the name and, until CAA records are found, at its parents,
// each for at most the resolver's timeout. It returns nil when issuing is
// allowed, else a *protocol.ValidationError: of type caa and final when it is
// forbidden; of type dns and worth another try when there was no answer,
// which forbids as well (RFC 8659 section 3). The method is the challenge
// that proved the name. Addresses have no CAA records.
func (c CAA) Check(ctx context.Context, id protocol.Identifier, wildcard bool, accountURL string, method protocol.ChallengeType) error {
	if id.Type != protocol.DNS {
		return nil
	}
	id = id.Base()
	for at := id.Value; at != ""; _, at, _ = strings.Cut(at, ".") { // RFC 8659 section 3: up to, not including, the root
		records, err := c.Resolver.caa(ctx, at)
		if err != nil {
			return outcome(ctx, err)
		}
		if len(records) > 0 {
			return c.judge(at, records, wildcard, accountURL, method)
		}
	}
	return nil
}

// judge applies the relevant resource record set (RFC 8659 section 4).
func (c CAA) judge(at string, records []*dns.CAA, wildcard bool, accountURL string, method protocol.ChallengeType) error {
	var issue, issueWild []string
	for _, r := range records {
		switch strings.ToLower(r.Tag) {
		case "issue":
			issue = append(issue, r.Value)
		case "issuewild":
			issueWild = append(issueWild, r.Value)
		case "iodef", "issuemail", "contactemail", "contactphone": // known, and nothing to us
		default:
			if r.Flag&0x80 != 0 { // section 4.5
				return no(protocol.CAAForbids, false, "%s has a critical CAA property that this server doesn't know", at)
			}
		}
	}
	tag, values := "issue", issue
	if wildcard && len(issueWild) > 0 { // section 4.3
		tag, values = "issuewild", issueWild
	}
	if len(values) == 0 {
		return nil
	}
	for _, v := range values {
		if c.allows(v, accountURL, method) {
			return nil
		}
	}
	return no(protocol.CAAForbids, false, "the CAA records at %s don't let this CA issue to this account by %s; add: %s CAA 0 %s \"%s\"",
		at, method, at, tag, strings.Join(c.Issuers[:min(1, len(c.Issuers))], ""))
}

// allows judges one property. One that doesn't follow the grammar allows
// nobody (RFC 8659 section 4.2).
func (c CAA) allows(value, accountURL string, method protocol.ChallengeType) bool {
	v, err := parseIssueValue(value)
	if err != nil || v.issuer == "" || !slices.Contains(c.Issuers, v.issuer) {
		return false
	}
	// RFC 8657 sections 3 and 4: each at most once, and compared as they are.
	if account, times := v.get("accounturi"); times > 1 || times == 1 && account != accountURL {
		return false
	}
	methods, times := v.get("validationmethods")
	return times == 0 || times == 1 && slices.Contains(strings.Split(methods, ","), string(method))
}
