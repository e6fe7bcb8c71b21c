package mtls_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// most is what the library may add to a program that uses net/http and
// crypto/tls already.
const most = 1536 << 10

// newJSON is what encoding/json weighs more since Go 1.27, whose insides are
// new. A program that decodes no JSON yet gets it by the library.
const newJSON = 256 << 10

// The library adds little to a program as it is shipped, without symbols and
// debug information. With those nothing is promised of a program that neither
// logs with log/slog nor decodes JSON; one that does, as most services do,
// grows by no more even so.
func TestSize(t *testing.T) {
	t.Parallel()
	version, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		t.Fatal(err)
	}
	for flags, what := range map[string]string{"-s -w": "shipped", "": "with symbols and debug information"} {
		mutual := size(t, "mutual", flags)
		for _, base := range []string{"plain", "service"} {
			before := size(t, base, flags)
			added := mutual - before
			t.Logf("%s, %s: the library adds %d bytes (%.2f MiB) to %d", base, what, added, float64(added)/(1<<20), before)
			bound := int64(most)
			if base == "plain" && !strings.HasPrefix(string(version), "go1.26") {
				bound += newJSON
			}
			if promised := flags != "" || base == "service"; promised && added > bound {
				t.Errorf("that is more than %d", bound)
			}
		}
	}
}

// size builds one of the programs of testdata/size.
func size(t *testing.T, program, flags string) int64 {
	t.Helper()
	file := filepath.Join(t.TempDir(), program)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+flags, "-o", file, "./testdata/size/"+program)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
