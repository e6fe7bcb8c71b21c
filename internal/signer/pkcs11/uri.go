package pkcs11

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a URI. The widths of token, manufacturer, model and serial are
// those of CK_TOKEN_INFO, so a longer value could never match; a label and an
// id have no bound in PKCS#11, and no token takes more than this.
const (
	maxURI      = 2 << 10
	maxLabel    = 32
	maxModel    = 16
	maxSerial   = 16
	maxObject   = 255
	maxID       = 255
	maxPath     = 1024
	maxParallel = 64
)

// URI is a parsed "pkcs11:" URI (RFC 7512 section 2.3) that names a private
// key. Empty fields match anything.
type URI struct {
	Token, Serial, Manufacturer, Model string // CK_TOKEN_INFO, without padding
	SlotID                             *uint64
	Object                             string // CKA_LABEL
	ID                                 []byte // CKA_ID

	ModulePath string // absolute
	ModuleName string // without folder, "lib" and ".so"
	PINSource  string // an absolute path

	// Parallel is how many signatures the token may be given at once, 1 to 64,
	// or 0: as the token seems to be. Its attribute, chancery-parallel, is
	// ours (RFC 7512 section 2.3 leaves room for that).
	Parallel int
}

// ParseURI parses what follows RFC 7512 to the letter: every character that
// isn't allowed bare is percent-encoded, no attribute comes twice. It refuses
// attributes it doesn't know, as they would narrow the search for the reader
// but not for us, and a PIN in the URI. It does no I/O.
func ParseURI(s string) (URI, error) {
	u, err := parseURI(s)
	if err != nil {
		// The text isn't quoted: it may hold a PIN.
		return URI{}, fmt.Errorf("pkcs11 URI: %w", err)
	}
	return u, nil
}

func parseURI(s string) (u URI, err error) {
	rest, ok := strings.CutPrefix(s, "pkcs11:")
	switch {
	case len(s) > maxURI:
		return u, fmt.Errorf("is over %d characters", maxURI)
	case !ok:
		return u, errors.New(`doesn't start with "pkcs11:"`)
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if err := attributes(path, ";", ":[]@!$'()*+,=&", u.setPath); err != nil {
		return u, err
	}
	if hasQuery {
		if err := attributes(query, "&", ":[]@!$'()*+,=/?|", u.setQuery); err != nil {
			return u, err
		}
	}
	if u.ModuleName != "" && u.ModulePath != "" {
		return u, errors.New("has both module-name and module-path; keep one")
	}
	return u, nil
}

// attributes splits name=value pairs, decodes the values and hands them on.
// bare are the characters that may stand for themselves beside the unreserved
// ones (RFC 7512 section 2.3).
func attributes(text, separator, bare string, set func(name, value string) error) error {
	if text == "" {
		return nil
	}
	var seen []string
	for pair := range strings.SplitSeq(text, separator) {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || !isName(name) {
			return fmt.Errorf("has a part that is no attribute=value; parts are separated by %q", separator)
		}
		if slices.Contains(seen, name) {
			return fmt.Errorf("has %s twice", name)
		}
		seen = append(seen, name)
		if value == "" {
			return fmt.Errorf("has an empty %s; leave it out", name)
		}
		decoded, err := decode(value, bare)
		if err != nil {
			return fmt.Errorf("attribute %s %w", name, err)
		}
		if err := set(name, decoded); err != nil {
			return err
		}
	}
	return nil
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if !isAlnum(c) && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// decode resolves percent-encoding and refuses what should have been encoded.
func decode(s, bare string) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isAlnum(c) || strings.IndexByte("-._~", c) >= 0 || strings.IndexByte(bare, c) >= 0:
			out = append(out, c)
		case c == '%':
			if i+3 > len(s) {
				return "", errors.New(`ends in the middle of a %XX`)
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", errors.New(`has a % that isn't followed by two hex digits; write % itself as %25`)
			}
			out = append(out, byte(n))
			i += 2
		default:
			return "", fmt.Errorf("has a character that must be written %%%02X", c)
		}
	}
	return string(out), nil
}

