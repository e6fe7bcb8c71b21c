package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// The roles of operators; ca/operator says what each may do.
const (
	RoleAdministrator = "administrator"
	RoleAuditor       = "auditor"
	RoleEnroller      = "enroller"
	RoleReporter      = "reporter"
)

var knownRoles = []string{RoleAdministrator, RoleAuditor, RoleEnroller, RoleReporter}

// operators checks who may use the admin API over TLS.
func (k *checker) operators() {
	a := k.c.Admin
	switch {
	case a.Listen != "" && len(a.Operators) == 0:
		k.fail("admin.operators", "nobody could use the listener: list the operators, or leave out admin.listen")
	case a.Listen == "" && len(a.Operators) > 0:
		k.warn("admin.operators", "there is no admin.listen")
	}
	for i, o := range a.Operators {
		path := fmt.Sprintf("admin.operators[%d]", i)
		if j := slices.IndexFunc(a.Operators[:i], o.same); j >= 0 {
			k.fail(path, "this is admin.operators[%d] again; one certificate has one role", j)
		}
		oneOf(k, path+".role", o.Role, knownRoles)
		if !isHolder(o.Name) {
			k.fail(path+".name", "%q is neither a dns name nor a person's", o.Name)
		}
		k.operatorProfile(path, o)
	}
}

func (k *checker) operatorProfile(path string, o Operator) {
	p, ok := k.c.Profiles[o.Profile]
	switch {
	case !ok:
		k.fail(path+".profile", "there is no profile %q; %s", o.Profile, listing("there is", slices.Sorted(maps.Keys(k.c.Profiles))))
		return
	case o.Issuer == "":
		k.fail(path+".issuer", "say which issuer signed the operator's certificate; profile %q is signed by %q", o.Profile, p.Issuer)
	case o.Issuer != p.Issuer:
		k.fail(path+".issuer", "profile %q is signed by issuer %q", o.Profile, p.Issuer)
	}
	if !slices.Contains(p.Usages, cert.Client) {
		k.fail(path+".profile", "profile %q has no usage client", o.Profile)
		return
	}
	other := func(t protocol.ChallengeType) bool { return !t.Device() }
	if o.Role != RoleReporter && (len(p.Challenges) == 0 || slices.ContainsFunc(p.Challenges, other)) {
		k.fail(path+".profile", "an %s's certificate comes only by a security key: the challenges of profile %q must be among yubikey-01, yubikey-02 and device-attest-01", o.Role, o.Profile)
	}
}

// same reports whether two operators are one: names have no case.
func (o Operator) same(other Operator) bool {
	return o.Issuer == other.Issuer && o.Profile == other.Profile && strings.EqualFold(o.Name, other.Name)
}

// isHolder reports whether the name may stand in an operator's certificate.
func isHolder(name string) bool {
	if id, err := protocol.ParseIdentifier(string(protocol.DNS), name); err == nil {
		return !id.IsWildcard()
	}
	_, err := protocol.ParseOwner(name)
	return err == nil
}
