package mtls

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/names"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

// nameWait is how long a handshake waits for a name's first certificate.
const nameWait = 10 * time.Second

// certificateFor returns the certificate of a name on demand, and waits for it
// where it is to be got first.
func (id *Identity) certificateFor(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	serverName := strings.ToLower(hello.ServerName)
	if !names.IsDNS(serverName) {
		return nil, fmt.Errorf("mtls: the client asks for %q, which is no server's name", serverName)
	}
	now := id.clock.Now()
	s := id.names.Find(serverName)
	if s == nil {
		if err := id.cfg.SNI(serverName); err != nil {
			return nil, fmt.Errorf("mtls: no certificate for %q: %w", serverName, err)
		}
	}
	if s == nil || s.Current.Load() == nil {
		var ended <-chan struct{}
		var err error
		if s, ended, err = id.names.Want(serverName, now); err != nil {
			return nil, fmt.Errorf("mtls: no certificate: %w", err)
		}
		id.poke()
		if err := id.await(hello.Context(), s, ended); err != nil {
			return nil, err
		}
	}
	s.Used(now)
	c, err := id.alive(s)
	if err != nil {
		return nil, err
	}
	return c.Widest(), nil
}

// await waits until a round has ended.
func (id *Identity) await(ctx context.Context, s *slot.Slot, ended <-chan struct{}) error {
	if ended == nil {
		return nil
	}
	if ctx == nil { // a hello that no handshake made
		ctx = context.Background()
	}
	timer := time.NewTimer(nameWait)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
		return fmt.Errorf("mtls: no certificate for %s within %v; it is still being got", s, nameWait)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-id.life.ctx.Done():
		return ErrClosed
	}
}
