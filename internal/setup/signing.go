package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
)

// Bounds on one question to the running server: it counts the live
// certificates at most, and a key's description takes a kilobyte.
const (
	signingTimeout = 30 * time.Second
	maxSigning     = 4 << 20
)

// ReadSigning asks the running server what its signing keys do and have to do
// (GET /v1/signing on the admin socket). It waits for the answer, at most 30
// seconds; an error says what to do about a socket that can't be reached.
func ReadSigning(ctx context.Context, socket string) (api.Signing, error) {
	ctx, cancel := context.WithTimeout(ctx, signingTimeout)
	defer cancel()
	var d net.Dialer
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/v1/signing", nil)
	if err != nil {
		return api.Signing{}, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return api.Signing{}, explainSocket(socket, err)
	}
	defer resp.Body.Close()
	return decodeSigning(resp)
}

func decodeSigning(resp *http.Response) (api.Signing, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSigning+1))
	switch {
	case err != nil:
		return api.Signing{}, fmt.Errorf("reading the server's answer: %w", err)
	case len(body) > maxSigning:
		return api.Signing{}, fmt.Errorf("the server's answer is longer than %d bytes", maxSigning)
	case resp.StatusCode == http.StatusNotFound:
		return api.Signing{}, errors.New("the running server knows nothing of signing budgets: it is older than this chanceryd; restart it")
	case resp.StatusCode != http.StatusOK:
		var p api.Problem
		if json.Unmarshal(body, &p) != nil || p.Detail == "" {
			return api.Signing{}, fmt.Errorf("the server answered %s", resp.Status)
		}
		return api.Signing{}, &p
	}
	var s api.Signing
	if err := json.Unmarshal(body, &s); err != nil {
		return api.Signing{}, fmt.Errorf("the server's answer is not what this version understands: %w", err)
	}
	return s, nil
}

// explainSocket says what to do about a socket that can't be reached.
func explainSocket(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no admin socket at %s: is chanceryd running, and is the path right (admin.socket in its configuration)?", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not allowed to open %s: run as root or as the server's user", socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers at %s: chanceryd is not running", socket)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the server at %s did not answer in time", socket)
	}
	return fmt.Errorf("admin socket %s: %w", socket, err)
}
