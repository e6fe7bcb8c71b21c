package sshhost

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Login is a login by public key, as sshd logs it.
type Login struct {
	User         string   // the account; "?" where the line can be read in two ways
	From         string   // the client's address, likewise
	Fingerprints []string // every one that the line names: of the key, and of the CA of a certificate
}

// sshd writes (auth.c, auth_log):
//
//	Accepted publickey for USER from ADDRESS port N ssh2: ED25519 SHA256:…
//	Accepted publickey for USER from ADDRESS port N ssh2: ED25519-CERT SHA256:… ID KEYID (serial 7) CA ED25519 SHA256:…
//
// USER and KEYID are others' text: neither need be free of spaces, or of what
// looks like the rest of a line.
const accepted = "Accepted publickey for "

var (
	fingerprint = regexp.MustCompile(`(?:^|[^A-Za-z0-9+/:])(SHA256:[A-Za-z0-9+/]{43})(?:$|[^A-Za-z0-9+/=])`)
	place       = regexp.MustCompile(` from ([0-9A-Fa-f.:%A-Za-z_-]+) port [0-9]{1,5} ssh2: `)
	// prefix is what syslog puts before sshd's words in a file.
	prefix = regexp.MustCompile(`^[^\n]{1,200}? sshd(?:-session)?\[[0-9]{1,10}\]: `)
)

// maxLine bounds a line of the log; sshd's own have at most 1,024 bytes before
// escapes.
const maxLine = 16 << 10

// ReadLine reads a line of sshd's log, with or without what syslog puts before it.
// False: it is no login by public key. A line that others' words make ambiguous is
// read so that no fingerprint is missed: a false alarm is better than none.
func ReadLine(line string) (Login, bool) {
	if len(line) > maxLine || !utf8.ValidString(line) {
		line = strings.ToValidUTF8(line[:min(len(line), maxLine)], "?")
	}
	line = strings.TrimRight(line, "\r\n")
	rest, ok := strings.CutPrefix(line, accepted)
	if !ok {
		at := prefix.FindStringIndex(line)
		if at == nil {
			return Login{}, false
		}
		if rest, ok = strings.CutPrefix(line[at[1]:], accepted); !ok {
			return Login{}, false
		}
	}
	login := Login{User: "?", From: "?"}
	for text := rest; ; {
		at := fingerprint.FindStringSubmatchIndex(text)
		if at == nil {
			break
		}
		login.Fingerprints = append(login.Fingerprints, text[at[2]:at[3]])
		text = text[at[3]:]
	}
	if all := place.FindAllStringSubmatchIndex(rest, 2); len(all) == 1 && all[0][0] > 0 {
		login.User, login.From = rest[:all[0][0]], rest[all[0][2]:all[0][3]]
	}
	return login, len(login.Fingerprints) > 0
}

// CheckFingerprint refuses what isn't a fingerprint as ssh-keygen -l and sshd
// write it.
func CheckFingerprint(text string) error {
	if m := fingerprint.FindStringSubmatch(text); m == nil || m[1] != text {
		return fmt.Errorf("%.80q is not a fingerprint as SHA256:… (ssh-keygen -lf FILE shows it)", text)
	}
	return nil
}
