package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answer is what a bare handler writes.
type answer struct {
	Header http.Header
	Body   []byte
}

// bareFlag has this program be the bare handler, as a process of its own.
const bareFlag = "--bare"

// serveBare serves the answer in a file to every request, and at /metrics the
// one number that is asked of it. The file says where to listen, too.
func serveBare(file string) error {
	debug.SetGCPercent(400) // as chanceryd
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var a struct {
		answer
		Listen string
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return err
	}
	type line struct {
		name  string
		value []string
	}
	var head []line
	for name, value := range a.Header {
		head = append(head, line{name, value})
	}
	return http.ListenAndServe(a.Listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Fprintf(w, "go_memstats_mallocs_total %d\n", m.Mallocs)
			return
		}
		h := w.Header()
		for _, l := range head {
			h[l.name] = l.value
		}
		_, _ = w.Write(a.Body) // who asked may be gone
	}))
}

// contender is one of the two.
type contender struct {
	process       *process
	addr, metrics string
}

// turn is what one contender did in one turn.
type turn struct {
	requests, seconds, cpu, allocations float64
}

func (t turn) rate() float64 { return t.requests / t.seconds }

// parties are the connections that ask, each one request after the other.
const parties = 8

// take lets relying parties ask one contender for a while.
func (c contender) take(request []byte, d time.Duration) (t turn, err error) {
	wires := make([]*wire, parties)
	for i := range wires {
		if wires[i], err = dialWire(c.addr); err != nil {
			return t, err
		}
		defer wires[i].conn.Close()
		if err := wires[i].ask(request); err != nil {
			return t, err
		}
	}
	before, err := scrape(c.metrics)
	if err != nil {
		return t, err
	}
	counts, faults := make([]int, parties), make([]error, parties)
	cpu, begun := cpuTime(c.process.pid()), time.Now()
	var all sync.WaitGroup
	for i, w := range wires {
		all.Go(func() {
			for time.Since(begun) < d && faults[i] == nil {
				faults[i] = w.ask(request)
				counts[i]++
			}
		})
	}
	all.Wait()
	t.seconds, t.cpu = time.Since(begun).Seconds(), (cpuTime(c.process.pid()) - cpu).Seconds()
	for _, n := range counts {
		t.requests += float64(n)
	}
	after, err := scrape(c.metrics)
	t.allocations = after.since(before, "go_memstats_mallocs_total")
	return t, errors.Join(err, errors.Join(faults...))
}

// cachedScenario: answers that are there, against a handler that does nothing
// but write the same bytes.
func cachedScenario(ctx context.Context, l *lab, o *options) (r result, err error) {
	rounds, length := 7, 2*time.Second
	if o.quick {
		rounds, length = 3, 700*time.Millisecond
	}
	r.Title = fmt.Sprintf("Cached OCSP answers, %d connections, against a bare net/http handler that writes the same bytes; %d rounds of %v", parties, rounds, length)
	s, err := l.newSite(ctx, "cached", issuer{"fast", 1, "ocsp"})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	der, err := s.cachedRequest(ctx)
	if err != nil {
		return r, err
	}
	bare, err := s.startBare(ctx, ocspPost(der))
	if err != nil {
		return r, err
	}
	defer func() { // it knows no polite end
		_ = bare.process.cmd.Process.Kill()
		<-bare.process.done
	}()
	ours := contender{s.server, s.publish, s.metrics}
	for _, way := range []struct {
		name    string
		request []byte
	}{
		{"POST", ocspPost(der)},
		{"GET", []byte("GET /ocsp/" + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(der)) + " HTTP/1.1\r\nHost: ocsp.internal\r\n\r\n")},
	} {
		var a, b []turn
		for range rounds {
			for _, c := range []struct {
				contender
				turns *[]turn
			}{{ours, &a}, {bare, &b}} {
				t, err := c.take(way.request, length)
				if err != nil {
					return r, err
				}
				*c.turns = append(*c.turns, t)
			}
		}
		compare(&r, o, way.name, a, b)
	}
	return r, nil
}

