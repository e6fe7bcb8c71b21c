package policy

import (
	"slices"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// CheckSSH holds an order's identifiers against an SSH profile: a user
// certificate is for exactly one person (a permanent-identifier), whose
// registered principals it will have; a host certificate for names and addresses
// that are proven as for TLS, none of them a wildcard, since ssh takes a host's
// principals for patterns. Profiles of X.509 pass. Error: rejectedIdentifier.
func CheckSSH(p cert.Profile, names []protocol.Identifier) error {
	person := func(id protocol.Identifier) bool { return id.Type == protocol.PermanentIdentifier }
	switch {
	case slices.Contains(p.Usages, cert.SSHUser):
		if len(names) != 1 || !person(names[0]) {
			return protocol.NewProblem(protocol.RejectedIdentifier,
				"profile %q gives SSH user certificates: order exactly one permanent-identifier, the person's name; the principals are those that are registered for the device", p.Name)
		}
	case slices.Contains(p.Usages, cert.SSHHost):
		i := slices.IndexFunc(names, func(id protocol.Identifier) bool {
			return id.IsWildcard() || id.Type != protocol.DNS && id.Type != protocol.IP
		})
		if len(names) == 0 || i >= 0 {
			return protocol.NewProblem(protocol.RejectedIdentifier,
				"profile %q gives SSH host certificates: order dns names and ip addresses, without wildcards", p.Name)
		}
	}
	return nil
}

// weakForUsers reports a proof that never counts for an SSH user certificate,
// whatever the configuration says: one by no device, since its principals are a
// device's.
func weakForUsers(p cert.Profile, t protocol.ChallengeType) bool {
	return slices.Contains(p.Usages, cert.SSHUser) && !t.Device()
}
