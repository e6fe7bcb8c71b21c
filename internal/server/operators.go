package server

import (
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/chancery-pki/chancery/internal/admin"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// access is who may use the admin API over TLS, by one reading of the
// configuration: operators' certificates are signed by the issuing
// certificates of their issuers, and by no other.
func (p *parts) access(c *config.Config) admin.Access {
	a := admin.Access{Issuers: x509.NewCertPool()}
	for _, o := range c.Admin.Operators {
		name := strings.ToLower(o.Name)
		if id, err := protocol.ParseIdentifier(string(protocol.DNS), o.Name); err == nil {
			name = id.Value
		}
		a.Grants = append(a.Grants, operator.Grant{Issuer: o.Issuer, Profile: o.Profile, Name: name, Role: operator.Role(o.Role)})
		for i, issuer := range p.names {
			if issuer == o.Issuer {
				a.Issuers.AddCert(p.authorities[i].Certificate)
			}
		}
	}
	return a
}

// enrolment is which devices may be enrolled: those that could prove to any
// directory.
func enrolment(c *config.Config, issuers []*x509.Certificate) operator.Enrolment {
	e := operator.Enrolment{Issuers: issuers}
	for _, d := range c.Directories {
		e.PINPolicies = append(e.PINPolicies, d.Devices.PINPolicies...)
		e.TouchPolicies = append(e.TouchPolicies, d.Devices.TouchPolicies...)
	}
	slices.Sort(e.PINPolicies)
	slices.Sort(e.TouchPolicies)
	e.PINPolicies, e.TouchPolicies = slices.Compact(e.PINPolicies), slices.Compact(e.TouchPolicies)
	return e
}

// console is where operators act.
func (s *Server) console() *operator.Console {
	o := operator.New(s.authority, s.db, nil)
	o.Enrolment = func() operator.Enrolment {
		e := s.parts.Load().enrolment
		e.Reserved = s.operators.Load().Reserved
		return e
	}
	o.Sighted = func(k protocol.WatchedKey, seen operator.Sighting) {
		s.metrics.sightings.Inc()
		s.log.Error("a watched SSH key was used", "key", k.Label, "fingerprint", k.Fingerprint, "host", seen.Host, "user", seen.User,
			"from", seen.From, "at", seen.At, "line", seen.Detail)
	}
	return o
}

// listenOperators opens the listener of the admin API over TLS.
func (s *Server) listenOperators(c *config.Config, a *admin.Server) (bound, error) {
	l, err := net.Listen("tcp", c.Admin.Listen)
	if err != nil {
		return bound{}, fmt.Errorf("admin.listen: %w", err)
	}
	access := func() admin.Access { return *s.operators.Load() }
	return bound{"operators", admin.Bound(l), a.TLSServer(operator.NewGate(s.db, nil), s.own.get, access), true}, nil
}
