package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
)

type certsCommand struct {
	List   certsList   `cmd:"" help:"Search certificates."`
	Show   certsShow   `cmd:"" help:"Show one certificate."`
	Export certsExport `cmd:"" help:"Write a certificate and its chain as PEM."`
	Revoke certsRevoke `cmd:"" help:"Revoke a certificate."`
}

// certsFilter narrows a search.
type certsFilter struct {
	Name      string `help:"Only those for this name or address."`
	Owner     string `help:"Only those of this person's devices."`
	Device    string `help:"Only those of this device, by its ID."`
	Format    string `help:"Only x509 or ssh ones." enum:",x509,ssh" default:""`
	Account   string `help:"Only this account's."`
	EABKey    string `name:"eab-key" help:"Only those of this key's accounts."`
	Directory string `help:"Only this directory's."`
	Issuer    string `help:"Only this issuer's."`
	IssuerKey string `name:"issuer-key" help:"Only those signed by this issuing key (its key id, as chanceryd ca list shows it)."`
	Key       string `help:"Only those for this public key (hex SHA-256 of it)."`
	Revoked   bool   `help:"Only revoked ones."`
	Expired   bool   `help:"Expired ones too."`
}

func (c certsFilter) query() url.Values {
	q := values("name", c.Name, "owner", c.Owner, "device", c.Device, "format", c.Format, "account", c.Account, "eab_key", c.EABKey,
		"directory", c.Directory, "issuer", c.Issuer, "issuer_key", c.IssuerKey, "key", c.Key)
	if c.Revoked {
		q.Set("revoked", "true")
	}
	if !c.Expired {
		q.Set("expires_after", time.Now().UTC().Format(time.RFC3339))
	}
	return q
}

type certsList struct {
	pageFlags
	certsFilter
}

func (c *certsList) Run(ctx context.Context, cl single, f format, w output) error {
	var l api.List[api.Certificate]
	if err := cl.do(ctx, "GET", "/v1/certificates", merge(c.pageFlags.query(), c.certsFilter.query()), nil, &l); err != nil {
		return err
	}
	defer more(w, f, l.Next)
	return f.show(w, l, "SERIAL NAMES PROFILE EXPIRES REVOKED OWNER", func(add func(...any)) {
		for _, cert := range l.Items {
			add(cert.Serial, strings.Join(cert.Names, ","), cert.Profile, day(cert.NotAfter), day(cert.RevokedAt), cert.Owner)
		}
	})
}

type certsShow struct {
	Serial string `arg:"" help:"The serial number in hexadecimal."`
}

func (c *certsShow) Run(ctx context.Context, cl single, f format, w output) error {
	var cert api.Certificate
	if err := cl.do(ctx, "GET", "/v1/certificates/"+url.PathEscape(c.Serial), nil, nil, &cert); err != nil {
		return err
	}
	return f.show(w, cert, "", func(add func(...any)) {
		add("serial", cert.Serial)
		add("state", cert.State)
		add("names", strings.Join(cert.Names, ", "))
		add("directory", cert.Directory)
		add("profile", cert.Profile)
		add("issuer", cert.Issuer)
		add("account", cert.Account)
		if cert.Owner != "" {
			add("owner", cert.Owner)
		}
		add("public key", cert.Key)
		add("from", day(cert.NotBefore))
		add("until", day(cert.NotAfter))
		if !cert.RevokedAt.IsZero() {
			add("revoked", fmt.Sprintf("%s, reason %d", day(cert.RevokedAt), *cert.Reason))
		}
		if cert.ReplacedBy != "" {
			add("replaced by order", cert.ReplacedBy)
		}
	})
}

type certsExport struct {
	Serial string `arg:"" optional:"" help:"The serial number in hexadecimal; all that match unless given."`
	certsFilter
	Out string `short:"o" help:"The file to write; standard output unless given." placeholder:"FILE"`
}

// Help is shown by --help.
func (c *certsExport) Help() string {
	return "It reaches all CAs of the settings. X.509 certificates are written as PEM with their chains, SSH certificates as lines; with --json one object a line."
}

