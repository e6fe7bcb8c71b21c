// Command chanceryd is the CA server: init makes a CA, check looks for what
// is wrong, serve runs it, demo shows all of it on loopback, key and ca are
// the ceremonies around signing keys, plan foretells what they can do, backup
// and restore keep it safe.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	// A few MiB live, so that collecting a quarter as often costs little
	// memory; GOGC in the environment wins.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
