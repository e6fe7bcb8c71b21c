package main

import (
	"net/url"
	"path/filepath"
	"strings"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// remember writes what login needs into the person's settings, where they say
// nothing of it. Failing to is no reason to call the enrolment failed.
func (c *enrollDevice) remember(fl *fleet, d api.NewDevice, a *yubikey.Attestation) {
	path := fl.flags.Config
	if path == "" {
		var err error
		if path, err = settings.Path(); err != nil { // a service without a home
			return
		}
	}
	s := settings.Settings{Device: settings.Device{Serial: a.Serial, Slot: a.Slot.String()}}
	if len(d.Names) > 0 { // one: each name costs a touch
		s.Certificates = append(s.Certificates, settings.Certificate{
			Name: "tls", Kind: settings.TLS, Identifiers: d.Names[:1], Challenge: protocol.YubiKey01,
		})
	}
	if len(d.Principals) > 0 {
		s.Certificates = append(s.Certificates, settings.Certificate{
			Name: "ssh", Kind: settings.SSH, Identifiers: []string{d.Owner}, Challenge: protocol.YubiKey01,
		})
	}
	if u, err := url.Parse(c.Directory); err == nil && u.Host != "" {
		ca := settings.CA{Name: u.Hostname(), Directory: c.Directory}
		if fl.flags.Roots != "" {
			if ca.Roots, err = filepath.Abs(fl.flags.Roots); err != nil {
				ca.Roots = fl.flags.Roots
			}
		}
		if strings.HasPrefix(fl.flags.Socket, "https://") {
			ca.Admin = fl.flags.Socket
		}
		s.CAs = append(s.CAs, ca)
	}
	wrote, err := settings.Remember(path, s)
	switch {
	case err != nil:
		fl.tell("%s stays as it was: %v", path, err)
	case wrote:
		fl.tell("wrote %s: chancery login gets what it says", path)
	}
}
