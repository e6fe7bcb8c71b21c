package operator

import (
	"maps"
	"slices"
	"testing"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// All actions by all roles: what isn't listed here is refused, and recorded.
func TestRoles(t *testing.T) {
	w := newWorld(t, "sqlite")
	all := slices.Sorted(maps.Keys(actions))
	may := map[Role][]string{
		Administrator: all,
		Auditor: {
			"account.list", "account.show", "advisory.list", "audit.list", "audit.verify", "certificate.list", "certificate.show",
			"device.list", "device.show", "eab.list", "signing.show", "status.show", "watch.list",
		},
		Enroller: {"device.enroll", "device.list", "device.show"},
		Reporter: {"ssh.sighting", "watch.list"},
		"":       nil, "root": nil, "Administrator": nil,
	}
	for role, allowed := range may {
		for _, action := range append(all, "device.eat", "") {
			ran := false
			err := w.operate(t.Context(), Caller{Name: string(role), Role: role}, action, "it", func(*store.Tx, *audit.Entry) error { ran = true; return nil })
			want := slices.Contains(allowed, action)
			if ran != want || (err == nil) != want {
				t.Errorf("%q may %s: %v, %v; want %v", role, action, ran, err, want)
			}
			if !want {
				wants(t, err, protocol.Unauthorized, "may not do "+action)
			}
			found := w.entries(t, store.AuditFilter{Actor: "operator:" + string(role), Action: action})
			if action != "" && (len(found) != 1 || (found[0].Entry.Denied == "") != want) {
				t.Errorf("%q, %s: the log says %+v", role, action, found)
			}
		}
	}
}
