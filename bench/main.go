package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	// Children die with the thread that started them (see start).
	runtime.LockOSThread()
	if os.Getenv(floorEnv) != "" {
		fail(floorMain(os.Args[1:]))
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	fail(err)
	res, err := bench(ctx, o)
	fail(err)
	fail(o.print(os.Stdout, res))
	if o.check && !res.passed() {
		os.Exit(1)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	servers  []string
	clients  []int
	modes    []mode
	rounds   int
	cell     time.Duration
	dir      string
	stored   int
	syncs    int
	progress io.Writer

	json, markdown, check, keep bool
}

// short names of the servers on the command line.
var serverNames = map[string]string{
	"sqlite": chancerySQLite, "postgres": chanceryPostgres, "filled": chanceryMillion,
	"pebble": pebbleName, "step": stepName, "floor": floorName,
}

func parseOptions(args []string) (*options, error) {
	o := &options{progress: os.Stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	servers := flags.String("servers", "sqlite,postgres,pebble,step,floor", "who takes part")
	clients := flags.String("clients", "1,8,32", "numbers of clients at once")
	modes := flags.String("modes", "throwaway,kept,cold,shared", "kinds of clients")
	quick := flags.Bool("quick", false, "chanceryd on SQLite and the floor only, under a minute")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each server has its turn; ratios are medians of these")
	flags.DurationVar(&o.cell, "cell", 2*time.Second, "length of one turn")
	flags.StringVar(&o.dir, "dir", "", "scratch folder, on a disk (default: a new one in the temporary folder)")
	flags.IntVar(&o.stored, "stored", 0, "let a second chanceryd take part that has this many certificates already")
	flags.IntVar(&o.syncs, "syncs", 50, "certificates for which fsync calls are counted with strace; 0 for none")
	flags.BoolVar(&o.json, "json", false, "print everything as JSON")
	flags.BoolVar(&o.markdown, "markdown", false, "print tables for docs/PERFORMANCE.md")
	flags.BoolVar(&o.check, "check", false, "exit with 1 when a target is missed")
	flags.BoolVar(&o.keep, "keep", false, "keep the scratch folder with databases and logs")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *quick { // what was asked for by name wins
		given := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{"servers": "sqlite,floor", "clients": "1,8", "rounds": "2", "cell": "1s", "syncs": "0"} {
			if !given[name] {
				_ = flags.Set(name, value)
			}
		}
	}
	for name := range strings.SplitSeq(*servers, ",") {
		long, ok := serverNames[name]
		if !ok {
			return nil, fmt.Errorf("--servers: no server is called %q", name)
		}
		o.servers = append(o.servers, long)
	}
	if o.stored > 0 && !slices.Contains(o.servers, chanceryMillion) {
		o.servers = slices.Insert(o.servers, 1, chanceryMillion)
	}
	for n := range strings.SplitSeq(*clients, ",") {
		v, err := strconv.Atoi(n)
		if err != nil || v < 1 {
			return nil, fmt.Errorf("--clients: %q is no number of clients", n)
		}
		o.clients = append(o.clients, v)
	}
	for m := range strings.SplitSeq(*modes, ",") {
		long, ok := map[string]mode{"throwaway": throwaway, "kept": kept, "cold": cold, "shared": shared}[m]
		if !ok {
			return nil, fmt.Errorf("--modes: no mode is called %q", m)
		}
		o.modes = append(o.modes, long)
	}
	return o, nil
}

// scenarios is the part of the plan that the options leave. The shared account
// has its 32 clients always.
func (o *options) scenarios() []scenario {
	return slices.DeleteFunc(slices.Clone(plan), func(sc scenario) bool {
		return !slices.Contains(o.modes, sc.Mode) || sc.Mode != shared && !slices.Contains(o.clients, sc.Clients)
	})
}

// bench runs the whole comparison.
func bench(ctx context.Context, o *options) (res *results, err error) {
	debug.SetGCPercent(400) // our own time is taken from the servers' two cores
	l, err := newLab(o)
	if err != nil {
		return nil, err
	}
	defer l.close(o.keep)
	if err := l.build(o); err != nil {
		return nil, err
	}
	res = &results{Machine: describeMachine(l.dir), Rounds: o.rounds, CellSeconds: o.cell.Seconds(), Stored: o.stored,
		Bytes: map[string]float64{}, Syncs: map[string][]syncCount{}}
	if o.stored > 0 {
		if res.FilledBytes, err = l.fill(ctx, o); err != nil {
			return nil, err
		}
	}
	var servers []*server
	defer func() {
		for _, srv := range servers {
			size, stopErr := srv.stop()
			err = errors.Join(err, stopErr)
			if err == nil && size > 0 && srv.next > 0 && srv.name != chanceryMillion {
				res.Bytes[srv.name] = float64(size-srv.emptyBytes) / float64(srv.next)
			}
		}
	}()
	for _, name := range o.servers {
		srv, err := l.start(ctx, name)
		if err != nil {
			return nil, err
		}
		servers = append(servers, srv)
	}
	idle(servers)
	if err := l.rounds(ctx, o, servers, res); err != nil {
		return nil, err
	}
	return res, l.countSyncs(ctx, o, servers, res)
}

// hungRate is fewer certificates a second than any server makes that lives.
const hungRate = 10

// again puts a fresh server in the place of one that hangs.
func (l *lab) again(ctx context.Context, old *server) (*server, error) {
	if _, err := old.stop(); err != nil {
		return nil, err
	}
	return l.start(ctx, old.name)
}

// rounds lets all servers take turns at every scenario, again and again.
func (l *lab) rounds(ctx context.Context, o *options, servers []*server, res *results) error {
	js := new(jobs)
	for round := range o.rounds {
		for _, sc := range o.scenarios() {
			for i, srv := range servers {
				if srv.maxClients > 0 && sc.Clients > srv.maxClients || sc.Mode == shared && srv.name == floorName {
					continue
				}
				// More than any server makes, so that none pays for keys.
				if err := js.reserve(srv.next + 2*sc.Clients + int(o.cell.Seconds()*1000)); err != nil {
					return err
				}
				s, err := l.measure(ctx, srv, sc, o.cell, js)
				if srv.name == pebbleName && (err != nil || s.rate() < hungRate) {
					// It deadlocks now and then: its turn doesn't count.
					fmt.Fprintf(o.progress, "%s hangs (%v); started again\n", pebbleName, err)
					if servers[i], err = l.again(ctx, srv); err != nil {
						return err
					}
					continue
				}
				if err != nil {
					return err
				}
				res.add(srv.name, sc, s)
				fmt.Fprintf(o.progress, "round %d/%d  %-18s %3d clients  %-22s %6.0f certificates/s  %5.2f ms of CPU\n",
					round+1, o.rounds, sc.Mode, sc.Clients, srv.name, s.rate(), s.cpu())
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	return nil
}

func newLab(o *options) (*lab, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	dir := o.dir
	if dir == "" {
		dir = os.TempDir()
	}
	if dir, err = os.MkdirTemp(dir, "chancery-bench-"); err != nil {
		return nil, err
	}
	// PostgreSQL runs as another user and must find its way in.
	if err := errors.Join(os.Chmod(dir, 0o711), realDisk(dir)); err != nil {
		return nil, err
	}
	l := &lab{root: root, dir: dir}
	if l.answers, err = listenAnswers(); err != nil {
		return nil, err
	}
	l.authority, err = newAuthority()
	return l, err
}

func (l *lab) close(keep bool) {
	l.answers.close()
	if keep {
		fmt.Fprintln(os.Stderr, "kept", l.dir)
		return
	}
	_ = os.RemoveAll(l.dir)
}

// findRoot finds the repository above the working folder.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "bench", "peers", "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("run this inside the repository")
		}
		dir = up
	}
}

// build builds what the chosen servers need.
func (l *lab) build(o *options) error {
	has := func(names ...string) bool {
		return slices.ContainsFunc(o.servers, func(s string) bool { return slices.Contains(names, s) })
	}
	begin := time.Now()
	if has(chancerySQLite, chanceryPostgres, chanceryMillion) {
		if err := l.buildChanceryd(); err != nil {
			return err
		}
	}
	if has(pebbleName, stepName) {
		if err := l.buildPeers(); err != nil {
			return err
		}
	}
	fmt.Fprintf(o.progress, "built in %.0f s; scratch folder %s\n", time.Since(begin).Seconds(), l.dir)
	return nil
}

// print writes the report in the form that was asked for.
func (o *options) print(w io.Writer, res *results) error {
	switch {
	case o.json:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(res.report())
	case o.markdown:
		return res.markdown(w)
	}
	return res.table(w)
}
