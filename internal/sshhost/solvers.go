package sshhost

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// Webroot answers http-01 (RFC 8555 section 8.3) with files under the root of a
// web server that is there already.
type Webroot struct{ Dir string }

// Type returns acme.HTTP01.
func (w Webroot) Type() string { return acme.HTTP01 }

// Present writes the file. The token is base64url: the library has checked it.
func (w Webroot) Present(_ context.Context, p acme.Proof) (any, error) {
	path := w.path(p)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return nil, replace(path, []byte(p.KeyAuthorization), 0o644)
}

// CleanUp removes it.
func (w Webroot) CleanUp(_ context.Context, p acme.Proof) error { return os.Remove(w.path(p)) }

func (w Webroot) path(p acme.Proof) string {
	return filepath.Join(w.Dir, filepath.FromSlash(acme.HTTP01Path(p.Challenge.Token)))
}

// DNSHook answers dns-01 (RFC 8555 section 8.4) by a command of the operator's.
// It finds CHANCERY_ACTION (present or cleanup), CHANCERY_NAME (of the TXT
// record) and CHANCERY_VALUE in its environment, where no character can do harm,
// and returns when the record can be seen.
type DNSHook struct {
	Command string
	Wait    time.Duration // after it, for the record to spread
}

// Type returns acme.DNS01.
func (d DNSHook) Type() string { return acme.DNS01 }

// Present runs the command, and waits.
func (d DNSHook) Present(ctx context.Context, p acme.Proof) (any, error) {
	if err := d.run(ctx, "present", p); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d.Wait):
		return nil, nil
	}
}

// CleanUp runs it again.
func (d DNSHook) CleanUp(ctx context.Context, p acme.Proof) error { return d.run(ctx, "cleanup", p) }

func (d DNSHook) run(ctx context.Context, action string, p acme.Proof) error {
	return shell(ctx, d.Command, "CHANCERY_ACTION="+action,
		"CHANCERY_NAME="+acme.DNS01Name(p.Authorization.Identifier.Value), "CHANCERY_VALUE="+acme.DNS01Value(p.KeyAuthorization))
}

// PodToken answers kubernetes-01 with a projected service account token. Its
// audience is the operator's choice, never the server's.
type PodToken struct{ File string }

// Type returns kubernetes-01.
func (PodToken) Type() string { return "kubernetes-01" }

// Present reads the token, which the kubelet renews.
func (t PodToken) Present(context.Context, acme.Proof) (any, error) {
	data, err := os.ReadFile(t.File)
	if err != nil {
		return nil, err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || len(token) > 64<<10 {
		return nil, fmt.Errorf("%s holds no token", t.File)
	}
	return map[string]string{"serviceAccountToken": token}, nil
}

// CleanUp does nothing.
func (PodToken) CleanUp(context.Context, acme.Proof) error { return nil }
