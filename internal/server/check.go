package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/chancery-pki/chancery/internal/config"
)

// Check does everything that a start would do short of opening the database
// and the listeners: it reads every file the configuration names, opens every
// key, and holds keys, certificates, chains and profiles against each other.
func Check(ctx context.Context, c *config.Config) error {
	faults := []error{refuseReadableRoot(c)}
	if c.TLS.Certificate != "" {
		if _, err := readPair(c); err != nil {
			faults = append(faults, fmt.Errorf("tls: %w", err))
		}
	}
	if _, err := dsn(c); err != nil {
		faults = append(faults, err)
	}
	if errors.Join(faults...) == nil {
		log := slog.New(slog.DiscardHandler)
		_, err := wire(ctx, c, newKeyring(log), log)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
