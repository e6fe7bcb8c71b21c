package policy

import (
	"slices"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// DefaultMaxIdentifiers bounds the names of one order where the directory
// doesn't say: as many as Let's Encrypt takes, so a certificate that works
// there fits here; each name costs an authorization and a validation.
const DefaultMaxIdentifiers = 100

// Directory is what one ACME directory lets its callers do.
type Directory struct {
	Name           string
	Profiles       []cert.Profile           // in the order of preference
	DefaultProfile string                   // one of Profiles
	Challenges     []protocol.ChallengeType // in the order shown to clients
	Names          Names
	EABRequired    bool // accounts must be bound to an EAB key
	EKUFromCSR     bool // the CSR's Extended Key Usage may select the profile
	MaxIdentifiers int  // per order; 0 means DefaultMaxIdentifiers
}

// Admit decides whether an account may be opened, or may go on, under the EAB
// key, nil for none. Errors: externalAccountRequired; unauthorized for a key
// of another directory. Whether the key is still usable is its own word
// ([protocol.EABKey.Usable]), which needs a clock.
func (d Directory) Admit(eab *protocol.EABKey) error {
	switch {
	case eab == nil && d.EABRequired:
		return protocol.NewProblem(protocol.ExternalAccountRequired,
			"this directory needs an external account binding; ask its operator for an EAB key and make an account with it")
	case eab != nil && eab.Directory != d.Name:
		return protocol.NewProblem(protocol.Unauthorized,
			"the EAB key belongs to another directory; ask the operator for one of this directory")
	}
	return nil
}

// Check decides whether the caller may have the names at all, before it
// proves them. The names are in canonical form; eab is the key that vouched
// for the account, nil for none. Errors: those of Admit; malformed for no
// names or too many; rejectedIdentifier with a subproblem for each name that
// is refused, which says why in general terms and never what is on a list.
func (d Directory) Check(names []protocol.Identifier, eab *protocol.EABKey) error {
	if err := d.Admit(eab); err != nil {
		return err
	}
	most := d.MaxIdentifiers
	if most == 0 {
		most = DefaultMaxIdentifiers
	}
	switch {
	case len(names) == 0:
		return protocol.NewProblem(protocol.Malformed, "there are no identifiers; name at least one")
	case len(names) > most:
		return protocol.NewProblem(protocol.Malformed,
			"there are %d identifiers; one order takes at most %d here, so ask for several certificates", len(names), most)
	}
	var problems []protocol.Problem
	for _, id := range names {
		if why := d.refusal(id, eab); why != "" {
			problems = append(problems, rejected(id, why))
		}
	}
	return rejectedIdentifiers(problems)
}

// refusal says why the identifier is refused, or "".
func (d Directory) refusal(id protocol.Identifier, eab *protocol.EABKey) string {
	switch {
	case id.Type == protocol.PermanentIdentifier: // a device's registration says who may have it
		if slices.ContainsFunc(d.Challenges, protocol.ChallengeType.Device) {
			return ""
		}
		return "names a device or a person, which no challenge of this directory proves; use a dns name"
	case d.Names.Permits(id):
		if eab != nil && len(eab.Names) > 0 && !eabCovers(eab, id) {
			return "is not among the names of this account's EAB key; ask the operator for a key that covers it"
		}
		return ""
	case id.Type == protocol.IP && !d.Names.Allow.hasAddresses():
		return "is an IP address, and this directory issues for none; use a dns name"
	case id.IsWildcard() && !d.Names.Wildcards:
		return "is a wildcard, and this directory issues none; name each host"
	}
	// The same words for what is denied and for what isn't allowed: a
	// stranger doesn't learn which names are on a list.
	return "is not a name that this directory issues for; check its spelling, or ask the operator to allow it"
}

func eabCovers(eab *protocol.EABKey, id protocol.Identifier) bool {
	for _, pattern := range eab.Names {
		if covers(pattern, id) {
			return true
		}
	}
	return false
}

// rejected makes the subproblem about one name.
func rejected(id protocol.Identifier, why string) protocol.Problem {
	return *protocol.NewProblem(protocol.RejectedIdentifier, "%q %s", id.Value, why).For(id)
}

// rejectedIdentifiers makes one problem of the subproblems, nil of none. The
// identifier stands in the subproblems only (RFC 8555 section 6.7.1).
func rejectedIdentifiers(sub []protocol.Problem) error {
	return compound(protocol.RejectedIdentifier, "%d identifiers are refused; see the subproblems", sub)
}

func compound(t protocol.ProblemType, many string, sub []protocol.Problem) error {
	var all *protocol.Problem
	switch len(sub) {
	case 0:
		return nil
	case 1:
		all = protocol.NewProblem(t, "%s", sub[0].Detail)
	default:
		all = protocol.NewProblem(t, many, len(sub))
	}
	all.Sub = sub
	return all
}

// PreApproved reports whether the EAB key vouches for the identifier so that
// no live challenge is needed, which it never does for people and devices. Only
// names that the key lists itself are
// pre-approved: one without names, which may use all of its directory's,
// approves none.
func (d Directory) PreApproved(eab *protocol.EABKey, id protocol.Identifier) bool {
	return eab != nil && eab.PreApproved && eab.Directory == d.Name && id.Type != protocol.PermanentIdentifier &&
		d.Names.Permits(id) && eabCovers(eab, id)
}

// Candidates returns the profiles under which an order may end: the one asked
// for; or, where nobody asked, the default, and with EKUFromCSR every profile
// that the EAB key leaves, since the CSR will choose. It is never empty
// without an error (invalidProfile).
func (d Directory) Candidates(requested string, eab *protocol.EABKey) ([]cert.Profile, error) {
	if requested == "" && d.EKUFromCSR {
		var all []cert.Profile
		for _, p := range d.Profiles {
			if mayUse(eab, p.Name) {
				all = append(all, p)
			}
		}
		if len(all) == 0 {
			return nil, noProfile()
		}
		return all, nil
	}
	p, err := d.PickProfile(requested, nil, eab)
	if err != nil {
		return nil, err
	}
	return []cert.Profile{p}, nil
}

// PickProfile fixes the profile. requested is the order's, "" for none; usage
// is what the CSR's Extended Key Usage asks for, nil for nothing or while
// there is no CSR. It counts only where the directory says so and no profile
// was requested; then a profile for just this usage is preferred, the default
// first. Errors: invalidProfile for a profile that isn't offered to this
// caller, badCSR for a usage that no profile has.
func (d Directory) PickProfile(requested string, usage *cert.Usage, eab *protocol.EABKey) (cert.Profile, error) {
	if requested != "" {
		p, ok := d.profile(requested)
		if !ok || !mayUse(eab, requested) {
			return cert.Profile{}, protocol.NewProblem(protocol.InvalidProfile,
				"the profile asked for is not offered to this account; the directory's meta.profiles lists what there is")
		}
		return p, nil
	}
	if usage != nil && d.EKUFromCSR {
		return d.profileFor(*usage, eab)
	}
	for _, p := range d.byPreference() {
		if mayUse(eab, p.Name) {
			return p, nil
		}
	}
	return cert.Profile{}, noProfile()
}

func (d Directory) profileFor(usage cert.Usage, eab *protocol.EABKey) (cert.Profile, error) {
	var found cert.Profile
	for _, p := range d.byPreference() {
		if !mayUse(eab, p.Name) || !slices.Contains(p.Usages, usage) {
			continue
		}
		if len(p.Usages) == 1 {
			return p, nil
		}
		if found.Name == "" {
			found = p // a profile for both will do where there is no narrower one
		}
	}
	if found.Name == "" {
		return cert.Profile{}, protocol.NewProblem(protocol.BadCSR,
			"the CSR asks for %s authentication by its Extended Key Usage, which no profile of this directory gives to this account", usage)
	}
	return found, nil
}

// byPreference returns the profiles with the default first.
func (d Directory) byPreference() []cert.Profile {
	i := slices.IndexFunc(d.Profiles, func(p cert.Profile) bool { return p.Name == d.DefaultProfile })
	if i <= 0 {
		return d.Profiles
	}
	sorted := append([]cert.Profile{d.Profiles[i]}, d.Profiles[:i]...)
	return append(sorted, d.Profiles[i+1:]...)
}

func (d Directory) profile(name string) (cert.Profile, bool) {
	for _, p := range d.Profiles {
		if p.Name == name {
			return p, true
		}
	}
	return cert.Profile{}, false
}

func mayUse(eab *protocol.EABKey, profile string) bool {
	return eab == nil || len(eab.Profiles) == 0 || slices.Contains(eab.Profiles, profile)
}

func noProfile() error {
	return protocol.NewProblem(protocol.InvalidProfile,
		"this directory has no profile that the account's EAB key allows; ask the operator for another key")
}

// CheckEABKey refuses a key that could never be of use: profiles that the
// directory hasn't, patterns that can't be read, approval of nothing. Error:
// malformed, for the operator.
func (d Directory) CheckEABKey(k protocol.EABKey) error {
	for _, name := range k.Profiles {
		if _, ok := d.profile(name); !ok {
			return protocol.NewProblem(protocol.Malformed, "directory %q has no profile %q", d.Name, name)
		}
	}
	for _, pattern := range k.Names {
		if canonical, err := Canonical(pattern); err != nil {
			return protocol.NewProblem(protocol.Malformed, "name %q: %v", pattern, err)
		} else if canonical != pattern {
			return protocol.NewProblem(protocol.Malformed, "name %q: write it as %q", pattern, canonical)
		}
	}
	if k.PreApproved && len(k.Names) == 0 {
		return protocol.NewProblem(protocol.Malformed, "a key that pre-approves must list the names")
	}
	return nil
}