// cachedRequest has the server sign an answer, and returns what asks for it.
func (s *site) cachedRequest(ctx context.Context) ([]byte, error) {
	label := s.issuers[0].label(0)
	ca, err := s.certificate(label)
	if err != nil {
		return nil, err
	}
	serial, err := output(ctx, s.dir, nil, s.program("inside"), "live", s.database(), fmt.Sprintf("%x", ca.SubjectKeyId), ocspURL+"/ocsp", "1")
	if err != nil {
		return nil, err
	}
	if err := s.serve(ctx); err != nil {
		return nil, err
	}
	der, err := ocspRequest(ca, strings.TrimSpace(string(serial)))
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); sleep(ctx, 50*time.Millisecond) {
		w, err := dialWire(s.publish)
		if err != nil {
			return nil, err
		}
		err = w.ask(ocspPost(der))
		_ = w.conn.Close()
		if err != nil {
			return nil, err
		}
		if status, err := ocspStatus(w.body); err != nil || status == successful {
			return der, err
		}
	}
	return nil, errors.New("no answer is signed in ten seconds")
}

// startBare starts the bare handler with what the server answers.
func (s *site) startBare(ctx context.Context, request []byte) (contender, error) {
	var c contender
	model, err := s.model(request)
	if err != nil {
		return c, err
	}
	if c.addr, err = freeAddress(); err != nil {
		return c, err
	}
	c.metrics = c.addr
	text, err := json.Marshal(struct {
		answer
		Listen string
	}{model, c.addr})
	file := filepath.Join(s.dir, "bare.json")
	if err = errors.Join(err, os.WriteFile(file, text, 0o600)); err != nil {
		return c, err
	}
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	if c.process, err = start(filepath.Join(s.dir, "bare.log"), self, bareFlag, file); err != nil {
		return c, err
	}
	return c, c.process.listens(ctx, c.addr)
}

// model reads one answer with its headers, but for those that net/http adds.
func (s *site) model(request []byte) (a answer, err error) {
	conn, err := net.Dial("tcp", s.publish)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	w := &recorded{Conn: conn}
	asker := &wire{conn: w, in: newReader(w)}
	if err := asker.ask(request); err != nil {
		return a, err
	}
	head, _, _ := strings.Cut(w.said.String(), "\r\n\r\n")
	a.Header, a.Body = http.Header{}, asker.body
	for i, line := range strings.Split(head, "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok && i > 0 && name != "Date" {
			a.Header[name] = []string{value}
		}
	}
	if a.Header.Get("Content-Length") != strconv.Itoa(len(a.Body)) {
		return a, fmt.Errorf("the answer's head is %q", head)
	}
	return a, nil
}

// recorded keeps what is read.
type recorded struct {
	net.Conn
	said strings.Builder
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.said.Write(p[:n])
	return n, err
}

// compare takes medians of ratios within a round.
func compare(r *result, o *options, way string, ours, bare []turn) {
	ratio := func(f func(turn) float64) float64 {
		var all []float64
		for i := range ours {
			all = append(all, f(ours[i])/f(bare[i]))
		}
		return median(all)
	}
	value := func(turns []turn, f func(turn) float64) float64 {
		var all []float64
		for _, t := range turns {
			all = append(all, f(t))
		}
		return median(all)
	}
	cpu := func(t turn) float64 { return t.cpu / t.requests }
	allocations := func(t turn) float64 { return t.allocations / t.requests }
	r.atLeast(way+": requests a second by the bare handler's", "%.3f", .8, ratio(turn.rate))
	r.atMost(way+": allocations for a request above the bare handler's", "%.2f", 2, value(ours, allocations)-value(bare, allocations))
	r.fact(way+": requests a second, chanceryd's and the bare handler's", "%.0f, %.0f", value(ours, turn.rate), value(bare, turn.rate))
	r.fact(way+": CPU time for a request, µs", "%.1f, %.1f", 1e6*value(ours, cpu), 1e6*value(bare, cpu))
	r.fact(way+": allocations for a request", "%.1f, %.1f", value(ours, allocations), value(bare, allocations))
	o.say("%s: %.3f of the bare handler's requests a second", way, ratio(turn.rate))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return (sorted[len(sorted)/2] + sorted[(len(sorted)-1)/2]) / 2
}
