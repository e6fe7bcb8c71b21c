// Command chanceryd is the CA server: init makes a CA, check looks for what
// is wrong, serve runs it, demo shows all of it on loopback, backup and
// restore keep it safe.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
