package challenge

import (
	"errors"
	"strings"
)

// issueValue is an issue-value of RFC 8659 section 4.2, which CAA records and
// dns-persist-01's TXT records share.
type issueValue struct {
	issuer     string // in lower case; "" allows nobody
	parameters []parameter
}

type parameter struct{ tag, value string } // the tag in lower case

var errIssueValue = errors.New("not an issue-value of RFC 8659 section 4.2")

// parseIssueValue parses
//
//	issue-value = *WSP [issuer-domain-name *WSP] [";" *WSP [parameters *WSP]]
//	parameters  = (parameter *WSP ";" *WSP parameters) / parameter
//	parameter   = tag *WSP "=" *WSP value
//
// and takes one semicolon too many at the end, which people write.
func parseIssueValue(s string) (issueValue, error) {
	head, rest, _ := strings.Cut(s, ";")
	v := issueValue{issuer: strings.ToLower(trimWSP(head))}
	if v.issuer != "" {
		for label := range strings.SplitSeq(v.issuer, ".") {
			if !isTag(label) {
				return issueValue{}, errIssueValue
			}
		}
	}
	for rest = trimWSP(rest); rest != ""; rest = trimWSP(rest) {
		var one string
		one, rest, _ = strings.Cut(rest, ";")
		tag, value, ok := strings.Cut(one, "=")
		tag, value = strings.ToLower(trimWSP(tag)), trimWSP(value)
		if !ok || !isTag(tag) || strings.ContainsFunc(value, func(r rune) bool { return r < '!' || r > '~' }) {
			return issueValue{}, errIssueValue
		}
		v.parameters = append(v.parameters, parameter{tag, value})
	}
	return v, nil
}

// get returns a parameter's value and how often it is there.
func (v issueValue) get(tag string) (value string, times int) {
	for _, p := range v.parameters {
		if p.tag == tag {
			value = p.value
			times++
		}
	}
	return value, times
}

func trimWSP(s string) string { return strings.Trim(s, " \t") }

// isTag reports whether s is (ALPHA / DIGIT) *( *("-") (ALPHA / DIGIT)), the
// rule for tags and for labels alike.
func isTag(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}
