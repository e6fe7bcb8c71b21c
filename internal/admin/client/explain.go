package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"syscall"
)

// explain says what to do about a server that can't be reached.
func (c *Client) explain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok { // the URL says nothing new
		err = u.Err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if c.socket != "" {
		return c.explainSocket(err)
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.Is(err, errNobody), errors.Is(err, errOperator):
		return err
	case errors.As(err, &unknown):
		return fmt.Errorf("%s shows a certificate of a CA that isn't trusted here: name a file with the CA's root as roots in the settings (or --roots)", c.address)
	case errors.As(err, &host):
		return fmt.Errorf("%s shows a certificate for another name (%w): use the address that it has in the certificate", c.address, err)
	case strings.Contains(err.Error(), "remote error: tls:"):
		return fmt.Errorf("%s doesn't take the operator's certificate %s (%v): is it of this CA, for clients, and not expired? chancery login gets a new one", c.address, c.operator, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers at %s: is chanceryd running there, with admin.listen?", c.address)
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return fmt.Errorf("%s doesn't answer in time: %w", c.address, err)
	}
	return fmt.Errorf("%s can't be reached: %w", c.address, err)
}

func (c *Client) explainSocket(err error) error {
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
