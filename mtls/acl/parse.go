package acl

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of a rules file.
const (
	maxText    = 4 << 20 // bytes
	maxLine    = 4096    // bytes
	maxRules   = 100_000
	maxMethods = 16   // of one rule
	maxPath    = 1024 // bytes
)

// ParseError says where a text of rules is wrong, and what would be right.
type ParseError struct {
	Name         string // the file's
	Line, Column int    // from 1; the column in bytes
	Reason       string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Name, e.Line, e.Column, e.Reason)
}

// Parse reads rules (see the package comment for their form), a line each.
// The name is the file's, for texts. The error is a [*ParseError] about the
// first fault. A text without rules denies everyone. It has at most 4 MiB,
// 100,000 rules, and 4096 bytes a line.
func Parse(name string, text []byte) (*Rules, error) {
	if name == "" {
		name = "rules"
	}
	if len(text) > maxText {
		return nil, &ParseError{name, 1, 1, "it is longer than 4 MiB"}
	}
	var all []rule
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		r, fault := parseLine(string(line))
		if fault == nil && len(all) == maxRules {
			fault = &ParseError{Column: 1, Reason: "there are more than 100,000 rules"}
		}
		if fault != nil {
			fault.Name, fault.Line = name, number
			return nil, fault
		}
		if r != nil {
			r.line = number
			all = append(all, *r)
		}
	}
	return compile(name, all), nil
}

// word is a word of a line and the column where it begins.
type word struct {
	text   string
	column int
}

func (w word) fault(format string, args ...any) *ParseError {
	return &ParseError{Column: w.column, Reason: fmt.Sprintf(format, args...)}
}

// parseLine reads one line; a nil rule is a line without one.
func parseLine(line string) (*rule, *ParseError) {
	if fault := lineFault(line); fault != nil {
		return nil, fault
	}
	line, _, _ = strings.Cut(line, "#")
	words := split(line)
	if len(words) == 0 {
		return nil, nil
	}
	r := new(rule)
	if key := words[0]; key.text == "allow" || key.text == "deny" {
		r.deny = key.text == "deny"
		words = words[1:]
		if len(words) == 0 {
			return nil, word{column: key.column + len(key.text)}.fault("%s whom? a name comes next, as in \"%s web.prod.internal\"", key.text, key.text)
		}
	} else if lower := strings.ToLower(key.text); lower == "allow" || lower == "deny" {
		return nil, key.fault("write %q in lower case", lower)
	}
	s, why := parseSubject(words[0].text)
	if why != "" {
		return nil, words[0].fault("%s", why)
	}
	r.subject = s
	return r, r.parseRequests(words[1:])
}

// lineFault finds what a line can't have, comments included: what would show
// a reader something else than is there.
func lineFault(line string) *ParseError {
	if len(line) > maxLine {
		return word{column: maxLine + 1}.fault("a line has at most %d bytes", maxLine)
	}
	for i, c := range line {
		at := word{column: i + 1}
		_, size := utf8.DecodeRuneInString(line[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			return at.fault("not UTF-8")
		case c == '\ufeff':
			return at.fault("a byte order mark; save the file without")
		case c != '\t' && unicode.IsControl(c), unicode.Is(unicode.Bidi_Control, c):
			return at.fault("a control character (%U)", c)
		}
	}
	return nil
}

func split(line string) (words []word) {
	for i := 0; i < len(line); {
		start := i
		for i < len(line) && line[i] != ' ' && line[i] != '\t' {
			i++
		}
		if i > start {
			words = append(words, word{line[start:i], start + 1})
		}
		i++
	}
	return words
}

// parseRequests reads what follows the name: methods, a path, or both.
func (r *rule) parseRequests(words []word) *ParseError {
	if len(words) > 0 && words[0].text[0] != '/' {
		if fault := r.parseMethods(words[0]); fault != nil {
			return fault
		}
		words = words[1:]
	}
	if len(words) > 0 {
		if fault := r.parsePath(words[0]); fault != nil {
			return fault
		}
		words = words[1:]
	}
	if len(words) > 0 {
		return words[0].fault("%q is too much: a rule is a name, methods, a path; write a line for each path", shortened(words[0].text))
	}
	return nil
}

func (r *rule) parseMethods(w word) *ParseError {
	at := w
	for name := range strings.SplitSeq(w.text, ",") {
		at.text = name
		switch {
		case name == "":
			return at.fault("a method is missing; write as in \"GET,POST\", without blanks")
		case name == "*":
			return at.fault("for all methods, or all paths, leave it out")
		case methodFault(name) != "":
			return at.fault("%q: %s; a path begins with \"/\", another name has a line of its own", shortened(name), methodFault(name))
		case len(r.methods) == maxMethods:
			return at.fault("a rule has at most %d methods; leave them out for all", maxMethods)
		case !slices.Contains(r.methods, name):
			r.methods = append(r.methods, name)
		}
		at.column += len(name) + 1
	}
	return nil
}

func (r *rule) parsePath(w word) *ParseError {
	path, wildcard := strings.CutSuffix(w.text, "*")
	star := strings.IndexByte(path, '*')
	why := pathFault(path)
	switch {
	case w.text == "*":
		return w.fault("for all paths leave it out")
	case len(w.text) > maxPath:
		return w.fault("a path has at most %d bytes", maxPath)
	case star >= 0 || wildcard && !strings.HasSuffix(path, "/"):
		return w.fault("%q: a wildcard stands only for the end after a slash, as in \"/reports/*\"", shortened(w.text))
	case why != "":
		return w.fault("%q would never be met: %s", shortened(w.text), why)
	}
	r.path = w.text
	return nil
}
