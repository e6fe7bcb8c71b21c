package acl

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Rules is a list of rules that doesn't change, compiled so that a decision
// costs about the same with one rule as with ten thousand and allocates
// nothing where it allows. Nil and the zero value deny everyone.
type Rules struct {
	name  string // of the file; "": made by Allow
	err   error  // why they deny everyone
	rules []rule

	everyone *entry
	// By canonical name; below by what stands before the wildcard's "/*" or
	// after its "*.": "prod.internal", "spiffe://prod.internal/ns/".
	exact, below map[string]*entry
	networks     map[netip.Prefix]*entry
	v4, v6       []int // the lengths that occur in networks
	// deniedChildren are the dns names with deny rules, by all but their
	// first label: what a wildcard in a certificate may stand for.
	deniedChildren map[string][]*entry
}

// rule is one rule, in canonical form.
type rule struct {
	line    int // 1 is the first; of Allow: the pattern's number
	deny    bool
	subject subject
	methods []string // none: all
	path    string   // "": all; "/a/b"; "/a/*"
}

func (r *rule) String() string {
	text := "allow " + r.subject.text
	if r.deny {
		text = "deny " + r.subject.text
	}
	if len(r.methods) > 0 {
		text += " " + strings.Join(r.methods, ",")
	}
	if r.path != "" {
		text += " " + r.path
	}
	return text
}

// Allow returns rules which allow those that the patterns name (see the
// package comment for what they can be), and nobody else. If a pattern is
// wrong the rules deny everyone and Err says why; it never panics.
func Allow(patterns ...string) *Rules {
	all := make([]rule, len(patterns))
	for i, pattern := range patterns {
		s, fault := parseSubject(pattern)
		if strings.ContainsAny(pattern, " \t\r\n#") {
			fault = fmt.Sprintf("%q is more than a name; methods, paths and deny rules are for acl.Parse", shortened(pattern))
		}
		if fault != "" {
			return &Rules{err: fmt.Errorf("acl.Allow: pattern %d: %s", i+1, fault)}
		}
		all[i] = rule{line: i + 1, subject: s}
	}
	return compile("", all)
}

// Err says why the rules deny everyone, though they weren't meant to: a wrong
// pattern given to [Allow]. Nil: there is nothing wrong.
func (rs *Rules) Err() error {
	if rs == nil {
		return nil
	}
	return rs.err
}

// String returns the rules as [Parse] reads them, in canonical form and
// without comments, a line each.
func (rs *Rules) String() string {
	var b strings.Builder
	if rs != nil {
		for i := range rs.rules {
			b.WriteString(rs.rules[i].String() + "\n")
		}
	}
	return b.String()
}

// where is how texts name a rule: with its place and its words.
func (rs *Rules) where(r *rule) string {
	if rs.name == "" {
		return fmt.Sprintf("pattern %d of acl.Allow: %s", r.line, r)
	}
	return fmt.Sprintf("%s:%d: %s", rs.name, r.line, r)
}

func compile(name string, all []rule) *Rules {
	rs := &Rules{
		name: name, rules: all,
		exact: map[string]*entry{}, below: map[string]*entry{},
		networks: map[netip.Prefix]*entry{}, deniedChildren: map[string][]*entry{},
	}
	for i := range all {
		r := &all[i]
		e := rs.entryOf(r.subject)
		if r.deny && e.deny == nil && r.subject.isHost() {
			_, parent, _ := strings.Cut(r.subject.text, ".")
			rs.deniedChildren[parent] = append(rs.deniedChildren[parent], e)
		}
		e.add(r)
	}
	return rs
}

// entryOf returns the subject's entry, a new one if need be.
func (rs *Rules) entryOf(s subject) *entry {
	if s.network.IsValid() {
		lengths := &rs.v6
		if s.network.Addr().Is4() {
			lengths = &rs.v4
		}
		if !slices.Contains(*lengths, s.network.Bits()) {
			*lengths = append(*lengths, s.network.Bits())
		}
		return entryIn(rs.networks, s.network)
	}
	if s.text == everyone {
		rs.everyone = cmp.Or(rs.everyone, new(entry))
		return rs.everyone
	}
	if below, ok := strings.CutPrefix(s.text, "*."); ok {
		return entryIn(rs.below, below)
	}
	if above, ok := strings.CutSuffix(s.text, "*"); ok {
		return entryIn(rs.below, above)
	}
	return entryIn(rs.exact, s.text)
}

func entryIn[K comparable](m map[K]*entry, key K) *entry {
	if m[key] == nil {
		m[key] = new(entry)
	}
	return m[key]
}