func (u *URI) setPath(name, value string) error {
	switch name {
	case "token":
		return padded(&u.Token, name, value, maxLabel)
	case "serial":
		return padded(&u.Serial, name, value, maxSerial)
	case "manufacturer":
		return padded(&u.Manufacturer, name, value, maxLabel)
	case "model":
		return padded(&u.Model, name, value, maxModel)
	case "object":
		return text(&u.Object, name, value, maxObject)
	case "id":
		if len(value) > maxID {
			return fmt.Errorf("has an id of over %d bytes", maxID)
		}
		u.ID = []byte(value)
		return nil
	case "slot-id":
		// CK_SLOT_ID is an unsigned long; leading zeros and signs are none of
		// RFC 7512's 1*DIGIT forms that print back as they were.
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || strconv.FormatUint(n, 10) != value {
			return errors.New("has a slot-id that is no decimal number")
		}
		u.SlotID = &n
		return nil
	case "type":
		if value != "private" {
			return fmt.Errorf("has type=%.20q; a signer is a private key: write type=private or leave it out", value)
		}
		return nil
	}
	return fmt.Errorf("has %.40q, which isn't supported here; use token, serial, manufacturer, model, slot-id, object, id, type=private", name)
}

func (u *URI) setQuery(name, value string) error {
	switch name {
	case "pin-value":
		return errors.New("has a pin-value: a secret in a configuration; put the PIN into a file of mode 0600 and name it with pin_file, or with pin-source=file:/path")
	case "pin-source":
		path, ok := strings.CutPrefix(value, "file:")
		if strings.HasPrefix(path, "///") {
			path = path[2:] // RFC 8089: an empty authority
		}
		if !ok || !filepath.IsAbs(path) || strings.HasPrefix(path, "//") {
			return errors.New("has a pin-source that isn't file:/path; commands and other sources aren't supported")
		}
		return text(&u.PINSource, name, path, maxPath)
	case "module-path":
		if !filepath.IsAbs(value) {
			return errors.New("has a module-path that isn't absolute; write it from / on, or use module-name")
		}
		return text(&u.ModulePath, name, value, maxPath)
	case "module-name":
		if strings.ContainsAny(value, "/.") {
			return errors.New("has a module-name with a folder or a dot in it; write softhsm2 for libsofthsm2.so, or use module-path")
		}
		return text(&u.ModuleName, name, value, maxLabel)
	case "chancery-parallel":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxParallel || strconv.Itoa(n) != value {
			return fmt.Errorf("has a chancery-parallel that isn't a number from 1 to %d", maxParallel)
		}
		u.Parallel = n
		return nil
	}
	return fmt.Errorf("has %.40q after the question mark, which isn't supported here; use module-path, module-name, pin-source, chancery-parallel", name)
}

// padded stores a value that a token pads with spaces: these don't count.
func padded(field *string, name, value string, bound int) error {
	return text(field, name, strings.TrimRight(value, " "), bound)
}

// text stores a value that C code reads as a string: UTF-8 without NUL.
func text(field *string, name, value string, bound int) error {
	switch {
	case value == "":
		return fmt.Errorf("has an empty %s; leave it out", name)
	case len(value) > bound:
		return fmt.Errorf("has a %s of over %d bytes, which none has", name, bound)
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return fmt.Errorf("has a %s that isn't UTF-8 text", name)
	}
	*field = value
	return nil
}

// String is the URI in one fixed order and spelling; ParseURI of it gives u.
func (u URI) String() string {
	var path, query []string
	add := func(to *[]string, bare, name, value string) {
		if value != "" {
			*to = append(*to, name+"="+encode(value, bare))
		}
	}
	add(&path, ":", "token", u.Token)
	add(&path, ":", "serial", u.Serial)
	add(&path, ":", "manufacturer", u.Manufacturer)
	add(&path, ":", "model", u.Model)
	if u.SlotID != nil {
		path = append(path, "slot-id="+strconv.FormatUint(*u.SlotID, 10))
	}
	add(&path, ":", "object", u.Object)
	add(&path, "", "id", string(u.ID))
	add(&query, "/:", "module-path", u.ModulePath)
	add(&query, ":", "module-name", u.ModuleName)
	if u.PINSource != "" {
		add(&query, "/:", "pin-source", "file:"+u.PINSource)
	}
	if u.Parallel != 0 {
		query = append(query, "chancery-parallel="+strconv.Itoa(u.Parallel))
	}
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

// encode percent-encodes all but unreserved characters and those in bare. With
// bare "" everything is encoded, as RFC 7512 section 2.3 recommends for id.
func encode(s, bare string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if bare != "" && (isAlnum(c) || strings.IndexByte("-._~", c) >= 0 || strings.IndexByte(bare, c) >= 0) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
