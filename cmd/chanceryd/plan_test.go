package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/plan"
)

// runPlan is one command line's exit code and output.
func runPlan(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"plan"}, args...), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestPlan(t *testing.T) {
	t.Setenv("CHANCERY_ADMIN", "")
	picture := filepath.Join(t.TempDir(), "plan.svg")
	code, out, errs := runPlan(t, "--certificates", "40000", "--key", "2x5/s", "--drain", "100",
		"--ocsp-validity", "8h", "--ocsp-asked", "30%", "--crl-lists", "1", "--svg", picture)
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"A drain of 100 workloads is over in", "40,000 alive", "2 keys of 200 ms", "30 % of the certificates are asked about", "When to add a key"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if svg, err := os.ReadFile(picture); err != nil || !bytes.HasPrefix(svg, []byte("<svg ")) {
		t.Errorf("%.40q, %v", svg, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(picture), ".plan*")); left != nil {
		t.Errorf("%v is left", left)
	}
}

// What isn't given comes from the running server, and what is given wins.
func TestPlanAsksTheServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "plan-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(api.Signing{Issuers: []api.SigningIssuer{{
			Name: "workloads", OCSPValidity: 4 * 3600,
			Keys:     []api.SigningKey{{Subject: "A", State: "ready", Signature: .25, Parallel: 1, Live: 30_000}},
			Profiles: []api.SigningProfile{{Name: "server", Lifetime: 48 * 3600, Revocation: "ocsp"}},
		}}})
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	t.Setenv("CHANCERY_ADMIN", l.Addr().String())

	code, out, errs := runPlan(t, "--drain", "50", "--json")
	var r struct {
		Budget   float64
		Alive    int `json:"certificates_alive"`
		Keys     int
		Drain    struct{ Workloads struct{ P99 float64 } }
		Verdict  string
		Uses     map[string]struct{ Demand float64 }
		Anything any `json:"-"`
	}
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s", code, err, errs)
	}
	if r.Budget != 4 || r.Keys != 1 || r.Alive < 29_990 || r.Alive > 30_010 || r.Drain.Workloads.P99 < 25 || r.Uses["ocsp"].Demand < 1 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(errs, "read from the server: issuer workloads with 30000 certificates alive") {
		t.Errorf("notes: %s", errs)
	}
	if _, out, _ := runPlan(t, "--key", "10ms", "--lifetime", "24h", "--ocsp-asked", "none"); !strings.Contains(out, "100 signatures a second") ||
		!strings.Contains(out, "live 24h") || strings.Contains(out, "OCSP answers last") {
		t.Errorf("flags don't win:\n%s", out)
	}
}

func TestPlanRefuses(t *testing.T) {
	t.Setenv("CHANCERY_ADMIN", filepath.Join(t.TempDir(), "none"))
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", 1, "or say --certificates and --key"},
		{"--certificates 5 --workloads 5 --key 5/s", 1, "no admin socket"}, // it was asked for
		{"--key 5 --certificates 1", 1, "no admin socket"},
		{"--ocsp-asked 5", 2, "not a part of a whole"},
	} {
		code, _, errs := runPlan(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("plan %s: exit %d: %s", c.args, code, errs)
		}
	}
	t.Setenv("CHANCERY_ADMIN", "")
	for args, want := range map[string]string{
		"--certificates 5 --workloads 5 --key 5/s":                    "give one of them",
		"--certificates 5 --key 5":                                    "write it as 200ms",
		"--certificates 5 --key 0x5/s":                                "write it as 200ms",
		"--certificates 5 --key 5/s --key 9s@0":                       "write it as 200ms",
		"--certificates 5 --key 5/s --shares 60,35,4":                 "four percentages",
		"--certificates 5 --key 5/s --shares 60,35,4,2":               "101 %",
		"--certificates 5 --key 5/s --lifetime 1s --drain-over 48h":   "; ",
		"--certificates 5 --key 5/s --svg /nonexistent-folder/a.svg":  "no such file",
		"--certificates 5 --key 5/s --ocsp-storm 1":                   "no OCSP",
		"--certificates 900000000 --key 5/s":                          "10,000,000",
		"--certificates 5 --key 5/s --renew-at 99% --spread 3%":       "renewal window",
		"--certificates 5 --key 5/s --per-workload NaN --drain 10000": "certificates per workload",
	} {
		code, _, errs := runPlan(t, strings.Fields(args)...)
		if code != 1 || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("plan %s: exit %d: %s", args, code, errs)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	for _, s := range []string{"200ms", "5/s", "4x200ms", "1ms@8", "2x0.5/s@3", "x", "1x", "@", "-1s", "1e300/s", "NaN/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		keys, err := parseKeys(s)
		if err != nil {
			return
		}
		if len(keys) == 0 || len(keys) > plan.MaxKeys || keys[0].Signature < 1 || keys[0].Parallel < 1 {
			t.Errorf("%q: %d keys like %+v", s, len(keys), keys)
		}
	})
}

func TestParseKeys(t *testing.T) {
	keys, err := parseKeys("3x5/s@2")
	if err != nil || len(keys) != 3 || keys[2] != (plan.Key{Signature: 200 * time.Millisecond, Parallel: 2}) {
		t.Errorf("%+v, %v", keys, err)
	}
}