func (c *certsExport) Run(ctx context.Context, fl *fleet, f format, w output) error {
	to := io.Writer(w)
	if c.Out != "" {
		file, err := os.OpenFile(filepath.Clean(c.Out)+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer os.Remove(file.Name()) // what wasn't renamed
		defer file.Close()
		to = file
	}
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (int, error) {
		if c.Serial != "" {
			return c.one(ctx, ca, f, to)
		}
		return c.many(ctx, ca, f, to)
	})
	if err != nil {
		return err
	}
	if c.Serial != "" && slices.ContainsFunc(all, func(o outcome[int]) bool { return o.Done }) {
		all = slices.DeleteFunc(all, func(o outcome[int]) bool { return o.refused }) // the others don't know it
	}
	for _, o := range all {
		if !o.Done && len(all) > 1 {
			fl.tell("%s", o.trouble())
		}
	}
	if c.Out == "" || !slices.ContainsFunc(all, func(o outcome[int]) bool { return o.Done }) {
		return lag(all)
	}
	if err := os.Rename(filepath.Clean(c.Out)+".new", filepath.Clean(c.Out)); err != nil {
		return err
	}
	return errors.Join(f.done(w, "wrote "+c.Out), lag(all))
}

func (c *certsExport) one(ctx context.Context, ca target, f format, to io.Writer) (int, error) {
	var cert api.Certificate
	if err := ca.Do(ctx, "GET", "/v1/certificates/"+url.PathEscape(c.Serial), nil, nil, &cert); err != nil {
		return 0, err
	}
	if cert.Chain == "" {
		return 0, fmt.Errorf("certificate %s is only planned; there is nothing to export yet", c.Serial)
	}
	return 1, exportTo(to, f, ca.name, cert, false)
}

// many writes page by page: a CA may have a million.
func (c *certsExport) many(ctx context.Context, ca target, f format, to io.Writer) (n int, err error) {
	q := merge(c.query(), values("full", "true", "limit", strconv.Itoa(api.DefaultLimit)))
	for {
		var l api.List[api.Certificate]
		if err := ca.Do(ctx, "GET", "/v1/certificates", q, nil, &l); err != nil {
			return n, err
		}
		for _, cert := range l.Items {
			if cert.Chain == "" { // only planned
				continue
			}
			if err := exportTo(to, f, ca.name, cert, true); err != nil {
				return n, err
			}
			n++
		}
		if l.Next == "" || l.Next == q.Get("after") {
			return n, nil
		}
		q.Set("after", l.Next)
	}
}

// exportTo writes one certificate, with a line that says which where there are
// others.
func exportTo(to io.Writer, f format, ca string, cert api.Certificate, titled bool) error {
	if f.json {
		return json.NewEncoder(to).Encode(struct {
			CA string `json:"ca"`
			api.Certificate
		}{ca, cert})
	}
	if titled {
		title := fmt.Sprintf("# %s %s %s %s until %s", ca, cert.Serial, cert.Profile, strings.Join(cert.Names, ","), day(cert.NotAfter))
		if _, err := fmt.Fprintln(to, printable(title)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(to, strings.TrimSuffix(cert.Chain, "\n"))
	return err
}

type certsRevoke struct {
	Serial string `arg:"" help:"The serial number in hexadecimal."`
	Reason string `help:"Why: unspecified, keyCompromise (blocks the key for good), affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn." enum:"unspecified,keyCompromise,affiliationChanged,superseded,cessationOfOperation,privilegeWithdrawn" default:"unspecified"`
}

// reasons are the CRLReasons of RFC 5280 section 5.3.1 that may be given.
var reasons = map[string]int{
	"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5, "privilegeWithdrawn": 9,
}

func (c *certsRevoke) Run(ctx context.Context, cl single, f format, w output) error {
	err := cl.do(ctx, "POST", "/v1/certificates/"+url.PathEscape(c.Serial)+"/revoke", nil, api.Revocation{Reason: reasons[c.Reason]}, &struct{}{})
	if err != nil {
		return err
	}
	return f.done(w, "revoked "+c.Serial)
}
