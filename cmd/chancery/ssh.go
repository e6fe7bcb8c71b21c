package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/chancery-pki/chancery/internal/admin/client"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/sshhost"
)

type sshCommand struct {
	Agent sshAgentCommand `cmd:"" help:"Run an ssh-agent for the keys on my security keys."`
	Host  sshHostCommand  `cmd:"" help:"On a server: keep sshd's certificates, trusted CAs and revoked keys up to date."`
	Trust sshTrustCommand `cmd:"" help:"Print the lines by which known_hosts, authorized_keys and devices without SSH CAs trust."`
	Watch sshWatchCommand `cmd:"" help:"Tell when a key is used whose use is an alarm, such as a break-glass key's."`
}

// caFlags say which CAs' directories a command asks.
type caFlags struct {
	Config    string `help:"The settings; ~/.config/chancery/config.yaml, else /etc/chancery/client.yaml, unless given." placeholder:"FILE"`
	Directory string `help:"One CA's ACME directory, in place of the settings' CAs." placeholder:"URL"`
	Roots     string `help:"With --directory: a PEM file of the roots that its HTTPS is checked with; the system's unless given." placeholder:"FILE"`
}

// cas are the settings' or the flags'.
func (f caFlags) cas() ([]sshhost.CA, error) {
	list := []settings.CA{{Name: "ca", Directory: f.Directory, Roots: f.Roots}}
	if f.Directory == "" {
		s, err := findSettings(f.Config)
		if err != nil {
			return nil, fmt.Errorf("no CA is known: name them in the settings, or with --directory and --roots: %w", err)
		}
		list = s.CAs
	}
	var all []sshhost.CA
	for i, ca := range list {
		h, err := httpClient(ca.Roots)
		if err != nil {
			return nil, err
		}
		all = append(all, sshhost.CA{Name: cmp.Or(ca.Name, "ca"+strconv.Itoa(i+1)), Directory: ca.Directory, HTTP: h})
	}
	if len(all) == 0 {
		return nil, errors.New("the settings name no CA")
	}
	return all, nil
}

// requestTime bounds one request to a CA.
const requestTime = time.Minute

// httpClient trusts the roots in a file and nothing else; "": the system's.
func httpClient(roots string) (*http.Client, error) {
	pool, err := settings.Roots(roots)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	return &http.Client{Timeout: requestTime, Transport: &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment, MaxIdleConns: 4, IdleConnTimeout: requestTime}}, nil
}

// logTo is a log for people and for systemd, which adds the time itself.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

type sshTrustCommand struct {
	KnownHosts     trustKnownHosts     `cmd:"" help:"Lines for known_hosts: the CAs speak for these hosts."`
	AuthorizedKeys trustAuthorizedKeys `cmd:"" help:"Lines for one account's authorized_keys: the CAs speak for its users."`
	UserCAs        trustUserCAs        `cmd:"" name:"user-cas" help:"The content of sshd's TrustedUserCAKeys."`
	Keys           trustKeys           `cmd:"" help:"People's plain keys as lines of authorized_keys, for devices that know no SSH CA, such as routers."`
}

// trusts asks every CA; a line of each CA must be there, or somebody would be
// locked out by a list that looks whole.
func (f caFlags) trusts(ctx context.Context, do func(name string, t *sshhost.Trust) error) error {
	cas, err := f.cas()
	if err != nil {
		return err
	}
	for _, ca := range cas {
		t, err := sshhost.FetchTrust(ctx, ca)
		if err == nil {
			err = do(ca.Name, t)
		}
		if err != nil {
			return fmt.Errorf("CA %s: %w", ca.Name, err)
		}
	}
	return nil
}

type trustKnownHosts struct {
	caFlags
	Hosts []string `arg:"" help:"Which hosts: names and patterns, as *.example.com."`
}

func (c *trustKnownHosts) Run(ctx context.Context, w output) error {
	var text strings.Builder
	err := c.trusts(ctx, func(name string, t *sshhost.Trust) error {
		for _, key := range t.Host {
			line, err := sshca.KnownHostsLine(key, c.Hosts, "chancery "+name)
			if err != nil {
				return err
			}
			text.WriteString(line)
		}
		return nil
	})
	return printAll(w, text.String(), err, "no CA certifies hosts")
}

// printAll prints all of it or nothing.
func printAll(w output, text string, err error, empty string) error {
	if err == nil && text == "" {
		err = errors.New(empty)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

type trustAuthorizedKeys struct {
	caFlags
	Principals []string `help:"Whose certificates are let in: those that name one of these; the account itself unless given."`
}

func (c *trustAuthorizedKeys) Run(ctx context.Context, w output) error {
	var text strings.Builder
	err := c.trusts(ctx, func(name string, t *sshhost.Trust) error {
		for _, key := range t.User {
			line, err := sshca.AuthorizedKeysLine(key, c.Principals, "chancery "+name)
			if err != nil {
				return err
			}
			text.WriteString(line)
		}
		return nil
	})
	return printAll(w, text.String(), err, "no CA certifies users")
}

type trustUserCAs struct{ caFlags }

func (c *trustUserCAs) Run(ctx context.Context, w output) error {
	var text strings.Builder
	err := c.trusts(ctx, func(name string, t *sshhost.Trust) error {
		for _, key := range t.User {
			line, err := sshca.KeyLine(key, "chancery "+name)
			if err != nil {
				return err
			}
			text.WriteString(line)
		}
		return nil
	})
	return printAll(w, text.String(), err, "no CA certifies users")
}

type trustKeys struct {
	reachFlags `embed:""`
	CA         []string `name:"ca" help:"Only these CAs of the settings." placeholder:"NAME"`
	Person     []string `arg:"" help:"Whose keys: the owners of enrolled devices."`
}

// AfterApply hands the CAs to Run.
func (c *trustKeys) AfterApply(ctx *kong.Context, n notices, end *ending) error {
	f := newFleet(c.reachFlags, c.CA, n)
	end.defers(f.close)
	ctx.Bind(f)
	return nil
}

// Run prints the keys of active devices. A router asks no CA whether a key
// still counts: the list is made anew when a device comes or goes.
func (c *trustKeys) Run(ctx context.Context, f *fleet, w output) error {
	cas, err := f.all()
	if err != nil {
		return err
	}
	var lines []string
	for _, person := range c.Person {
		found := 0
		for _, ca := range cas {
			list, err := ca.Devices(ctx, client.DeviceFilter{Owner: person, State: "active"})
			if err != nil {
				return fmt.Errorf("CA %s: %w", ca.name, err)
			}
			for _, d := range list {
				if d, err = ca.Device(ctx, d.ID); err != nil {
					return fmt.Errorf("CA %s: %w", ca.name, err)
				}
				line, err := deviceLine(d.Attestation, fmt.Sprintf("%s %d-%s", d.Owner, d.Serial, d.Slot))
				if err != nil {
					return fmt.Errorf("CA %s: device %s: %w", ca.name, d.ID, err)
				}
				found++
				if !slices.Contains(lines, line) {
					lines = append(lines, line)
				}
			}
		}
		if found == 0 {
			return fmt.Errorf("%s has no active device", person)
		}
	}
	return printAll(w, strings.Join(lines, ""), nil, "")
}

// deviceLine is the key that an attestation's statement is about.
func deviceLine(attestation, comment string) (string, error) {
	block, _ := pem.Decode([]byte(attestation))
	if block == nil {
		return "", errors.New("the CA gave no attestation")
	}
	statement, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	key, err := sshca.NewKey(statement.PublicKey)
	if err != nil {
		return "", err
	}
	return sshca.KeyLine(key, comment)
}
