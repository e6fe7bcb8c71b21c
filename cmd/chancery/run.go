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
	Login   loginCommand   `cmd:"" help:"Get my certificates for the day, with my security key."`
	Status  heldCommand    `cmd:"" help:"Show what I hold, and until when."`
	Logout  logoutCommand  `cmd:"" help:"Take away what login left."`
	SSH     sshCommand     `cmd:"" name:"ssh" help:"SSH: an agent for security keys, hosts, who trusts whom, alarms."`
	Devices devicesCommand `cmd:"" help:"Enroll, show and end people's security keys, at all CAs."`
	Revoke  revokeCommand  `cmd:"" help:"Revoke everything that a person has, at all CAs."`
	Admin   adminCommand   `cmd:"" help:"Run the CA: EAB keys, accounts, certificates, audit, status."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// output is where a command writes.
type output struct {
	io.Writer
}

// notices is where a command says what it is doing.
type notices struct {
	io.Writer
}

// ending is what is done when a command has run.
type ending []func()

func (e *ending) defers(do func()) { *e = append(*e, do) }

func (e *ending) run() {
	for _, do := range *e {
		do()
	}
}

// run does one command line and returns the exit code: 0 done, 1 failed, 2
// bad usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	var c commands
	exit, end := -1, new(ending)
	defer end.run()
	parser, err := kong.New(&c,
		kong.Name("chancery"),
		kong.Description("Certificates for workloads, people and hosts from a private CA."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(output{stdout}, notices{stderr}, end),
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
		if code, ok := errors.AsType[exitCode](err); ok {
			return int(code)
		}
		fmt.Fprintln(stderr, "chancery:", oneLine(err))
		return 1
	}
	return 0
}
