package acl

import (
	"strings"
	"unicode/utf8"
)

// maxRequestPath bounds the paths of requests that are compared at all.
const maxRequestPath = 4096

// pathFault says what keeps a path from being in the one normal form in which
// paths are compared, or "". Normal is what RFC 3986 section 6.2.2 leaves as it
// is; beyond that, nothing that some handler would undo: encoded slashes,
// backslashes, "%" and control characters, and ";" (path parameters).
func pathFault(path string) string {
	if path == "" || path[0] != '/' {
		return "a path begins with \"/\""
	}
	if len(path) > maxRequestPath {
		return "a path is longer than 4096 characters"
	}
	encoded := false
	for i := 0; i < len(path); i++ {
		why := ""
		switch c := path[i]; {
		case c == '/':
			why = segmentFault(path[i+1:])
		case c == '%':
			why = tripletFault(path[i:])
			encoded = true
			i += 2
		case !unreserved(c) && strings.IndexByte("!$&'()*+,=:@", c) < 0: // pchar but ";"
			why = "a \";\" stands in it, or a character that should be encoded"
		}
		if why != "" {
			return why
		}
	}
	if encoded && !isUTF8(path) {
		return "its encoded characters are not UTF-8"
	}
	return ""
}

// segmentFault looks at the segment that rest begins with.
func segmentFault(rest string) string {
	segment, _, more := strings.Cut(rest, "/")
	switch {
	case segment == "" && more:
		return "two slashes stand in a row"
	case segment == "." || segment == "..":
		return "a segment is \".\" or \"..\""
	}
	return ""
}

// tripletFault looks at the "%2F" that s begins with.
func tripletFault(s string) string {
	switch octet, ok := triplet(s); {
	case !ok:
		return "a \"%\" is not followed by two digits or upper-case letters A to F"
	case octet < 0x20 || octet == 0x7f || strings.IndexByte("/\\%;", octet) >= 0:
		return "an encoded slash, backslash, \"%\", \";\" or control character stands in it"
	case unreserved(octet):
		return "a character is encoded that needs no encoding"
	}
	return ""
}

// triplet decodes "%C3"; digits in lower case are not the normal form.
func triplet(s string) (octet byte, ok bool) {
	if len(s) < 3 {
		return 0, false
	}
	const digits = "0123456789ABCDEF"
	high, low := strings.IndexByte(digits, s[1]), strings.IndexByte(digits, s[2])
	return byte(high<<4 | low), high >= 0 && low >= 0
}

// isUTF8 reports whether a path whose triplets are well-formed decodes to
// UTF-8: overlong forms hide slashes.
func isUTF8(path string) bool {
	var octets [utf8.UTFMax]byte
	n := 0 // of a character that isn't whole yet
	for i := 0; i < len(path); i++ {
		octets[n] = path[i]
		if path[i] == '%' {
			octets[n], _ = triplet(path[i:])
			i += 2
		}
		n++
		if !utf8.FullRune(octets[:n]) {
			continue
		}
		if r, size := utf8.DecodeRune(octets[:n]); r == utf8.RuneError && size == 1 {
			return false
		}
		n = 0
	}
	return n == 0
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
