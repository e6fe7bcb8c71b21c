package chancery_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/chancery-pki/chancery"

// rows are the layers of the house, top first (docs/ARCHITECTURE.md). A
// package imports only rows below its own, and the library's public words.
var rows = [][]string{
	{"cmd/chanceryd", "cmd/chancery"},
	{"internal/server", "internal/setup", "catest"},
	{"internal/login", "internal/sshagent", "internal/sshhost"},
	{"internal/config", "internal/settings"},
	{"internal/acmeserver", "internal/admin", "internal/publish"},
	{"internal/ca", "internal/responder"},
	{"internal/policy", "internal/challenge", "internal/issuer", "internal/revocation", "internal/sshca", "internal/store", "internal/plan"},
	{"internal/signer", "internal/yubikey"},
	{"internal/api", "internal/protocol", "internal/cert", "internal/audit", "internal/jws"},
}

// neighbours are the imports within one row that are allowed, with the reason.
var neighbours = map[[2]string]string{
	{"internal/cert", "internal/protocol"}:  "a certificate's record names its order and account",
	{"internal/setup", "internal/server"}:   "the demo runs the very server",
	{"internal/signer", "internal/yubikey"}: "a YubiKey is one kind of signer",
	{"internal/issuer", "internal/sshca"}:   "an SSH certificate is prepared, planned and signed as any other",
}

// drivers may be imported only where it says, with the reason.
var drivers = map[string]struct {
	by     []string
	reason string
}{
	"zombiezen.com/go/sqlite":                  {[]string{"internal/store"}, "SQL lives in the store"},
	"modernc.org/sqlite":                       {[]string{"internal/store"}, "SQL lives in the store"},
	"github.com/jackc/pgx":                     {[]string{"internal/store/engine/postgres", "internal/store/storetest"}, "who only wants SQLite doesn't carry it"},
	module + "/internal/store/engine/postgres": {[]string{"internal/server", "internal/store/storetest"}, "wire.go says which databases this program knows"},
	"database/sql":                             {[]string{"internal/store"}, "SQL lives in the store"},
	"github.com/miekg/pkcs11":                  {[]string{"internal/signer"}, "one place speaks PKCS#11"},
	"github.com/go-piv/piv-go":                 {[]string{"internal/yubikey"}, "one place speaks to YubiKeys"},
	"net/http":                                 {[]string{"internal/acmeserver", "internal/admin", "internal/server", "internal/setup", "internal/publish", "internal/challenge", "cmd/chancery", "internal/protocol", "internal/login", "internal/sshhost", "catest"}, "the authority knows no HTTP; protocol names status codes"},
	"github.com/miekg/dns":                     {[]string{"internal/challenge"}, "only validators ask the DNS"},
	"software.sslmate.com/src/go-pkcs12":       {[]string{"internal/login"}, "only where certificates are put somewhere"},
	"github.com/prometheus/client_golang":      {[]string{"internal/server"}, "metrics are wired in one place"},
	"github.com/goccy/go-yaml":                 {[]string{"internal/config", "internal/settings"}, "one reader of each configuration"},
	"github.com/alecthomas/kong":               {[]string{"cmd/chancery", "cmd/chanceryd", "internal/setup"}, "only commands have flags"},
	"github.com/fxamacker/cbor":                {[]string{"internal/challenge"}, "only device-attest-01 speaks CBOR"},
	"k8s.io":                                   {[]string{"internal/challenge"}, "only kubernetes-01 asks a cluster"},
	module + "/internal/challenge/kubernetes":  {[]string{"internal/server"}, "only wire.go brings in the Kubernetes client"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Doc        string
	GoFiles    []string
}

func packages(t *testing.T, dir string, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Doc,GoFiles"}, patterns...)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %s", e.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// within reports whether a package is in a folder of the module, or below it.
func within(path, folder string) bool {
	return path == module+"/"+folder || strings.HasPrefix(path, module+"/"+folder+"/")
}

// rowOf finds the row of a package, with what lies below its folder.
func rowOf(path string) (string, int) {
	rel := strings.TrimPrefix(path, module+"/")
	for i, row := range rows {
		for _, name := range row {
			if within(path, name) {
				return name, i
			}
		}
	}
	return rel, -1
}

// Rule 1 of docs/ARCHITECTURE.md: arrows point one way.
func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t, ".", "./...") {
		if p.ImportPath == module || strings.HasSuffix(p.ImportPath, ".test") {
			continue
		}
		from, row := rowOf(p.ImportPath)
		if row < 0 {
			t.Errorf("%s has no row: give it one here and in docs/ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module+"/") || strings.HasPrefix(imp, module+"/mtls") {
				continue
			}
			to, below := rowOf(imp)
			if _, ok := neighbours[[2]string{from, to}]; !ok && below <= row && from != to {
				t.Errorf("%s imports %s, which is not in a row below it", p.ImportPath, imp)
			}
		}
	}
}

// Rules 2 to 5: heavy things are imported where they are expected only.
func TestDriversStayInTheirPlace(t *testing.T) {
	for _, p := range packages(t, ".", "./...") {
		for _, imp := range p.Imports {
			for driver, rule := range drivers {
				if imp != driver && !strings.HasPrefix(imp, driver+"/") {
					continue
				}
				if !slices.ContainsFunc(rule.by, func(by string) bool { return within(p.ImportPath, by) }) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, rule.reason)
				}
			}
		}
	}
}

// Whoever tests with catest carries no database server's driver and no cloud.
func TestCatestIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./catest").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(out))
	if !slices.Contains(all, module+"/internal/ca") {
		t.Fatal("it doesn't reach the authority: what was listed?")
	}
	for _, p := range all {
		for _, heavy := range []string{"github.com/jackc/", "k8s.io/", "cloud.google.com/", "github.com/aws/", "github.com/prometheus/", "github.com/goccy/"} {
			if strings.HasPrefix(p, heavy) {
				t.Errorf("catest reaches %s", p)
			}
		}
	}
}

// The library's users inherit nothing: mtls/acme stands on the standard
// library alone.
func TestLibraryStandsAlone(t *testing.T) {
	for _, p := range packages(t, "mtls", "./...") {
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			if strings.Contains(first, ".") && !strings.HasPrefix(imp, module+"/mtls") && !strings.HasPrefix(imp, "golang.org/x/crypto") {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}
