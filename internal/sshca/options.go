package sshca

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
)

// The critical options of PROTOCOL.certkeys: sshd refuses a certificate with one
// that it doesn't know.
const (
	forceCommand   = "force-command"
	sourceAddress  = "source-address"
	verifyRequired = "verify-required"
)

// Options restrict a user certificate. The zero value restricts nothing. Host
// certificates have none.
type Options struct {
	ForceCommand   string         // runs in place of what the user asks for; "": none
	SourceAddress  []netip.Prefix // from where it may be used; empty: from anywhere
	VerifyRequired bool           // a FIDO token must ask for PIN or finger; other keys are refused
}

// Bounds of what a profile may put in. OpenSSH bounds a certificate by its
// packet, 256 KiB; these leave it far below.
const (
	maxCommand    = 4096
	maxSources    = 64
	maxExtensions = 32
	maxName       = 128
	maxValue      = 1024
)

// Extensions are those that OpenSSH defines (PROTOCOL.certkeys); all have an
// empty value. Host certificates have none.
func Extensions() []string {
	return []string{"no-touch-required", "permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"}
}

// ParseSourceAddress reads source-address as ssh-keygen takes it: addresses and
// networks with commas between.
func ParseSourceAddress(list string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(text)
		if addr, err2 := netip.ParseAddr(text); err2 == nil && addr.Zone() == "" {
			p, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("source-address: %.60q is neither an address nor a network such as 192.0.2.0/24 or 2001:db8::/32", text)
		}
		if err := sourceFault(p); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// sourceFault refuses what sshd's addr_match_cidr_list would: one bad network
// spoils the whole list, and with it the certificate.
func sourceFault(p netip.Prefix) error {
	switch {
	case !p.IsValid() || p.Addr().Is4In6():
		return fmt.Errorf("source-address: %v isn't a network that sshd understands", p)
	case p != p.Masked():
		return fmt.Errorf("source-address: %v has bits beyond its mask; write %v", p, p.Masked())
	}
	return nil
}

// encode gives the options their names and values.
func (o Options) encode() (map[string]string, error) {
	critical := map[string]string{}
	if o.ForceCommand != "" {
		critical[forceCommand] = o.ForceCommand
	}
	if len(o.SourceAddress) > 0 {
		list := make([]string, len(o.SourceAddress))
		for i, p := range o.SourceAddress {
			if err := sourceFault(p); err != nil {
				return nil, err
			}
			list[i] = p.String()
		}
		critical[sourceAddress] = strings.Join(list, ",")
	}
	if o.VerifyRequired {
		critical[verifyRequired] = ""
	}
	return critical, nil
}

// checkAllowed holds extensions against OpenSSH's and the profile's names.
func checkAllowed(r Request) error {
	for name := range r.Extensions {
		if !slices.Contains(r.OtherExtensions, name) && !slices.Contains(Extensions(), name) {
			return fmt.Errorf("extension %.60q is neither one of OpenSSH's (%s) nor named by the profile", name, strings.Join(Extensions(), ", "))
		}
	}
	return nil
}

// lintOptions reads critical options and extensions as sshd does.
func lintOptions(c *ssh.Certificate) error {
	if c.CertType == ssh.HostCert && len(c.CriticalOptions) > 0 {
		return errors.New("a host certificate has no critical options: every client would refuse it")
	}
	for name, value := range c.CriticalOptions {
		if err := lintCritical(c.Key, name, value); err != nil {
			return err
		}
	}
	if len(c.Extensions) > maxExtensions {
		return fmt.Errorf("%d extensions: at most %d", len(c.Extensions), maxExtensions)
	}
	for name, value := range c.Extensions {
		if slices.Contains(Extensions(), name) {
			if c.CertType == ssh.HostCert || value != "" {
				return fmt.Errorf("extension %s has no value and belongs into user certificates only", name)
			}
			continue
		}
		// PROTOCOL.certkeys: custom names end in their author's domain.
		if at := strings.IndexByte(name, '@'); at <= 0 || at == len(name)-1 || len(name) > maxName || strings.Trim(name, nameChars) != "" {
			return fmt.Errorf("extension %.60q: want one of OpenSSH's, or name@domain", name)
		}
		if !oneLine(value, maxValue) {
			return fmt.Errorf("extension %s: its value must be one line of at most %d bytes", name, maxValue)
		}
	}
	return nil
}

// lintCritical checks one critical option.
func lintCritical(key ssh.PublicKey, name, value string) error {
	switch name {
	case forceCommand:
		if value == "" || !oneLine(value, maxCommand) {
			return fmt.Errorf("force-command must be one line of 1 to %d bytes", maxCommand)
		}
	case sourceAddress:
		list, err := ParseSourceAddress(value)
		if err != nil {
			return err
		}
		if len(list) > maxSources {
			return fmt.Errorf("source-address has %d networks: at most %d", len(list), maxSources)
		}
	case verifyRequired:
		// sshd looks for the flag in a FIDO signature only; with any other
		// key the restriction would be silently void.
		if typ, _ := KeyTypeOf(key); value != "" || typ != SKP256 && typ != SKEd25519 {
			return badKey("verify-required holds for keys on FIDO tokens only; make one with ssh-keygen -t ed25519-sk -O verify-required")
		}
	default:
		return fmt.Errorf("critical option %.60q is not known here", name)
	}
	return nil
}

// oneLine reports whether text is printable and within its bound.
func oneLine(text string, bound int) bool {
	return len(text) <= bound && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}
