package durability

import (
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// bin is the folder of the programs under test: CHANCERY_BIN, for one that was
// broken on purpose to see a test fail, or where TestMain builds them.
func bin() string {
	if dir := os.Getenv("CHANCERY_BIN"); dir != "" {
		return dir
	}
	dir, err := filepath.Abs("../bin/durability")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

// program is the path of one of them.
func program(name string) string { return filepath.Join(bin(), name) }

// TestMain builds the programs under test; in the processes that
// [harness.Alone] starts, harness.Main furnishes the namespaces.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_ALONE") != "" {
		harness.Main(m)
	}
	if os.Geteuid() != 0 {
		log.Fatal("durability: the tests make namespaces and mount file systems: run them as root")
	}
	if os.Getenv("CHANCERY_BIN") == "" {
		build := exec.Command("go", "build", "-o", bin()+"/", "./cmd/chanceryd", "./cmd/chancery")
		build.Dir = "../.."
		build.Env = append(os.Environ(), "GOWORK=off")
		if text, err := build.CombinedOutput(); err != nil {
			log.Fatalf("durability: building the server: %v\n%s", err, text)
		}
	}
	os.Exit(m.Run())
}
