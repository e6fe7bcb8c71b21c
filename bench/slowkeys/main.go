package main

import (
	"context"
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
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	quick, json, markdown, check, keep bool
	only                               []string
	dir                                string
	progress                           io.Writer
}

// scenarios are what is measured, in this order.
var scenarios = []struct {
	name string
	run  func(context.Context, *lab, *options) (result, error)
}{
	{"storm", stormScenario},
	{"pool", poolScenario},
	{"cached", cachedScenario},
	{"list", listScenario},
}

func main() {
	runtime.LockOSThread() // see start
	if len(os.Args) == 3 && os.Args[1] == bareFlag {
		fmt.Fprintln(os.Stderr, serveBare(os.Args[2]))
		os.Exit(1)
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := measure(ctx, o)
	if err == nil {
		err = r.write(os.Stdout, o)
	}
	if err == nil && o.check && !r.passed() {
		err = errors.New("a target was missed")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slowkeys:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{progress: os.Stderr}
	flags := flag.NewFlagSet("slowkeys", flag.ContinueOnError)
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	only := flags.String("only", strings.Join(names, ","), "which scenarios")
	flags.BoolVar(&o.quick, "quick", false, "small numbers and faster keys, about a minute; p99 is then of few")
	flags.StringVar(&o.dir, "dir", "", "scratch folder, on a disk (default: a new one in the temporary folder)")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.BoolVar(&o.markdown, "markdown", false, "print tables for docs/PERFORMANCE.md")
	flags.BoolVar(&o.check, "check", false, "exit with 1 when a target is missed")
	flags.BoolVar(&o.keep, "keep", false, "keep the scratch folder with databases and logs")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.only = strings.Split(*only, ",")
	for _, name := range o.only {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("--only: no scenario is called %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	return o, nil
}

// measure runs the scenarios one after the other.
func measure(ctx context.Context, o *options) (r *report, err error) {
	debug.SetGCPercent(400) // our own time is taken from the servers' cores
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	dir := o.dir
	if dir == "" {
		dir = os.TempDir()
	}
	if dir, err = os.MkdirTemp(dir, "slowkeys-"); err != nil {
		return nil, err
	}
	defer func() {
		if o.keep {
			fmt.Fprintln(o.progress, "kept", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	l := &lab{root: root, dir: dir, bin: filepath.Join(root, "bench", "bin", "slowkeys")}
	begun := time.Now()
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	r = &report{Conditions: conditions(o)}
	o.say("built after %.0f s", time.Since(begun).Seconds())
	for _, s := range scenarios {
		if !slices.Contains(o.only, s.name) {
			continue
		}
		part, err := s.run(ctx, l, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		r.Results = append(r.Results, part)
		o.say("%s done after %.0f s", s.name, time.Since(begun).Seconds())
	}
	return r, nil
}

func (o *options) say(format string, args ...any) { fmt.Fprintf(o.progress, format+"\n", args...) }

// findRoot finds the repository above the working folder.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "bench", "slowkeys", "inside", "main.go")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("run this inside the repository")
		}
		dir = up
	}
}
