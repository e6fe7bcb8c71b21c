package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The floor server is this program started again, tests included.
func TestMain(m *testing.M) {
	if os.Getenv(floorEnv) != "" {
		fail(floorMain(os.Args[1:]))
		return
	}
	os.Exit(m.Run())
}

// The whole comparison runs, with few certificates: every kind of client at
// chanceryd and at the floor. No speed is asked for here.
func TestQuick(t *testing.T) {
	o, err := parseOptions([]string{"--quick", "--rounds=1", "--cell=300ms", "--dir", t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	o.progress = io.Discard
	res, err := bench(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, sc := range o.scenarios() {
		for _, server := range o.servers {
			if sc.Mode == shared && server == floorName {
				continue
			}
			c := res.cell(server, sc)
			if c == nil {
				t.Fatalf("%s was not measured at %s", sc.title(), server)
			}
			got := res.row(c)
			posts := 6.0
			if sc.Mode.keepsAccount() {
				posts = 5
			}
			if got.Issued == 0 || got.Failures != 0 || got.Posts != posts || got.CPU <= 0 || got.PeakMiB <= 0 || got.P99 < got.P50 {
				t.Errorf("%s at %s: %+v", sc.title(), server, got)
			}
			if server == chancerySQLite && (got.Commits <= 0 || got.Allocations <= 0) {
				t.Errorf("%s at %s: metrics are missing: %+v", sc.title(), server, got)
			}
		}
	}
	if res.Bytes[chancerySQLite] < 500 {
		t.Errorf("%.0f bytes for a certificate", res.Bytes[chancerySQLite])
	}
	var text bytes.Buffer
	for _, form := range []func(io.Writer) error{res.table, res.markdown} {
		text.Reset()
		if err := form(&text); err != nil || !strings.Contains(text.String(), "CPU by the floor's, 8 clients") {
			t.Errorf("the report lacks its first target (%v):\n%s", err, text.String())
		}
	}
	o.json = true
	text.Reset()
	var back report
	if err := o.print(&text, res); err != nil {
		t.Error(err)
	} else if err := json.Unmarshal(text.Bytes(), &back); err != nil || len(back.Rows) != len(res.cells) {
		t.Errorf("--json: %v, %d rows", err, len(back.Rows))
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"--stored", "10"})
	if err != nil || !slices.Contains(o.servers, chanceryMillion) || len(o.scenarios()) != len(plan) {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = parseOptions([]string{"--quick", "--rounds=7"}); err != nil || o.rounds != 7 || o.cell != time.Second || len(o.servers) != 2 {
		t.Errorf("--quick with --rounds: %+v, %v", o, err)
	}
	for _, bad := range []string{"--servers=apache", "--clients=0", "--modes=lazy"} {
		if _, err := parseOptions([]string{bad}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// RFC 1035 section 4.1: an answer repeats the question.
func TestResolve(t *testing.T) {
	question := "\x01a\x05bench\x08internal\x00"
	query := func(typ byte, flags byte) []byte {
		return append([]byte{7, 9, flags, 0, 0, 1, 0, 0, 0, 0, 0, 1}, (question + "\x00" + string(typ) + "\x00\x01extra")...)
	}
	a := resolve(query(1, 1))
	if len(a) != 12+len(question)+4+16 || a[0] != 7 || a[2] != 0x85 || a[7] != 1 || a[11] != 0 || string(a[len(a)-4:]) != "\x7f\x00\x00\x01" {
		t.Errorf("A: %x", a)
	}
	if aaaa := resolve(query(28, 1)); len(aaaa) != 12+len(question)+4 || aaaa[7] != 0 || aaaa[3]&15 != 0 {
		t.Errorf("AAAA: %x", aaaa)
	}
	for _, bad := range [][]byte{nil, query(1, 0x80), query(1, 0)[:20], bytes.Repeat([]byte{255}, 30)} {
		if got := resolve(bad); got != nil {
			t.Errorf("%x was answered: %x", bad, got)
		}
	}
}

func TestSyncCalls(t *testing.T) {
	trace := `[pid 12] fdatasync(9 <unfinished ...>
[pid 13] write(4, ""..., 80) = 80
[pid 12] <... fdatasync resumed>) = 0
fsync(3) = 0
[pid 13] pwrite64(11, ""..., 10, 0) = 10
[pid 13] pwrite64(12, ""..., 10, 0) = 10
`
	if got := syncCalls(trace, map[string]bool{"11": true}); got != 3 {
		t.Errorf("%d sync calls, want 3", got)
	}
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if synced := syncedFiles(os.Getpid()); !synced[fmt.Sprint(f.Fd())] || synced["1"] {
		t.Errorf("open with O_SYNC: %v, want %d", synced, f.Fd())
	}
}

// SQLite's file format section 4.1: frames count while their salts are the
// header's; the size is that of the last commit.
func TestLogBytes(t *testing.T) {
	const page = 512
	log := make([]byte, 32)
	binary.BigEndian.PutUint32(log[8:], page)
	copy(log[16:24], "saltsalt")
	frame := func(size uint32, salts string) {
		f := make([]byte, 24+page)
		binary.BigEndian.PutUint32(f[4:], size)
		copy(f[8:16], salts)
		log = append(log, f...)
	}
	frame(0, "saltsalt")
	frame(7, "saltsalt")
	frame(0, "saltsalt")
	frame(99, "oldstale")
	file := filepath.Join(t.TempDir(), "wal")
	if err := os.WriteFile(file, log, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := logBytes(file); got != 7*page {
		t.Errorf("%d bytes, want %d", got, 7*page)
	}
	if got := logBytes(file + "none"); got != 0 {
		t.Errorf("%d bytes without a log", got)
	}
}

func TestScrape(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# HELP a b\n# TYPE a counter\na{x=\"1 2\"} 3\na{x=\"}\"} 1e1\nb 2.5\nnonsense\n")
	}))
	defer srv.Close()
	if got := scrape(srv.URL); got["a"] != 13 || got["b"] != 2.5 || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// What a process used is seen, and its dead children's part too.
func TestCPUTime(t *testing.T) {
	before := processClock(os.Getpid())
	for begin := time.Now(); time.Since(begin) < 30*time.Millisecond; {
	}
	if used := processClock(os.Getpid()) - before; used < 5*time.Millisecond {
		t.Errorf("%v of CPU time after 30 ms of work", used)
	}
	if !slices.Contains(tree(os.Getppid()), os.Getpid()) {
		t.Error("this process is not below its parent")
	}
	if peakRSS(os.Getpid()) < 1<<20 {
		t.Error("no peak memory")
	}
}

func TestTargets(t *testing.T) {
	sc := scenario{throwaway, 8}
	r := new(results)
	at := func(server string, cpu ...float64) {
		for _, c := range cpu {
			r.add(server, sc, sample{Certificates: 10, Seconds: 1, Posts: 60, ServerCPU: c})
		}
	}
	at(chancerySQLite, 3, 9, 3)
	at(floorName, 2, 2, 1) // ratios 1.5, 4.5 and 3: the median is 3
	at(stepName, 30, 30, 30)
	verdicts := map[string]bool{}
	for _, goal := range r.targets() {
		verdicts[goal.Name] = goal.Pass
	}
	if pass, ok := verdicts["CPU by the floor's, 8 clients"]; !ok || pass {
		t.Error("3 times the floor passed for 2")
	}
	if !verdicts["CPU by step-ca's, 8 clients"] {
		t.Error("a tenth of step-ca's did not pass for 0.4")
	}
	if _, ok := verdicts["CPU by Pebble's, 8 clients"]; ok {
		t.Error("a target that was not measured is judged")
	}
	if r.passed() {
		t.Error("passed with a missed target")
	}
	if quantile([]time.Duration{3e6, 1e6, 2e6}, 0.5) != 2 || quantile(nil, 0.5) != 0 || median([]float64{4, 1}) != 2.5 {
		t.Error("quantile or median")
	}
}
