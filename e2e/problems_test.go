package e2e_test

import (
	"strings"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// refused checks that a client reported one of the ACME problems.
func refused(w *harness.World, out string, types ...string) {
	w.Helper()
	for _, t := range types {
		if strings.Contains(out, "urn:ietf:params:acme:error:"+t) {
			return
		}
	}
	w.Errorf("want one of the problems %q, the client says:\n%s", types, out)
}
