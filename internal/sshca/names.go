package sshca

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// nameChars may stand in user names and names of extensions. Not among them:
// white space and commas, which end a name in sshd's files; * ? !, which are
// patterns there; # and quotes; control characters, which forge log lines; %,
// backslash and the shell's characters, for those who hand names to programs.
const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@:/="

// Bounds of principals: OpenSSH reads 256 at most
// (SSHKEY_CERT_MAX_PRINCIPALS), a user name has 255 bytes at most on Linux.
const (
	maxPrincipals = 256
	maxPrincipal  = 255
)

// checkPrincipals holds what makes a list of principals safe. An empty one would
// be valid for everybody (PROTOCOL.certkeys), and ssh matches a host's
// principals as patterns.
func checkPrincipals(kind Kind, names []string) error {
	if len(names) == 0 {
		return errors.New("an SSH certificate without principals would be valid for everybody; name at least one")
	}
	if len(names) > maxPrincipals {
		return fmt.Errorf("%d principals: OpenSSH takes at most %d", len(names), maxPrincipals)
	}
	for i, name := range names {
		if why := principalFault(kind, name); why != "" {
			return fmt.Errorf("principal %.60q: %s", name, why)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("principal %.60q comes twice", name)
		}
	}
	return nil
}

// principalFault says what is wrong with one principal, "" if nothing.
func principalFault(kind Kind, name string) string {
	if kind == Host {
		return hostFault(name)
	}
	switch {
	case name == "":
		return "it is empty"
	case len(name) > maxPrincipal:
		return fmt.Sprintf("longer than %d bytes", maxPrincipal)
	case strings.Trim(name, nameChars) != "":
		return "only ASCII letters, digits and ._-+@:/= may stand in it"
	case name[0] == '-':
		return "it begins with a hyphen, as an option of a command does"
	}
	return ""
}

// hostFault demands a host name or an address in the form that ssh compares.
func hostFault(name string) string {
	typ := protocol.DNS
	if _, err := netip.ParseAddr(name); err == nil {
		typ = protocol.IP
	}
	id, err := protocol.ParseIdentifier(string(typ), name)
	switch {
	case err != nil:
		return "not a host name or an IP address"
	case id.IsWildcard():
		return "a wildcard"
	case id.Value != name:
		return "write it as " + id.Value
	}
	return ""
}

// maxKeyID keeps sshd's log line whole.
const maxKeyID = 256

// KeyID is a certificate's key ID: "person/device", or the person (or host)
// alone where there is no device. sshd logs it as it is, between words of its
// own, so all but ASCII letters, digits and ._-+@:= is escaped as in a URL: no
// name can forge a log line, and [ParseKeyID] gives back just what went in.
func KeyID(person, device string) (string, error) {
	if person == "" {
		return "", errors.New("a key ID must name someone")
	}
	id := escape(person)
	if device != "" {
		id += "/" + escape(device)
	}
	if len(id) > maxKeyID {
		return "", fmt.Errorf("the key ID for %.60q on %.60q is longer than %d bytes", person, device, maxKeyID)
	}
	return id, nil
}

// ParseKeyID takes a key ID apart, as from a line of sshd's log. device is "" if
// there is none. It fails on what KeyID doesn't write.
func ParseKeyID(id string) (person, device string, err error) {
	first, second, _ := strings.Cut(id, "/")
	person, err1 := url.PathUnescape(first)
	device, err2 := url.PathUnescape(second)
	if err1 == nil && err2 == nil {
		if again, err := KeyID(person, device); err == nil && again == id {
			return person, device, nil
		}
	}
	return "", "", fmt.Errorf("%.60q is not a key ID of ours", id)
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c != '/' && strings.IndexByte(nameChars, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// checkKeyID is what lint demands of a key ID, whoever made it.
func checkKeyID(id string) error {
	if id == "" || len(id) > maxKeyID || strings.Trim(id, nameChars+"%") != "" {
		return fmt.Errorf("key ID %.60q: want 1 to %d characters, ASCII letters, digits and ._-+@:/=%%", id, maxKeyID)
	}
	return nil
}

// NewSerial returns a fresh random serial: 63 bits, so that any database keeps
// it, and never 0.
func NewSerial() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails (crypto/rand)
		if n := binary.BigEndian.Uint64(b[:]) >> 1; n != 0 {
			return n
		}
	}
}

// serialText is a serial as records keep it: 16 hexadecimal digits, where
// those of X.509 have 32.
func serialText(n uint64) cert.Serial { return cert.Serial(fmt.Sprintf("%016x", n)) }

// ParseSerial reads a Prepared's serial again, for a KRL.
func ParseSerial(s cert.Serial) (uint64, error) {
	n, err := strconv.ParseUint(string(s), 16, 64)
	if err != nil || n == 0 || serialText(n) != s {
		return 0, fmt.Errorf("%.40q is not the serial of an SSH certificate", string(s))
	}
	return n, nil
}

// CheckUserPrincipals refuses what can't be the principals of a user's
// certificate.
func CheckUserPrincipals(names []string) error { return checkPrincipals(User, names) }
