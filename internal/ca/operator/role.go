package operator

import "slices"

// Role is what a caller may do.
type Role string

// The roles. An auditor sees everything but secrets; an administrator acts too.
// An enroller hands devices out, and a reporter is a host that watches for keys
// that nobody should use; neither may do anything else.
const (
	Auditor       Role = "auditor"
	Administrator Role = "administrator"
	Enroller      Role = "enroller"
	Reporter      Role = "reporter"
)

// Who may do what: a row for every action. What has none nobody may do.
var (
	acts     = []Role{Administrator}
	looks    = []Role{Administrator, Auditor}
	enrolls  = []Role{Administrator, Enroller}
	devices  = []Role{Administrator, Auditor, Enroller}
	reports  = []Role{Administrator, Reporter}
	watchers = []Role{Administrator, Auditor, Reporter}

	actions = map[string][]Role{
		"status.show":        looks,
		"signing.show":       looks,
		"audit.list":         looks,
		"audit.verify":       looks,
		"backup.write":       acts, // it holds EAB keys
		"eab.list":           looks,
		"eab.create":         acts,
		"eab.revoke":         acts,
		"account.list":       looks,
		"account.show":       looks,
		"account.revoke":     acts,
		"certificate.list":   looks,
		"certificate.show":   looks,
		"certificate.revoke": acts,
		"device.list":        devices,
		"device.show":        devices,
		"device.enroll":      enrolls,
		"device.identities":  acts,
		"device.retire":      acts,
		"device.lost":        acts,
		"person.revoke":      acts,
		"advisory.list":      looks,
		"advisory.add":       acts,
		"advisory.withdraw":  acts,
		"watch.list":         watchers,
		"watch.add":          acts,
		"watch.forget":       acts,
		"ssh.sighting":       reports,
	}
)

func (r Role) may(action string) bool { return slices.Contains(actions[action], r) }
