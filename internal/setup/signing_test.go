package setup

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
)

// adminSocket answers GET /v1/signing on a socket.
func adminSocket(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "signing-") // a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/signing", h)
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	return path
}

func TestReadSigning(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		status       int
		want         string // part of the error; "": none
	}{
		{"as it should be", `{"issuers":[{"name":"x","keys":[{"subject":"A","live":7}],"profiles":[]}],"shares":{"ocsp":0.04}}`, 200, ""},
		{"refused", `{"type":"x","detail":"only root may ask","status":403}`, 403, "only root may ask"},
		{"an older server", `{"detail":"there is no GET /v1/signing"}`, 404, "older"},
		{"no JSON", "<html>", 200, "not what this version understands"},
		{"a failure without words", "oops", 500, "500"},
		{"too much", strings.Repeat(" ", maxSigning+1), 200, "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := adminSocket(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				w.Write([]byte(c.answer))
			})
			s, err := ReadSigning(t.Context(), path)
			if c.want == "" {
				if err != nil || len(s.Issuers) != 1 || s.Issuers[0].Keys[0].Live != 7 || s.Shares["ocsp"] != .04 {
					t.Errorf("%+v, %v", s, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// Who can't be reached is named, with what to do.
func TestReadSigningUnreachable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := ReadSigning(t.Context(), path); err == nil || !strings.Contains(err.Error(), "no admin socket at "+path) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := ReadSigning(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("a dead server's socket: %v", err)
	}
	release := make(chan struct{})
	slow := adminSocket(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := ReadSigning(ctx, slow); err == nil || !strings.Contains(err.Error(), "did not answer") {
		t.Errorf("a server that hangs: %v", err)
	}
}

// What the server says becomes what is planned for; what had to be taken for
// granted is said.
func TestPlanFrom(t *testing.T) {
	s := api.Signing{
		Shares: map[string]float64{"issuance": .5, "renewal": .4, "ocsp": .09, "crl": .01},
		Issuers: []api.SigningIssuer{{
			Name: "workloads", OCSPValidity: 8 * 3600, CRLs: 17, CRLValidity: 12 * 3600,
			Keys: []api.SigningKey{
				{Subject: "A", State: "ready", Signature: .2, Parallel: 1, Live: 30_000},
				{Subject: "B", State: "remote", Parallel: 2, Live: 9000},
				{Subject: "C", State: "away", Reason: "pulled out", Signature: .2, Live: 900},
				{Subject: "D", State: "retired", Live: 100},
				{Subject: "E", State: "ready", URIs: []string{"file:/x"}},
			},
			Profiles: []api.SigningProfile{{Name: "short", Lifetime: 3600, Revocation: "none"}, {Name: "long", Lifetime: 86400, Revocation: "crl+ocsp"}},
		}, {Name: "elsewhere"}},
	}
	f, err := PlanFrom(s, "")
	if err != nil {
		t.Fatal(err)
	}
	if f.Alive != 40_000 || len(f.Keys) != 3 || f.Keys[0].Signature != 200*time.Millisecond || f.Keys[1].Signature != assumedSignature ||
		f.Keys[1].Parallel != 2 || f.Keys[2].Signature != assumedInMemory || f.Lifetime != time.Hour ||
		f.OCSPValidity != 8*time.Hour || f.Lists != 17 || f.ListEvery != 4*time.Hour || f.Shares[0] != .5 {
		t.Errorf("%+v", f)
	}
	for _, want := range []string{"C is away", "pulled out", "B has signed nothing", "1h0m0s to 24h0m0s", "some profiles have no OCSP", "40000"} {
		if !strings.Contains(strings.Join(f.Notes, "\n"), want) {
			t.Errorf("no note of %q: %q", want, f.Notes)
		}
	}
	s.Issuers[1].Keys = s.Issuers[0].Keys
	if _, err := PlanFrom(s, ""); err == nil || !strings.Contains(err.Error(), "workloads, elsewhere") {
		t.Errorf("two issuers: %v", err)
	}
	if f, err := PlanFrom(s, "elsewhere"); err != nil || f.OCSPValidity != 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := PlanFrom(s, "other"); err == nil {
		t.Error("an issuer that isn't there was found")
	}
	if _, err := PlanFrom(api.Signing{}, ""); err == nil {
		t.Error("a server without issuers was read")
	}
}
