package acl

import (
	"slices"
	"strings"
)

// query is one question to the rules, and what they said.
type query struct {
	connection   bool // it is about the connection, not a request
	method, path string
	oddMethod    bool // not as HTTP's are: nobody knows what a handler takes it for
	oddPath      bool // not in normal form: the same

	allowed, denied *rule  // the first of each that was heard
	fault           string // why the rules were not asked, or not to the end
	all             bool   // for texts: keep whom was heard
	heard           []*entry
}

func requestQuery(r Request) query {
	return query{method: r.Method, path: r.Path, oddMethod: methodFault(r.Method) != "", oddPath: pathFault(r.Path) != ""}
}

// hear lets the rules about one subject have their say.
func (q *query) hear(e *entry) {
	if e == nil {
		return
	}
	q.hearDeny(e)
	if q.allowed == nil {
		q.allowed = e.allow.match(q)
	}
}

// hearDeny lets only those have it that deny.
func (q *query) hearDeny(e *entry) {
	if q.denied == nil {
		q.denied = e.deny.match(q)
	}
	if q.all {
		q.heard = append(q.heard, e)
	}
}

// entry holds the rules about one subject.
type entry struct {
	allow, deny *requests // nil: none
	rules       []*rule   // all of them, in order
}

func (e *entry) add(r *rule) {
	set := &e.allow
	if r.deny {
		set = &e.deny
	}
	if *set == nil {
		*set = &requests{deny: r.deny, first: r}
	}
	(*set).add(r)
	e.rules = append(e.rules, r)
}

// requests is what one subject's allow rules allow, or its deny rules deny.
type requests struct {
	deny    bool
	first   *rule              // any rule at all
	always  methods            // of rules without a path
	exact   map[string]methods // by path
	below   map[string]methods // by what stands before the "*"
	longest int                // key in below
	pathed  methods            // of all rules with a path
}

func (s *requests) add(r *rule) {
	if r.path == "" {
		s.always = s.always.with(r)
		return
	}
	s.pathed = s.pathed.with(r)
	path, wildcard := strings.CutSuffix(r.path, "*")
	if wildcard {
		s.below = put(s.below, path, r)
		s.longest = max(s.longest, len(path))
	} else {
		s.exact = put(s.exact, path, r)
	}
	if !r.deny {
		return
	}
	// Many routers take /a and /a/ for the same.
	if twin, slash := strings.CutSuffix(path, "/"); slash && twin != "" {
		s.exact = put(s.exact, twin, r)
	} else if !slash {
		s.exact = put(s.exact, path+"/", r)
	}
}

func put(m map[string]methods, path string, r *rule) map[string]methods {
	if m == nil {
		m = map[string]methods{}
	}
	m[path] = m[path].with(r)
	return m
}

// match returns a rule about what is asked, if there is one. What is in doubt
// isn't allowed, and is denied.
func (s *requests) match(q *query) *rule {
	switch {
	case s == nil:
		return nil
	case q.connection && s.deny:
		return s.always.about("", false) // a rule about some requests denies no connection
	case q.connection:
		return s.first
	}
	doubt := s.deny && q.oddMethod
	if r := s.always.about(q.method, doubt); r != nil {
		return r
	}
	if q.oddPath {
		if s.deny {
			return s.pathed.about(q.method, doubt)
		}
		return nil
	}
	if r := s.exact[q.path].about(q.method, doubt); r != nil {
		return r
	}
	for i := 0; i < min(len(q.path), s.longest); i++ {
		if q.path[i] == '/' {
			if r := s.below[q.path[:i+1]].about(q.method, doubt); r != nil {
				return r
			}
		}
	}
	return nil
}

// methods are the methods that rules are about, "" for all, each with the
// first rule that is.
type methods []method

type method struct {
	name string
	rule *rule
}

func (m methods) with(r *rule) methods {
	names := r.methods
	if len(names) == 0 {
		names = []string{""}
	}
	if slices.Contains(names, "GET") { // RFC 9110 section 9.3.2: HEAD is GET without the content
		names = append(slices.Clone(names), "HEAD")
	}
	for _, name := range names {
		if !slices.ContainsFunc(m, func(has method) bool { return has.name == name }) {
			m = append(m, method{name, r})
		}
	}
	return m
}

// about returns the rule about the method, or any if there is doubt what the
// method is.
func (m methods) about(name string, doubt bool) *rule {
	for i := range m {
		if m[i].name == "" || m[i].name == name || doubt {
			return m[i].rule
		}
	}
	return nil
}

// methodFault says what keeps a word from being a method as HTTP's are: a
// token (RFC 9110 section 5.6.2) in upper case. Of others nobody knows what a
// handler takes them for.
func methodFault(word string) string {
	if word == "" || len(word) > 32 {
		return "a method has 1 to 32 characters"
	}
	for i := 0; i < len(word); i++ {
		c := word[i]
		if !('A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return "a method has upper-case letters, digits, \"-\" and \"_\", as in \"GET,POST\""
		}
	}
	return ""
}
