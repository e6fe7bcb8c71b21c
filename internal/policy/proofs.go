package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Offered returns the challenge types that an authorization for the
// identifier shows, in the directory's order: those that the directory has,
// that count for at least one of the profiles the order may end under, and
// that can prove such an identifier at all (RFC 8555 section 7.1.3: a
// wildcard by DNS only; RFC 8738 section 7: an address never by DNS). The
// identifier of a wildcard order keeps its "*.".
func (d Directory) Offered(profiles []cert.Profile, id protocol.Identifier) []protocol.ChallengeType {
	offered := make([]protocol.ChallengeType, 0, len(d.Challenges))
	for _, t := range d.Challenges {
		counts := func(p cert.Profile) bool { return p.Allows(t) }
		if t.Proves(id.Type, id.IsWildcard()) && slices.ContainsFunc(profiles, counts) {
			offered = append(offered, t)
		}
	}
	return offered
}

// PendingLife is how long a new authorization waits for its proof, of those that
// the directory gives all: no longer than PrivateLife where only devices prove,
// so that what a key signs for it is worth nothing afterwards.
func PendingLife(offered []protocol.ChallengeType, usual time.Duration) time.Duration {
	if len(offered) == 0 || slices.ContainsFunc(offered, func(t protocol.ChallengeType) bool { return !t.Device() }) {
		return usual
	}
	return min(usual, protocol.PrivateLife)
}

// Provable refuses names that no challenge on offer could ever prove and that
// aren't pre-approved, so that the client learns it when it orders and not by
// an authorization without challenges. Error: rejectedIdentifier with a
// subproblem for each.
func (d Directory) Provable(profiles []cert.Profile, names []protocol.Identifier, eab *protocol.EABKey) error {
	var problems []protocol.Problem
	for _, id := range names {
		if d.PreApproved(eab, id) || len(d.Offered(profiles, id)) > 0 {
			continue
		}
		why := "can't be proven by any challenge that this directory offers for the profile; use an EAB key whose names are pre-approved, or another profile"
		if id.IsWildcard() {
			why = "is a wildcard, which only DNS challenges prove, and none is offered here for the profile; name each host"
		}
		problems = append(problems, rejected(id, why))
	}
	return rejectedIdentifiers(problems)
}

// CheckProofs holds the way each authorization was proven against the
// profile, once that is fixed: classic challenges prove a server's name, not
// who may act as a client. It doesn't look at their status. Error:
// unauthorized with a subproblem for each that doesn't count.
func CheckProofs(p cert.Profile, authorizations []protocol.Authorization) error {
	var problems []protocol.Problem
	for _, a := range authorizations {
		proof := a.Attempt.Type
		if proof != "" && p.Allows(proof) && !weakForUsers(p, proof) {
			continue
		}
		if proof == "" {
			proof = "nothing"
		}
		problems = append(problems, *protocol.NewProblem(protocol.Unauthorized,
			"%q was proven by %s, which doesn't count for profile %q; %s",
			a.Identifier.Value, proof, p.Name, whatCounts(p)).For(a.Identifier))
	}
	return compound(protocol.Unauthorized, "%d identifiers were not proven as the profile asks; see the subproblems", problems)
}

// whatCounts tells the client how it could prove.
func whatCounts(p cert.Profile) string {
	if len(p.Challenges) == 0 {
		return "it takes only an EAB key with pre-approved names"
	}
	types := make([]string, len(p.Challenges))
	for i, t := range p.Challenges {
		types[i] = string(t)
	}
	return "it takes " + strings.Join(types, ", ") + ", or an EAB key with pre-approved names"
}

// OneSubject refuses an order whose private proofs rest on more than one pod
// or device: two that hold a name each get no certificate for both (DESIGN
// section 6). Classic proofs, and names that an EAB key pre-approves, rest on
// none. It doesn't look at their status. Error: unauthorized.
func OneSubject(authorizations []protocol.Authorization) error {
	var first *protocol.Authorization
	for i := range authorizations {
		z := &authorizations[i]
		switch {
		case !z.Attempt.Type.Private():
		case z.Subject == "":
			return protocol.NewProblem(protocol.Unauthorized, "it is not known which pod or device proved %q", z.Identifier.Value)
		case first == nil:
			first = z
		case z.Subject != first.Subject:
			return protocol.NewProblem(protocol.Unauthorized,
				"%q was proven by another pod or device than %q; an order rests on one: make an order for each", z.Identifier.Value, first.Identifier.Value)
		}
	}
	return nil
}

// Subjects are the pods or devices that the private proofs rest on, each once.
func Subjects(authorizations []protocol.Authorization) (all []string) {
	for _, z := range authorizations {
		if z.Subject != "" && !slices.Contains(all, z.Subject) {
			all = append(all, z.Subject)
		}
	}
	return all
}

// OfferedAhead are the types that an authorization made ahead of any order
// shows: of those it would show in one, the private types never prove (DESIGN
// section 6). Error: unauthorized where that leaves none, unless an EAB key
// approved it.
func OfferedAhead(z protocol.Authorization) ([]protocol.ChallengeType, error) {
	offered := slices.DeleteFunc(slices.Clone(z.Offered), protocol.ChallengeType.Private)
	if len(offered) == 0 && z.Status == protocol.AuthorizationPending {
		return nil, protocol.NewProblem(protocol.Unauthorized,
			"%q can't be authorized ahead of an order: what proves it here serves one order only; make the order", z.Identifier.Value)
	}
	return offered, nil
}

// reuseMargin is what must be left of a proof's life for a new order to rest
// on it, so that it doesn't end before the client comes to finalize.
const reuseMargin = 5 * time.Minute

// Reusable finds among the valid authorizations that an account holds one that
// a new order can rest on (RFC 8555 section 7.4): for just this identifier, by
// a proof that counts for one of the profiles and lasts some minutes more.
func Reusable(held []protocol.Authorization, id protocol.Identifier, profiles []cert.Profile, now time.Time) (protocol.Authorization, bool) {
	for _, z := range held {
		if z.ExpiresAt.Before(now.Add(reuseMargin)) || !z.Attempt.Type.Classic() { // a private proof serves one order (DESIGN section 6)
			continue
		}
		if slices.ContainsFunc(profiles, func(p cert.Profile) bool { return proves(z, id, p) }) {
			return z, true
		}
	}
	return protocol.Authorization{}, false
}

// HoldsAll reports whether among the valid authorizations that an account
// holds there is one for every name by a proof that counts for the profile,
// which lets it revoke another's certificate (RFC 8555 section 7.6).
func HoldsAll(held []protocol.Authorization, names []protocol.Identifier, p cert.Profile) bool {
	for _, id := range names {
		if !slices.ContainsFunc(held, func(z protocol.Authorization) bool { return proves(z, id, p) }) {
			return false
		}
	}
	return true
}

// proves reports whether an authorization is for just this identifier, by a
// proof that counts for the profile.
func proves(z protocol.Authorization, id protocol.Identifier, p cert.Profile) bool {
	return z.Identifier == id.Base() && z.Wildcard == id.IsWildcard() && p.Allows(z.Attempt.Type)
}
