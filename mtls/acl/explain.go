package acl

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Explain says in a few lines for an operator how a policy decides about a
// peer and why: which rule decided, or which is missing, and which rules there
// are about this peer. With the zero Request it is about the connection only.
func Explain(policy Policy, p *Peer, r Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "peer:       %s\n", p)
	if p != nil && p.SerialNumber != nil {
		fmt.Fprintf(&b, "            issued by %q, serial %s\n", shortened(p.Issuer.String()), p.serial())
	}
	if policy == nil {
		return b.String() + "denied:     there is no policy\n"
	}
	rs, _ := policy.(*Rules)
	if f, ok := policy.(*File); ok && f != nil {
		rs = f.Rules()
		if err := f.Err(); err != nil {
			fmt.Fprintf(&b, "not obeyed: %s\n", err)
		}
		policy = rs // one version for all lines
	}
	q := query{connection: true, all: true}
	rs.explain(&b, "connection:", p, &q, policy.Allow(p))
	if r != (Request{}) {
		fmt.Fprintf(&b, "request:    %s\n", r)
		q = requestQuery(r)
		q.all = true
		rs.explain(&b, "decision:", p, &q, policy.AllowRequest(p, r))
	}
	for i, known := range rs.about(&q) {
		if i == maxShown {
			b.WriteString("            and more\n")
			break
		}
		fmt.Fprintf(&b, "its rules:  %s\n", rs.where(known))
	}
	return b.String()
}

// explain writes one decision. rs is nil where the policy isn't made of rules.
func (rs *Rules) explain(b *strings.Builder, what string, p *Peer, q *query, err error) {
	switch {
	case err != nil:
		fmt.Fprintf(b, "%-11s denied: %s\n", what, err)
	case rs.decide(p, q):
		fmt.Fprintf(b, "%-11s allowed by %s\n", what, rs.where(q.allowed))
		return
	default:
		fmt.Fprintf(b, "%-11s allowed\n", what)
	}
	rs.decide(p, q)
}

// about lists the rules that were heard, in the file's order.
func (rs *Rules) about(q *query) (all []*rule) {
	for _, e := range q.heard {
		all = append(all, e.rules...)
	}
	slices.SortFunc(all, func(a, b *rule) int { return a.line - b.line })
	return all
}

// nearest says which rule comes nearest to what is missing, as a text to be
// put behind; "" if none does. It looks at every rule: for texts only.
func (rs *Rules) nearest(p *Peer, r *Request) string {
	if rs == nil {
		return ""
	}
	q := query{connection: true, all: true}
	if rs.decide(p, &q); r != nil && q.allowed != nil {
		text := "; it may do something else by " + rs.where(q.allowed)
		if why := pathFault(r.Path); why != "" {
			text = "; no rule with a path allows such a path: " + why + text
		}
		return text
	}
	var best *rule
	most, names := 0, p.names(maxShown)
	for i := range rs.rules {
		for _, name := range names {
			if n := shared(rs.rules[i].subject.text, name.text); n > most && !rs.rules[i].deny {
				best, most = &rs.rules[i], n
			}
		}
	}
	if best == nil {
		return ""
	}
	if rs.name == "" {
		return fmt.Sprintf("; %q (pattern %d of acl.Allow) comes nearest", best.subject.text, best.line)
	}
	return fmt.Sprintf("; %q (%s:%d) comes nearest", best.subject.text, rs.name, best.line)
}

// shared counts what two names have in common: the first segments of SPIFFE
// IDs, else the last labels.
func shared(a, b string) (n int) {
	a, isID := strings.CutPrefix(a, scheme)
	b, isID2 := strings.CutPrefix(b, scheme)
	if isID != isID2 {
		return 0
	}
	for a != "" && b != "" {
		var first, second string
		if isID {
			first, a, _ = strings.Cut(a, "/")
			second, b, _ = strings.Cut(b, "/")
		} else {
			a, first = cutLast(a)
			b, second = cutLast(b)
		}
		if first != second {
			break
		}
		n++
	}
	return n
}

func cutLast(name string) (rest, label string) {
	dot := strings.LastIndexByte(name, '.')
	return name[:max(dot, 0)], name[dot+1:]
}

// Warnings tells of rules that say nothing: those that stand there twice, and
// allow rules whose every request is denied by others. Each is a text with
// the rule's place.
func (rs *Rules) Warnings() (warnings []string) {
	if rs == nil {
		return nil
	}
	seen := map[string]*rule{}
	for i := range rs.rules {
		r := &rs.rules[i]
		if first := seen[r.String()]; first != nil {
			warnings = append(warnings, fmt.Sprintf("%s: stands in line %d already", rs.where(r), first.line))
			continue
		}
		seen[r.String()] = r
		if by := rs.deniedBy(r); !r.deny && by != nil {
			warnings = append(warnings, fmt.Sprintf("%s: allows nothing, because of %s", rs.where(r), rs.where(by)))
		}
	}
	return warnings
}

// deniedBy returns a deny rule about all whom the rule is about, if such rules
// deny all its requests.
func (rs *Rules) deniedBy(r *rule) (by *rule) {
	q := query{all: true}
	s := r.subject
	switch above, isWildcard := strings.CutSuffix(s.text, "*"); {
	case s.network.IsValid():
		rs.askNetwork(&q, s.network)
	case strings.HasPrefix(s.text, "*."):
		rs.askParents(&q, []byte(s.text))
	case isWildcard && above != "":
		rs.askSPIFFE(&q, []byte(above), len(scheme))
	case strings.HasPrefix(s.text, scheme):
		rs.askSPIFFE(&q, []byte(s.text), len(scheme))
	case !isWildcard:
		rs.askDNS(&q, []byte(s.text))
	}
	q.hear(rs.everyone)
	names := r.methods
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		by = nil
		for _, e := range q.heard {
			// A path with its "*" is met by no exact path, and by what is above it.
			by = cmp.Or(by, e.deny.match(&query{method: name, path: r.path}))
		}
		if by == nil {
			return nil
		}
	}
	return by
}
