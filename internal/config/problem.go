package config

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File    string // "" for a configuration that wasn't read from a file
	Line    int    // from 1; 0 where there is nothing to point at
	Column  int
	Path    string // as in "directories.servers.names.allow[2]"
	Message string // what is wrong and what would be right
	Warning bool   // the server starts all the same

	cause error // what Message was made of; nil for Load's and Check's own
}

// Unwrap returns the error of which At made the problem, nil for others.
func (p Problem) Unwrap() error { return p.cause }

// Error returns "file:line:column: path: message" on one line.
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
		}
		b.WriteByte(' ')
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	return b.String() + p.Message
}

// Problems is what Load and Check found.
type Problems []Problem

// Error returns the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Errors returns the problems that aren't warnings.
func (ps Problems) Errors() Problems {
	var errs Problems
	for _, p := range ps {
		if !p.Warning {
			errs = append(errs, p)
		}
	}
	return errs
}

// At makes a problem of an error about the value at the path, so that it names
// the file and the line: errors that only show when keys and certificates are
// opened. nil stays nil, and Problems stay what they are.
func (c *Config) At(path string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[Problems](err); ok {
		return err
	}
	if _, ok := errors.AsType[Problem](err); ok {
		return err
	}
	p := c.source.problem(path, "%v", err)
	p.cause = err
	return p
}

// place is a line and a column, both from 1.
type place struct{ line, column int }

// source remembers where each value stood. The zero value knows no file.
type source struct {
	file   string
	places map[string]place // by path
}

// problem makes a problem at the path, or at the nearest thing around it
// where the value itself is missing.
func (s source) problem(path, format string, args ...any) Problem {
	p := Problem{File: s.file, Path: path, Message: fmt.Sprintf(format, args...)}
	for at := path; ; {
		if found, ok := s.places[at]; ok {
			p.Line, p.Column = found.line, found.column
			return p
		}
		i := strings.LastIndexAny(at, ".[")
		if i < 0 {
			return p
		}
		at = at[:i]
	}
}
