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
	{"internal/server", "internal/setup"},
	{"internal/config"},
	{"internal/acmeserver", "internal/admin", "internal/publish"},
	{"internal/ca", "internal/responder"},
	{"internal/policy", "internal/challenge", "internal/issuer", "internal/revocation", "internal/store", "internal/plan"},
	{"internal/signer", "internal/yubikey"},
	{"internal/api", "internal/protocol", "internal/cert", "internal/audit", "internal/jws"},
}

// neighbours are the imports within one row that are allowed, with the reason.
var neighbours = map[[2]string]string{
	{"internal/cert", "internal/protocol"}:  "a certificate's record names its order and account",
	{"internal/setup", "internal/server"}:   "the demo runs the very server",
	{"internal/signer", "internal/yubikey"}: "a YubiKey is one kind of signer",
}

// drivers may be imported only where it says, with the reason.
var drivers = map[string]struct {
	by     []string
	reason string
}{
	"zombiezen.com/go/sqlite":             {[]string{"internal/store"}, "SQL lives in the store"},
	"modernc.org/sqlite":                  {[]string{"internal/store"}, "SQL lives in the store"},
	"github.com/jackc/pgx":                {[]string{"internal/store"}, "SQL lives in the store"},
	"database/sql":                        {[]string{"internal/store"}, "SQL lives in the store"},
	"github.com/miekg/pkcs11":             {[]string{"internal/signer"}, "one place speaks PKCS#11"},
	"github.com/go-piv/piv-go":            {[]string{"internal/yubikey"}, "one place speaks to YubiKeys"},
	"net/http":                            {[]string{"internal/acmeserver", "internal/admin", "internal/server", "internal/setup", "internal/publish", "internal/challenge", "cmd/chancery", "internal/protocol"}, "the authority knows no HTTP; protocol names status codes"},
	"github.com/miekg/dns":                {[]string{"internal/challenge"}, "only validators ask the DNS"},
	"github.com/prometheus/client_golang": {[]string{"internal/server"}, "metrics are wired in one place"},
	"github.com/goccy/go-yaml":            {[]string{"internal/config"}, "one reader of the configuration"},
	"github.com/alecthomas/kong":          {[]string{"cmd/chancery", "cmd/chanceryd", "internal/setup"}, "only commands have flags"},
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

// rowOf finds the row of a package, with what lies below its folder.
func rowOf(path string) (string, int) {
	rel := strings.TrimPrefix(path, module+"/")
	for i, row := range rows {
		for _, name := range row {
			if rel == name || strings.HasPrefix(rel, name+"/") {
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
				if from, _ := rowOf(p.ImportPath); !slices.Contains(rule.by, from) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, rule.reason)
				}
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
