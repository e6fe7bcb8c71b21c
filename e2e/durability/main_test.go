package durability

import (
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// bin is where TestMain builds the programs, from this folder.
const bin = "../bin/durability"

// TestMain builds the programs under test; in the processes that
// [harness.Alone] starts, harness.Main furnishes the namespaces.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_ALONE") != "" {
		harness.Main(m)
	}
	if os.Geteuid() != 0 {
		log.Fatal("durability: the tests make namespaces and mount file systems: run them as root")
	}
	out, err := filepath.Abs(bin)
	if err != nil {
		log.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", out+"/", "./cmd/chanceryd", "./cmd/chancery")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "GOWORK=off")
	if text, err := build.CombinedOutput(); err != nil {
		log.Fatalf("durability: building the server: %v\n%s", err, text)
	}
	os.Exit(m.Run())
}

// program is the path of one that TestMain built. CHANCERYD names another
// server to test: one that was broken on purpose, to see a test fail.
func program(name string) string {
	if other := os.Getenv("CHANCERYD"); other != "" && name == "chanceryd" {
		return other
	}
	path, err := filepath.Abs(filepath.Join(bin, name))
	if err != nil {
		log.Fatal(err)
	}
	return path
}
