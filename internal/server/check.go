package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/signer"
)

// Check does everything that a start would do short of opening the database
// and the listeners: it reads every file the configuration names, opens every
// key, and holds keys, certificates, chains and profiles against each other.
func Check(ctx context.Context, c *config.Config) error {
	faults := []error{refuseReadableRoot(c)}
	for _, ic := range c.Issuers {
		for _, s := range ic.Signers {
			if path, ok := strings.CutPrefix(c.KeyURI(s.Key), "file:"); ok {
				faults = append(faults, refuseOpenFile(path))
			}
		}
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
		_, err := wire(ctx, c, map[string]*signer.Queue{}, slog.New(slog.DiscardHandler))
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
