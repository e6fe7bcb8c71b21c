package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"github.com/chancery-pki/chancery/internal/config"
)

// commands is the command line; its help texts are the manual.
type commands struct {
	Demo        demoCommand    `cmd:"" help:"Start a CA on loopback, show what it does, and leave it running to try things."`
	Init        initCommand    `cmd:"" help:"Make a CA: root, issuing CAs, configuration."`
	Check       checkCommand   `cmd:"" help:"Say what is wrong with a configuration before anything starts."`
	Serve       serveCommand   `cmd:"" help:"Run the server."`
	Key         keyCommand     `cmd:"" help:"Make keys in files and on tokens, and look at them."`
	CA          caCommand      `cmd:"" name:"ca" help:"Make CA certificates and the root's list, rotate, and see what ends when."`
	Plan        planCommand    `cmd:"" help:"Forecast the signing budget: who takes how much of it, how long a drain waits, when to add a key; with a picture."`
	Backup      backupCommand  `cmd:"" help:"Write everything in the database to a file, while the server runs."`
	Restore     restoreCommand `cmd:"" help:"Put a backup into an empty database."`
	TrustBundle bundleCommand  `cmd:"" help:"Print this CA's roots and the system's public ones, for programs with one trust store."`
	Version     versionCommand `cmd:"" help:"Print the version."`
}

// console is where a command writes: results to out, all else to err.
type console struct {
	out, err io.Writer
}

// run does one command line and returns the exit code: 0 done, 1 failed, 2
// bad usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c commands
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("chanceryd"),
		kong.Description("A private certificate authority that speaks ACME."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(console{stdout, stderr}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "chanceryd:", err)
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
		fmt.Fprintf(stderr, "chanceryd: %v; see chanceryd --help\n", err)
		return 2
	}
	err = parsed.Run()
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil: // Ctrl-C
		return 1
	}
	if _, usage := errors.AsType[usageError](err); usage {
		fmt.Fprintf(stderr, "chanceryd: %v; see chanceryd --help\n", err)
		return 2
	}
	_, one := errors.AsType[config.Problem](err)
	if _, many := errors.AsType[config.Problems](err); one || many {
		fmt.Fprintln(stderr, err) // each has its place in the file
	} else {
		fmt.Fprintln(stderr, "chanceryd:", err)
	}
	return 1
}

// version is what the binary was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

type versionCommand struct{}

func (versionCommand) Run(c console) error {
	_, err := fmt.Fprintln(c.out, "chanceryd", version())
	return err
}

// logger makes the log that the configuration asks for.
func logger(w io.Writer, l config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked; "" is info
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
