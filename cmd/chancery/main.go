// Command chancery is for the people and machines that deal with a Chancery
// CA. For those who run it, `chancery admin` talks to the server's admin
// socket; login, SSH and the agent join it here.
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