// Allow says whether the peer may connect: some rule allows it something, and
// none denies it everything.
func (rs *Rules) Allow(p *Peer) error {
	q := query{connection: true}
	if rs.decide(p, &q) {
		return nil
	}
	return rs.denied(p, &q, nil)
}

// AllowRequest says whether the peer may make the request: some rule allows
// it, and none denies it.
func (rs *Rules) AllowRequest(p *Peer, r Request) error {
	q := requestQuery(r)
	if rs.decide(p, &q) {
		return nil
	}
	asked := r // r itself must not escape: that would cost the allowed an allocation
	return rs.denied(p, &q, &asked)
}

func (rs *Rules) denied(p *Peer, q *query, r *Request) *Denied {
	d := &Denied{Peer: p, Request: r, Reason: q.fault, rules: rs}
	if q.denied != nil && q.fault == "" {
		d.Rule = rs.where(q.denied)
	}
	return d
}

// decide puts the question to the rules about each of the peer's names, and
// reports whether it is allowed.
func (rs *Rules) decide(p *Peer, q *query) bool {
	switch {
	case rs == nil:
		q.fault = "there are no rules"
	case rs.err != nil:
		q.fault = "the rules are wrong: " + rs.err.Error()
	case p == nil:
		q.fault = "there is no certificate"
	default:
		rs.askAll(p, q)
	}
	return q.fault == "" && q.denied == nil && q.allowed != nil
}

func (rs *Rules) askAll(p *Peer, q *query) {
	names := 0
	for _, name := range p.DNSNames {
		if q.fault = dnsFault(name); q.fault != "" {
			return
		}
		var space [maxDNS]byte
		rs.askDNS(q, appendLower(space[:0], name))
		names++
	}
	for _, u := range p.URIs {
		if u == nil || !strings.EqualFold(u.Scheme, "spiffe") {
			continue
		}
		if q.fault = rs.askURI(q, p, u); q.fault != "" {
			return
		}
		names++
	}
	for _, ip := range p.IPAddresses {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok || addr.Is4In6() {
			q.fault = "an address of the certificate is neither IPv4 nor IPv6 proper"
			return
		}
		rs.askNetwork(q, netip.PrefixFrom(addr, addr.BitLen()))
		names++
	}
	if names == 0 {
		q.fault = "the certificate has no name that rules are about: a dns name, a SPIFFE ID, an address"
		return
	}
	q.hear(rs.everyone)
}

// askURI asks the rules about a URI that claims to be a SPIFFE ID.
func (rs *Rules) askURI(q *query, p *Peer, u *url.URL) (fault string) {
	if len(p.URIs) > 1 {
		return "a certificate with a SPIFFE ID has no other URI (X509-SVID section 2)"
	}
	if fault := spiffeFault(u); fault != "" {
		return fault
	}
	var space [maxSPIFFE]byte
	id := append(appendLower(append(space[:0], scheme...), u.Host), u.Path...)
	rs.askSPIFFE(q, id, len(scheme)+len(u.Host))
	return ""
}

// askDNS asks the rules about a dns name, which may begin with "*.": those
// that cover all it stands for, and for denial those that cover any of it (RFC
// 9525 section 6.3: a wildcard stands for one label).
func (rs *Rules) askDNS(q *query, name []byte) {
	if name[0] == '*' {
		for _, e := range rs.deniedChildren[string(name[2:])] {
			q.hearDeny(e)
		}
	} else {
		q.hear(rs.exact[string(name)])
	}
	rs.askParents(q, name)
}

func (rs *Rules) askParents(q *query, name []byte) {
	if len(rs.below) == 0 {
		return
	}
	for i, c := range name {
		if c == '.' {
			q.hear(rs.below[string(name[i+1:])])
		}
	}
}

// askSPIFFE asks the rules about a SPIFFE ID whose path begins at byte path.
func (rs *Rules) askSPIFFE(q *query, id []byte, path int) {
	q.hear(rs.exact[string(id)])
	if len(rs.below) == 0 {
		return
	}
	for i := path; i < len(id); i++ {
		if id[i] == '/' {
			q.hear(rs.below[string(id[:i+1])])
		}
	}
}

// askNetwork asks the rules about an address or a network: those that cover
// all of it.
func (rs *Rules) askNetwork(q *query, network netip.Prefix) {
	lengths := rs.v6
	if network.Addr().Is4() {
		lengths = rs.v4
	}
	for _, bits := range lengths {
		if around, err := network.Addr().Prefix(bits); err == nil && bits <= network.Bits() {
			q.hear(rs.networks[around])
		}
	}
}
