package jws

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds on what a stranger may send.
const (
	// MaxBody is the longest message in bytes: room for an order of a thousand
	// names or a CSR for as many, a hundred times the usual request.
	MaxBody = 128 << 10
	// maxHeader bounds the decoded protected header. The largest honest one
	// holds an RSA key of 4096 bits (700 bytes), a URL and a nonce.
	maxHeader = 8 << 10
	// maxDepth bounds nesting. ACME's deepest payload has three levels.
	maxDepth = 8
	// maxMembers bounds one object, which keeps the search for duplicates
	// cheap. ACME's largest object has under twenty members.
	maxMembers = 64
)

// scanner reads one JSON text (RFC 8259) once, strictly: it refuses what
// encoding/json repairs or overlooks (invalid UTF-8, lone surrogates, U+0000,
// members that are equal but for case) and what exceeds the bounds above.
type scanner struct {
	data  []byte
	pos   int
	depth int
	what  string // name of the text, as error details begin
}

func (s *scanner) fail(what string) error { return malformed("the %s %s", s.what, what) }

// document reads one object with nothing but white space around it. member is
// called at each member's value and must consume it.
func (s *scanner) document(member func(name []byte) error) error {
	s.space()
	if s.peek() != '{' {
		return s.fail("must be a JSON object")
	}
	if err := s.object(member); err != nil {
		return err
	}
	if s.space(); s.pos != len(s.data) {
		return s.fail("has more data after its JSON object")
	}
	return nil
}

// object reads an object, from its opening brace.
func (s *scanner) object(member func(name []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	var room [16][]byte // most objects fit: no allocation
	names := room[:0]
	for {
		if end, err := s.next('}', len(names) == 0); end || err != nil {
			return err
		}
		name, err := s.str()
		if err != nil {
			return err
		}
		for _, other := range names {
			if bytes.EqualFold(name, other) {
				return malformed("the %s has the member %.40q twice (upper and lower case count as the same)", s.what, name)
			}
		}
		if names = append(names, name); len(names) > maxMembers {
			return s.fail("has an object with more than " + strconv.Itoa(maxMembers) + " members")
		}
		if s.space(); !s.take(':') {
			return s.fail("is not valid JSON: a colon is missing")
		}
		s.space()
		if err := member(name); err != nil {
			return err
		}
	}
}

// skip reads any value and forgets it.
func (s *scanner) skip() error {
	switch c := s.peek(); c {
	case '{':
		return s.object(func([]byte) error { return s.skip() })
	case '[':
		return s.array()
	case '"':
		_, err := s.str()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) array() error {
	if err := s.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		if end, err := s.next(']', first); end || err != nil {
			return err
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}

// enter steps over an opening bracket.
func (s *scanner) enter() error {
	if s.depth++; s.depth > maxDepth {
		return s.fail("is nested more than " + strconv.Itoa(maxDepth) + " levels deep")
	}
	s.pos++
	return nil
}

// next moves to the next member or element, or over the closing bracket.
func (s *scanner) next(closing byte, first bool) (end bool, err error) {
	if s.space(); s.take(closing) {
		s.depth--
		return true, nil
	}
	if !first && !s.take(',') {
		return false, s.fail("is not valid JSON: a comma or closing bracket is missing")
	}
	s.space()
	return false, nil
}

// str reads a string. The result is never nil; it is part of the text itself
// unless there were escapes.
func (s *scanner) str() ([]byte, error) {
	if !s.take('"') {
		return nil, s.fail("must have a JSON string where it has something else")
	}
	start := s.pos
	for i, c := range s.data[start:] {
		switch {
		case c == '"':
			s.pos = start + i + 1
			return s.checkUTF8(s.data[start : start+i])
		case c == '\\':
			return s.escaped(start, start+i)
		case c < ' ':
			return nil, s.fail("has a control character in a string")
		}
	}
	return nil, s.fail("is not valid JSON: a string does not end")
}

// escaped reads on in a string that began at start and has its first escape at i.
func (s *scanner) escaped(start, i int) ([]byte, error) {
	out := bytes.Clone(s.data[start:i])
	for i < len(s.data) {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			return s.checkUTF8(out)
		case c == '\\':
			r, n := unescape(s.data[i+1:])
			if n == 0 {
				return nil, s.fail(`has a string escape that is invalid, half a surrogate pair or \u0000`)
			}
			out = utf8.AppendRune(out, r)
			i += 1 + n
		case c < ' ':
			return nil, s.fail("has a control character in a string")
		default:
			out = append(out, c)
			i++
		}
	}
	return nil, s.fail("is not valid JSON: a string does not end")
}

// unescape decodes the escape whose backslash is before b. It returns the
// number of bytes used, 0 if the escape isn't to be taken. NUL is refused
// because neither a name nor a URL has one, and databases choke on it.
func unescape(b []byte) (r rune, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	switch b[0] {
	case '"', '\\', '/':
		return rune(b[0]), 1
	case 'b':
		return '\b', 1
	case 'f':
		return '\f', 1
	case 'n':
		return '\n', 1
	case 'r':
		return '\r', 1
	case 't':
		return '\t', 1
	case 'u':
		r, n = unicodeEscape(b), 5
	}
	if utf16.IsSurrogate(r) {
		if len(b) < 7 || b[5] != '\\' {
			return 0, 0
		}
		if r = utf16.DecodeRune(r, unicodeEscape(b[6:])); r == utf8.RuneError {
			return 0, 0
		}
		n = 11
	}
	if r == 0 {
		return 0, 0
	}
	return r, n
}

// unicodeEscape decodes uXXXX; 0 where there is none.
func unicodeEscape(b []byte) rune {
	if len(b) < 5 || b[0] != 'u' {
		return 0
	}
	v, err := strconv.ParseUint(string(b[1:5]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(v)
}

func (s *scanner) checkUTF8(text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return nil, s.fail("has a string that is not valid UTF-8")
	}
	return text, nil
}

// number reads a number by the grammar of RFC 8259 section 6.
func (s *scanner) number() error {
	s.take('-')
	ok := s.take('0') || s.digits()
	if s.take('.') {
		ok = s.digits() && ok
	}
	if s.take('e') || s.take('E') {
		_ = s.take('+') || s.take('-')
		ok = s.digits() && ok
	}
	if !ok {
		return s.fail("is not valid JSON: a value is missing or is not one")
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.fail("is not valid JSON: a value is missing or is not one")
	}
	s.pos += len(word)
	return nil
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek gives the next byte, 0 at the end (0 is valid nowhere in JSON).
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}
