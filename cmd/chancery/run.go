package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
)

// commands is the command line; its help texts are the manual.
type commands struct {
	Admin   adminCommand   `cmd:"" help:"Run the CA: EAB keys, accounts, certificates, audit, status."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// output is where a command writes.
type output struct {
	io.Writer
}

// run does one command line and returns the exit code: 0 done, 1 failed, 2
// bad usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	var c commands
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("chancery"),
		kong.Description("Certificates for workloads, people and hosts from a private CA."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(output{stdout}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "chancery:", err)
		return 2
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // --help has printed
		return exit
	}
	if err != nil {
		fmt.Fprintf(stderr, "chancery: %v; see chancery --help\n", err)
		return 2
	}
	if err := parsed.Run(); err != nil {
		if errors.Is(err, context.Canceled) {
			return 1
		}
		fmt.Fprintln(stderr, "chancery:", err)
		return 1
	}
	return 0
}
