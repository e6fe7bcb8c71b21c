package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/chancery-pki/chancery/internal/api"
)

type adminCommand struct {
	reachFlags `embed:""`
	CA         string `name:"ca" help:"This CA of the settings." placeholder:"NAME"`

	EAB      eabCommand      `cmd:"" name:"eab" help:"External account keys: who may open accounts, for which names."`
	Accounts accountsCommand `cmd:"" help:"ACME accounts."`
	Certs    certsCommand    `cmd:"" help:"Certificates."`
	Audit    auditCommand    `cmd:"" help:"The audit log."`
	Status   statusCommand   `cmd:"" help:"What the server is doing."`
}

// AfterApply hands the CA and the format to the verb's Run.
func (c *adminCommand) AfterApply(ctx *kong.Context, n notices, end *ending) error {
	var names []string
	if c.CA != "" {
		names = []string{c.CA}
	}
	f := newFleet(c.reachFlags, names, n)
	end.defers(f.close)
	ctx.Bind(single{f}, f, format{c.JSON})
	return nil
}

// format is how results are printed.
type format struct{ json bool }

// show prints v as JSON, or as a table of a header and rows.
func (f format) show(w output, v any, header string, rows func(add func(...any))) error {
	if f.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if header != "" {
		fmt.Fprintln(t, strings.ReplaceAll(header, " ", "\t"))
	}
	rows(func(cells ...any) {
		text := make([]string, len(cells))
		for i, c := range cells {
			if text[i] = strings.Map(plain, fmt.Sprint(c)); text[i] == "" {
				text[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(text, "\t"))
	})
	return t.Flush()
}

// plain keeps what clients sent, such as contacts, from talking to the
// operator's terminal.
func plain(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '?'
}

// done reports a change: a line, or the result as JSON.
func (f format) done(w output, line string) error {
	if f.json {
		_, err := fmt.Fprintln(w, "{}")
		return err
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// day shows a time to the minute, in UTC.
func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// pageFlags are what all listings share.
type pageFlags struct {
	After string `help:"Go on after this one, as a listing's last line says." placeholder:"ID"`
	Limit int    `help:"At most so many rows." default:"100"`
}

func (p pageFlags) query() url.Values {
	return values("after", p.After, "limit", strconv.Itoa(p.Limit))
}

// values makes a query of the pairs that aren't empty.
func values(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func merge(a, b url.Values) url.Values {
	for k, v := range b {
		a[k] = v
	}
	return a
}

// more says how to see the rest of a listing.
func more(w output, f format, next string) {
	if next != "" && !f.json {
		fmt.Fprintf(w, "more: --after %s\n", next)
	}
}

type eabCommand struct {
	Create eabCreate `cmd:"" help:"Make a key. Its MAC key is shown this once."`
	List   eabList   `cmd:"" help:"List the keys."`
	Revoke eabRevoke `cmd:"" help:"Withdraw a key: its accounts get no more certificates."`
}

type eabCreate struct {
	Directory   string        `help:"The directory it is for." required:""`
	Label       string        `help:"What you call it."`
	Profile     []string      `help:"Profiles its accounts may use; all of the directory's unless given."`
	Name        []string      `help:"Names its accounts may have, exact or as *.suffix; all of the directory's unless given."`
	PreApproved bool          `help:"The names need no live challenge: whoever holds the key may have them."`
	Accounts    int           `help:"How many accounts it may open; 0 for no bound." default:"1"`
	For         time.Duration `help:"How long it is good, as 720h; for good unless given."`
}

func (c *eabCreate) Run(ctx context.Context, cl single, f format, w output) error {
	r := api.NewEABKey{
		Directory: c.Directory, Label: c.Label, Profiles: c.Profile, Names: c.Name,
		PreApproved: c.PreApproved, Accounts: &c.Accounts,
	}
	if c.For > 0 {
		r.ExpiresAt = time.Now().Add(c.For).UTC()
	}
	var k api.EABKey
	if err := cl.do(ctx, "POST", "/v1/eab-keys", nil, r, &k); err != nil {
		return err
	}
	return f.show(w, k, "", func(add func(...any)) {
		add("key identifier (kid)", k.ID)
		add("MAC key (base64url, HS256)", k.HMACKey)
		add("directory", k.Directory)
		add("accounts it may open", bound(k.MaxAccounts))
		add("good until", cmp.Or(day(k.ExpiresAt), "revoked"))
	})
}

func bound(n int) string {
	if n == 0 {
		return "any number"
	}
	return strconv.Itoa(n)
}

type eabList struct {
	pageFlags
	Directory string `help:"Only this directory's."`
}

func (c *eabList) Run(ctx context.Context, cl single, f format, w output) error {
	var l api.List[api.EABKey]
	if err := cl.do(ctx, "GET", "/v1/eab-keys", merge(c.query(), values("directory", c.Directory)), nil, &l); err != nil {
		return err
	}
	defer more(w, f, l.Next)
	return f.show(w, l, "KID DIRECTORY LABEL NAMES ACCOUNTS CREATED EXPIRES REVOKED", func(add func(...any)) {
		for _, k := range l.Items {
			add(k.ID, k.Directory, k.Label, strings.Join(k.Names, ","), fmt.Sprintf("%d of %s", k.Accounts, bound(k.MaxAccounts)),
				day(k.CreatedAt), day(k.ExpiresAt), day(k.RevokedAt))
		}
	})
}

type eabRevoke struct {
	KID string `arg:"" name:"kid" help:"The key identifier."`
}

func (c *eabRevoke) Run(ctx context.Context, cl single, f format, w output) error {
	if err := cl.do(ctx, "POST", "/v1/eab-keys/"+url.PathEscape(c.KID)+"/revoke", nil, nil, &struct{}{}); err != nil {
		return err
	}
	return f.done(w, "revoked "+c.KID)
}

type accountsCommand struct {
	List   accountsList   `cmd:"" help:"List accounts, oldest first."`
	Show   accountsShow   `cmd:"" help:"Show one account."`
	Revoke accountsRevoke `cmd:"" help:"End an account for good; its certificates stay valid."`
}

type accountsList struct {
	pageFlags
	Directory string `help:"Only this directory's."`
	EABKey    string `name:"eab-key" help:"Only those this key vouched for."`
	Status    string `help:"Only valid, deactivated or revoked ones." enum:",valid,deactivated,revoked" default:""`
}

func (c *accountsList) Run(ctx context.Context, cl single, f format, w output) error {
	q := merge(c.query(), values("directory", c.Directory, "eab_key", c.EABKey, "status", c.Status))
	var l api.List[api.Account]
	if err := cl.do(ctx, "GET", "/v1/accounts", q, nil, &l); err != nil {
		return err
	}
	defer more(w, f, l.Next)
	return f.show(w, l, "ACCOUNT DIRECTORY STATUS CONTACT EAB-KEY CREATED", func(add func(...any)) {
		for _, a := range l.Items {
			add(a.ID, a.Directory, a.Status, strings.Join(a.Contact, ","), a.EABKey, day(a.CreatedAt))
		}
	})
}

type accountsShow struct {
	ID string `arg:"" help:"The account's ID, the last part of its URL."`
}

func (c *accountsShow) Run(ctx context.Context, cl single, f format, w output) error {
	var a api.Account
	if err := cl.do(ctx, "GET", "/v1/accounts/"+url.PathEscape(c.ID), nil, nil, &a); err != nil {
		return err
	}
	return f.show(w, a, "", func(add func(...any)) {
		add("account", a.ID)
		add("directory", a.Directory)
		add("status", a.Status)
		add("key thumbprint", a.Key)
		add("contact", strings.Join(a.Contact, ", "))
		add("EAB key", a.EABKey)
		add("created", day(a.CreatedAt))
		add("kept until", day(a.KeepUntil))
	})
}

type accountsRevoke struct {
	ID string `arg:"" help:"The account's ID."`
}

func (c *accountsRevoke) Run(ctx context.Context, cl single, f format, w output) error {
	if err := cl.do(ctx, "POST", "/v1/accounts/"+url.PathEscape(c.ID)+"/revoke", nil, nil, &struct{}{}); err != nil {
		return err
	}
	return f.done(w, "revoked "+c.ID)
}

type auditCommand struct {
	List   auditList   `cmd:"" help:"Read the log, oldest first."`
	Verify auditVerify `cmd:"" help:"Check the chain from end to end."`
}

type auditList struct {
	pageFlags
	Object string        `help:"Only what was done to this order, certificate, account …"`
	Actor  string        `help:"Only what this one did."`
	Action string        `help:"Only this action, as certificate.issue."`
	Since  time.Duration `help:"Only the last while, as 24h."`
}

func (c *auditList) Run(ctx context.Context, cl single, f format, w output) error {
	q := merge(c.query(), values("object", c.Object, "actor", c.Actor, "action", c.Action))
	if c.Since > 0 {
		q.Set("from", time.Now().Add(-c.Since).UTC().Format(time.RFC3339))
	}
	var l api.List[api.AuditEntry]
	if err := cl.do(ctx, "GET", "/v1/audit", q, nil, &l); err != nil {
		return err
	}
	defer more(w, f, l.Next)
	return f.show(w, l, "SEQUENCE TIME ACTION ACTOR OBJECT FROM RESULT", func(add func(...any)) {
		for _, e := range l.Items {
			add(e.Sequence, e.At.Format("2006-01-02 15:04:05"), e.Action, e.Actor, e.Object, e.Peer, cmp.Or(e.Denied, "done"))
		}
	})
}

type auditVerify struct{}

func (c *auditVerify) Run(ctx context.Context, cl single, f format, w output) error {
	var check api.AuditCheck
	if err := cl.do(ctx, "POST", "/v1/audit/verify", nil, nil, &check); err != nil {
		return err
	}
	if check.Fault != "" {
		return fmt.Errorf("the audit log was altered: %s", check.Fault)
	}
	return f.show(w, check, "", func(add func(...any)) { add(fmt.Sprintf("%d entries, the chain holds", check.Entries)) })
}

type statusCommand struct{}

func (c *statusCommand) Run(ctx context.Context, cl single, f format, w output) error {
	var s api.Status
	if err := cl.do(ctx, "GET", "/v1/status", nil, nil, &s); err != nil {
		return err
	}
	return f.show(w, s, "", func(add func(...any)) {
		add("version", s.Version)
		add("replica", s.Replica)
		add("database", s.Engine)
		add("directories", strings.Join(s.Directories, ", "))
		add("validations running", s.Validations)
		add("issuances running", s.Issuances)
		add("changes / durable commits", fmt.Sprintf("%d / %d", s.Updates, s.Commits))
	})
}
