// Package demo is what the examples have in common: where the demo wants them
// to listen, and how they show what they got.
package demo

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/mtls"
)

// Main runs an example until it ends or Ctrl-C is pressed.
func Main(run func(ctx context.Context, listen string) error) {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// Where the demo looks for answers to tls-alpn-01 challenges. In earnest
	// that is port 443.
	listen := os.Getenv("DEMO_LISTEN")
	if listen == "" {
		log.Fatal("start `go run ./cmd/chanceryd demo` in another shell, and source the env file that it names before this")
	}
	if err := run(ctx, listen); err != nil {
		log.Fatal(err)
	}
}

// Show prints an identity's certificates.
func Show(id *mtls.Identity) {
	for _, c := range id.Health().Certificates {
		log.Printf("%s certificate for %s, by %s, good for %s, renewed in %s", c.Usage, strings.Join(c.Names, ", "), c.Issuer,
			left(c.NotAfter), left(c.RenewAt))
	}
}

func left(t time.Time) time.Duration { return time.Until(t).Round(time.Minute) }

// MustFail prints how a call was refused, and complains if it wasn't.
func MustFail(what string, err error) error {
	if err == nil {
		return errors.New(what + " was let in")
	}
	log.Printf("%s is refused: %v", what, err)
	return nil
}
