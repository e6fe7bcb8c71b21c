package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/config"
)

// Check does everything that a start would do short of opening the database
// and the listeners: it reads every file the configuration names, opens every
// key, and holds keys, certificates, chains and profiles against each other. A
// token that isn't there, or that a running server has to itself, stops no
// start: warn is told. publishOnly checks it for a server that opens no keys.
func Check(ctx context.Context, c *config.Config, publishOnly bool, warn func(error)) error {
	faults := []error{refuseReadableRoot(c)}
	var keys *keyring
	if publishOnly {
		faults = append(faults, refusePublishOnly(c))
	} else {
		keys = newKeyring(slog.New(slog.DiscardHandler))
		keys.absent = func(_, _ string, err error) { warn(err) }
		defer keys.close()
	}
	if c.TLS.Certificate != "" {
		if _, err := readPair(c); err != nil {
			faults = append(faults, fmt.Errorf("tls: %w", err))
		}
	}
	if _, err := dsn(c); err != nil {
		faults = append(faults, err)
	}
	if errors.Join(faults...) == nil {
		keys.begin()
		p, err := wire(ctx, c, keys, device.Registry{}, slog.New(slog.DiscardHandler))
		keys.end(err == nil)
		if err == nil {
			p.close()
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
