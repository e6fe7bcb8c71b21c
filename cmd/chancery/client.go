package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
)

// client calls the admin API over its unix socket.
type client struct {
	socket string
	http   *http.Client
}

// Bounds on one call: the server is local and answers at once, but for a walk
// over a long audit log.
const (
	callTimeout = 5 * time.Minute
	maxAnswer   = 64 << 20
)

func newClient(socket string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &client{socket, &http.Client{
		Timeout: callTimeout,
		// An odd ID must not lead to another resource.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
}

// do sends in as JSON (nil: no body) to a path, which is escaped already, and
// reads the answer into out.
func (c *client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path+"?"+query.Encode(), body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		p := new(api.Problem)
		if json.Unmarshal(b, p) != nil || p.Detail == "" {
			return fmt.Errorf("the server answered %s", resp.Status)
		}
		return p
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the server's answer is not what this version understands: %w", err)
	}
	return nil
}

// explain says what to do about a socket that can't be reached.
func (c *client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no admin socket at %s: is chanceryd running, and is --socket (or CHANCERY_ADMIN) right?", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not allowed to open %s: run as root or as the server's user", c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers at %s: chanceryd is not running", c.socket)
	}
	return err
}
