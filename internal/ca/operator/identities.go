package operator

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
)

// Bounds of what a device may be certified as.
const (
	maxNames    = 100
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// checkIdentities brings identities into canonical form.
func checkIdentities(i protocol.Identities, pub crypto.PublicKey) (protocol.Identities, error) {
	var out protocol.Identities
	var err error
	if out.Names, err = canonicalNames(i.Names); err != nil {
		return out, err
	}
	if out.OtherNames, err = canonicalNames(i.OtherNames); err != nil {
		return out, err
	}
	for _, name := range out.Names {
		if slices.Contains(out.OtherNames, name) {
			return out, bad("%q is both for the device's own key and for others: ACLs couldn't tell them apart", name)
		}
	}
	if len(i.Principals) > maxNames {
		return out, bad("%d principals: at most %d", len(i.Principals), maxNames)
	}
	out.Principals = slices.Clone(i.Principals)
	if len(out.Principals) > 0 {
		if err := sshca.CheckUserPrincipals(out.Principals); err != nil {
			return out, bad("%v", err)
		}
	}
	if i.MaxLifetime != 0 && i.MaxLifetime < time.Second || i.MaxLifetime > maxLifetime { // less than a second would become 0
		return out, bad("a lifetime of %v: want 0, for the profiles' bounds alone, or a second to ten years", i.MaxLifetime)
	}
	out.MaxLifetime = i.MaxLifetime.Truncate(time.Second)
	return out, checkNoSSH(pub, out.Principals)
}

func canonicalNames(names []string) ([]string, error) {
	if len(names) > maxNames {
		return nil, bad("%d names: at most %d", len(names), maxNames)
	}
	var out []string
	for _, name := range names {
		id, err := protocol.ParseIdentifier(string(protocol.DNS), name)
		switch {
		case err != nil:
			return nil, err
		case id.IsWildcard():
			return nil, bad("%q is a wildcard, which no device proves: list the names", id.Value)
		case slices.Contains(out, id.Value):
			return nil, bad("%q comes twice", id.Value)
		}
		out = append(out, id.Value)
	}
	return out, nil
}

// reserved keeps an enroller from making operators.
func (rules Enrolment) reserved(who Caller, owner string, i protocol.Identities) error {
	if who.Role != Enroller || rules.Reserved == nil {
		return nil
	}
	for _, name := range slices.Concat([]string{owner}, i.Names, i.OtherNames) {
		if rules.Reserved(name) {
			return protocol.NewProblem(protocol.Unauthorized, "%q is an operator's name, which only an administrator may enroll a device for", name)
		}
	}
	return nil
}

// takeNames gives names to a person for good; one that is another's, or was
// given for the other kind of proof, is refused. In their order, so that two
// who take the same ones don't wait for each other.
func takeNames(tx *store.Tx, owner string, i protocol.Identities) error {
	proofs := map[string]string{}
	for _, name := range i.Names {
		proofs[name] = store.OwnKey
	}
	for _, name := range i.OtherNames {
		proofs[name] = store.OtherKey
	}
	for _, name := range slices.Sorted(slices.Values(slices.Concat(i.Names, i.OtherNames))) {
		has, proof, err := tx.TakeName(name, owner, proofs[name])
		switch {
		case err != nil:
			return err
		case has != owner:
			return bad("%q belongs to %s, for good: choose another name", name, has)
		case proof != proofs[name]:
			return bad("%q is a name for %s, for good: choose another one", name,
				map[string]string{store.OwnKey: "devices' own keys", store.OtherKey: "keys that devices vouch for"}[proof])
		}
	}
	return nil
}

func identityDetail(i protocol.Identities) map[string]any {
	detail := map[string]any{}
	for name, list := range map[string][]string{"names": i.Names, "other_names": i.OtherNames, "principals": i.Principals} {
		if len(list) > 0 {
			detail[name] = list
		}
	}
	if i.MaxLifetime > 0 {
		detail["max_lifetime"] = fmt.Sprint(i.MaxLifetime)
	}
	return detail
}

// SetIdentities replaces what an active device may be certified as. Names that
// it loses stay its owner's, and its certificates are as they were.
func (o *Console) SetIdentities(ctx context.Context, who Caller, id string, i protocol.Identities) (Device, error) {
	var changed protocol.Device
	err := o.operate(ctx, who, "device.identities", id, func(tx *store.Tx, e *audit.Entry) error {
		d, err := find(ctx, tx, id)
		if err != nil {
			return err
		}
		e.Object = string(d.ID)
		pub, err := x509.ParsePKIXPublicKey(d.Key)
		if err != nil {
			return err
		}
		before := identityDetail(d.Identities)
		if d.Identities, err = checkIdentities(i, pub); err != nil {
			return err
		}
		e.Detail = identityDetail(d.Identities)
		e.Detail["before"] = before
		if err := takeNames(tx, d.Owner, d.Identities); err != nil {
			return err
		}
		ok, err := tx.SetIdentities(d.ID, d.Identities)
		if err == nil && !ok {
			err = bad("device %s is %s: enroll another", d.ID, d.State)
		}
		changed = d
		return err
	})
	if err != nil {
		return Device{}, err
	}
	return o.view(ctx, changed)
}
