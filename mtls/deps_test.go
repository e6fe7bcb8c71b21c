package mtls_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What a program inherits with the library is written down: the packages that
// are not Go's own.
func TestDependencies(t *testing.T) {
	const format = `{{if not .Standard}}{{.ImportPath}}{{end}}`
	list := exec.Command("go", "list", "-deps", "-f", format, ".")
	list.Env = append(os.Environ(), "GOWORK=off") // as for those who use it
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	has := strings.Fields(string(out))
	slices.Sort(has)
	golden, err := os.ReadFile("testdata/deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.Fields(string(golden))
	for _, p := range has {
		if !slices.Contains(wanted, p) {
			t.Errorf("%s came in: do without it", p)
		}
	}
	for _, p := range wanted {
		if !slices.Contains(has, p) {
			t.Errorf("%s is gone", p)
		}
	}
	if t.Failed() {
		t.Logf("if that is as it should be, in mtls: GOWORK=off go list -deps -f '%s' . | LC_ALL=C sort >testdata/deps.txt", format)
	}
}
