package kubernetes

import (
	"log"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// TestMain builds the programs under test; in the processes that
// [harness.Alone] starts, harness.Main furnishes the namespaces.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_ALONE") != "" {
		harness.Main(m)
	}
	if os.Geteuid() != 0 {
		log.Fatal("kubernetes: the tests make network and mount namespaces: run them as root")
	}
	build("../..", "e2e/kubernetes/bin/", "./cmd/chanceryd", "./cmd/chancery")
	build(".", "bin/", "./workload")
	os.Exit(m.Run())
}

// build builds programs of a module.
func build(module, bin string, programs ...string) {
	cmd := exec.Command("go", append([]string{"build", "-o", bin}, programs...)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		log.Fatalf("kubernetes: building %s: %v\n%s", programs, err, text)
	}
}

// alone runs f, the body of the test, in namespaces of its own where every
// address of 10.0.0.0/8 is the machine's, as far as a test uses it.
func alone(t *testing.T, limit time.Duration, f func(w *harness.World)) {
	harness.Alone(t, limit, func(w *harness.World) {
		w.Run("ip", "route", "add", "local", "10.0.0.0/8", "dev", "lo")
		f(w)
	})
}
