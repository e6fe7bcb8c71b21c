package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
)

// target is one line of what was set out to be reached.
type target struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"`
	Pass bool   `json:"pass"`
}

func (t target) verdict() string {
	if t.Pass {
		return "ok"
	}
	return "MISSED"
}

// fact is a number that was measured beside.
type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// result is what one scenario found.
type result struct {
	Title   string   `json:"title"`
	Targets []target `json:"targets"`
	Facts   []fact   `json:"facts"`
}

func (r *result) atLeast(name, format string, want, got float64) {
	r.Targets = append(r.Targets, target{name, "≥ " + fmt.Sprintf(format, want), fmt.Sprintf(format, got), got >= want})
}

func (r *result) atMost(name, format string, want, got float64) {
	r.Targets = append(r.Targets, target{name, "≤ " + fmt.Sprintf(format, want), fmt.Sprintf(format, got), got <= want})
}

// exactly is for counts.
func (r *result) exactly(name string, want, got int) {
	r.Targets = append(r.Targets, target{name, fmt.Sprint(want), fmt.Sprint(got), got == want})
}

func (r *result) fact(name, format string, args ...any) {
	r.Facts = append(r.Facts, fact{name, fmt.Sprintf(format, args...)})
}

// report is a whole run.
type report struct {
	Conditions string   `json:"conditions"`
	Results    []result `json:"results"`
}

func (r *report) passed() bool {
	for _, s := range r.Results {
		for _, t := range s.Targets {
			if !t.Pass {
				return false
			}
		}
	}
	return true
}

// conditions are what the numbers depend on.
func conditions(o *options) string {
	cpu := "unknown CPU"
	text, _ := os.ReadFile("/proc/cpuinfo")
	if _, after, ok := strings.Cut(string(text), "model name"); ok {
		line, _, _ := strings.Cut(after, "\n")
		cpu = strings.TrimLeft(line, " \t:")
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	size := "whole run"
	if o.quick {
		size = "quick run, with less of everything"
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s; %s.", cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), size)
}

// write prints the report in the form that was asked for.
func (r *report) write(w io.Writer, o *options) error {
	var out bytes.Buffer
	switch {
	case o.json:
		e := json.NewEncoder(&out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(r); err != nil {
			return err
		}
	case o.markdown:
		r.markdown(&out)
	default:
		r.table(&out)
	}
	_, err := out.WriteTo(w)
	return err
}

func (r *report) table(out *bytes.Buffer) {
	fmt.Fprintln(out, r.Conditions)
	for _, s := range r.Results {
		fmt.Fprintf(out, "\n%s\n", s.Title)
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, goal := range s.Targets {
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", goal.verdict(), goal.Got, goal.Want, goal.Name)
		}
		for _, f := range s.Facts {
			fmt.Fprintf(t, "\t%s\t\t%s\n", f.Value, f.Name)
		}
		_ = t.Flush() // to memory
	}
}

func (r *report) markdown(out *bytes.Buffer) {
	fmt.Fprintln(out, r.Conditions)
	for _, s := range r.Results {
		fmt.Fprintf(out, "\n**%s**\n\n| | wanted | measured | |\n|---|--:|--:|---|\n", s.Title)
		for _, goal := range s.Targets {
			fmt.Fprintf(out, "| %s | %s | %s | %s |\n", goal.Name, goal.Want, goal.Got, goal.verdict())
		}
		for _, f := range s.Facts {
			fmt.Fprintf(out, "| %s | | %s | |\n", f.Name, f.Value)
		}
	}
}
