package admin

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
)

type none struct{}

func (s *Server) status(c call) (api.Status, error) {
	st, err := s.Console.Status(c.Context(), c.who)
	return api.Status{
		Version: s.Version, Replica: st.Replica, Engine: st.Engine, Directories: st.Directories,
		Validations: st.Validations, Issuances: st.Issuances, Commits: int64(st.Store.Commits), Updates: int64(st.Store.Callers),
	}, err
}

// signing joins what the keys do with who uses them.
func (s *Server) signing(c call) (api.Signing, error) {
	live, err := s.Console.Live(c.Context(), c.who)
	if err != nil {
		return api.Signing{}, err
	}
	signing := s.Signing()
	for i := range signing.Issuers {
		for j := range signing.Issuers[i].Keys {
			k := &signing.Issuers[i].Keys[j]
			k.Live, k.LastEnd = live[k.KeyID].Count, utc(live[k.KeyID].LastEnd)
		}
	}
	return signing, nil
}

// query reads the filter of a listing; the first thing that is wrong is kept.
type query struct {
	c   call
	err error
}

func (q *query) text(name string) string { return q.c.URL.Query().Get(name) }

func (q *query) bad(name, want string) {
	if q.err == nil {
		q.err = protocol.NewProblem(protocol.Malformed, "%s=%q: want %s", name, q.text(name), want)
	}
}

func (q *query) number(name string, least, most, otherwise int) int {
	v := q.text(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		q.bad(name, "a number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
	}
	return n
}

func (q *query) limit() int { return q.number("limit", 1, api.MaxLimit, api.DefaultLimit) }

// hex reads the hexadecimal digits of a serial or a hash; colons are left out.
func (q *query) hex(name string) string {
	v := strings.ToLower(strings.ReplaceAll(q.text(name), ":", ""))
	if _, err := hex.DecodeString(v); err != nil {
		q.bad(name, "hexadecimal digits")
	}
	return v
}

func (q *query) time(name string) time.Time {
	v := q.text(name)
	if v == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		q.bad(name, "a time like 2026-01-31T15:04:05Z")
	}
	return t
}

func (q *query) boolean(name string) *bool {
	v := q.text(name)
	if v == "" {
		return nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		q.bad(name, "true or false")
	}
	return &b
}

// page makes the answer of a listing; a full page has a next one.
func page[R, T any](rows []R, limit int, shape func(R) T, id func(R) string) api.List[T] {
	var l api.List[T]
	for _, r := range rows {
		l.Items = append(l.Items, shape(r))
	}
	if len(rows) == limit {
		l.Next = id(rows[len(rows)-1])
	}
	return l
}

func (s *Server) listEABKeys(c call) (api.List[api.EABKey], error) {
	q := query{c: c}
	limit := q.limit()
	if q.err != nil {
		return api.List[api.EABKey]{}, q.err
	}
	keys, err := s.Console.EABKeys(c.Context(), c.who, q.text("directory"), protocol.EABKeyID(q.text("after")), limit)
	return page(keys, limit, eabKey, func(k protocol.EABKey) string { return string(k.ID) }), err
}

func eabKey(k protocol.EABKey) api.EABKey {
	return api.EABKey{
		ID: string(k.ID), HMACKey: base64.RawURLEncoding.EncodeToString(k.MACKey), Directory: k.Directory, Label: k.Label,
		Profiles: k.Profiles, Names: k.Names, PreApproved: k.PreApproved, MaxAccounts: k.MaxAccounts, Accounts: k.Accounts,
		CreatedAt: utc(k.CreatedAt), ExpiresAt: utc(k.ExpiresAt), RevokedAt: utc(k.RevokedAt),
	}
}

// utc keeps the zero time zero.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

func (s *Server) createEABKey(c call) (api.EABKey, error) {
	var r api.NewEABKey
	if err := c.body(&r); err != nil {
		return api.EABKey{}, err
	}
	accounts := 1
	if r.Accounts != nil {
		accounts = *r.Accounts
	}
	if accounts < 0 {
		return api.EABKey{}, protocol.NewProblem(protocol.Malformed, "accounts: want 0 (no bound) or more")
	}
	k, err := s.Console.CreateEABKey(c.Context(), c.who, protocol.EABKey{
		Directory: r.Directory, Label: r.Label, Profiles: r.Profiles, Names: r.Names, PreApproved: r.PreApproved,
		MaxAccounts: accounts, ExpiresAt: r.ExpiresAt,
	})
	return eabKey(k), err
}

func (s *Server) revokeEABKey(c call) (none, error) {
	return none{}, s.Console.RevokeEABKey(c.Context(), c.who, protocol.EABKeyID(c.PathValue("id")))
}

func (s *Server) listAccounts(c call) (api.List[api.Account], error) {
	q := query{c: c}
	f := store.AccountFilter{
		Directory: q.text("directory"), EABKey: protocol.EABKeyID(q.text("eab_key")),
		Status: protocol.AccountStatus(q.text("status")), After: protocol.AccountID(q.text("after")), Limit: q.limit(),
	}
	if q.err != nil {
		return api.List[api.Account]{}, q.err
	}
	rows, err := s.Console.Accounts(c.Context(), c.who, f)
	return page(rows, f.Limit, account, func(a protocol.Account) string { return string(a.ID) }), err
}

func account(a protocol.Account) api.Account {
	return api.Account{
		ID: string(a.ID), Directory: a.Directory, Status: string(a.Status), Key: a.Thumbprint, Contact: a.Contact,
		EABKey: string(a.EABKey), CreatedAt: utc(a.CreatedAt), KeepUntil: utc(a.KeepUntil),
	}
}

func (s *Server) showAccount(c call) (api.Account, error) {
	a, err := s.Console.ShowAccount(c.Context(), c.who, protocol.AccountID(c.PathValue("id")))
	return account(a), err
}

func (s *Server) revokeAccount(c call) (none, error) {
	return none{}, s.Console.RevokeAccount(c.Context(), c.who, protocol.AccountID(c.PathValue("id")))
}

func (s *Server) listCertificates(c call) (api.List[api.Certificate], error) {
	q := query{c: c}
	f := store.CertificateFilter{
		Name: strings.ToLower(q.text("name")), Account: protocol.AccountID(q.text("account")), EABKey: protocol.EABKeyID(q.text("eab_key")),
		Directory: q.text("directory"), Issuer: q.text("issuer"), IssuerKeyID: q.hex("issuer_key"), KeyHash: q.hex("key"), Revoked: q.boolean("revoked"),
		NotAfterFrom: q.time("expires_after"), NotAfterTo: q.time("expires_before"), After: cert.Serial(q.hex("after")), Limit: q.limit(),
		Owner: strings.ToLower(q.text("owner")), Format: cert.Format(q.text("format")),
	}
	if id := q.text("device"); id != "" {
		f.Subject = protocol.Device{ID: protocol.DeviceID(id)}.Subject()
	}
	if f.Format != "" && f.Format != cert.X509 && f.Format != cert.OpenSSH {
		q.bad("format", "x509 or ssh")
	}
	full := q.boolean("full")
	if q.err != nil {
		return api.List[api.Certificate]{}, q.err
	}
	rows, err := s.Console.Certificates(c.Context(), c.who, f, full != nil && *full)
	return page(rows, f.Limit, certificate, func(c operator.Certificate) string { return string(c.Serial) }), err
}

func certificate(c operator.Certificate) api.Certificate {
	out := api.Certificate{
		Format: string(c.Format), Subject: c.Subject, Owner: c.Owner, Chain: text(c),
		Serial: string(c.Serial), State: string(c.State), Directory: c.Directory, Profile: c.Profile, Issuer: c.Issuer,
		Account: string(c.Account), Order: string(c.Order), Key: c.KeyHash, NotBefore: utc(c.NotBefore), NotAfter: utc(c.NotAfter),
		RevokedAt: utc(c.Revoked.At), ReplacedBy: string(c.ReplacedBy),
	}
	for _, id := range c.Names {
		out.Names = append(out.Names, id.Value)
	}
	if !c.Revoked.At.IsZero() {
		reason := int(c.Revoked.Reason)
		out.Reason = &reason
	}
	return out
}

func (s *Server) serial(c call) (cert.Serial, error) {
	text := strings.ToLower(strings.ReplaceAll(c.PathValue("serial"), ":", ""))
	padded := text
	if len(text)%2 == 1 { // as numbers are printed
		padded = "0" + text
	}
	serial, err := cert.ParseSerial(padded)
	if err != nil {
		return "", protocol.NewProblem(protocol.Malformed, "%q is %v", text, err)
	}
	return serial, nil
}

func (s *Server) showCertificate(c call) (api.Certificate, error) {
	serial, err := s.serial(c)
	if err != nil {
		return api.Certificate{}, err
	}
	row, err := s.Console.ShowCertificate(c.Context(), c.who, serial)
	return certificate(row), err
}

// text is a certificate as programs read it: the chain in PEM, or the line of
// an SSH certificate; "" where it wasn't looked up.
func text(c operator.Certificate) string {
	var b strings.Builder
	for _, der := range c.Chain.Certificates {
		if c.Format == cert.OpenSSH {
			line, _ := sshca.CertificateLine(der) // ours, or nothing
			return line
		}
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}

func (s *Server) revokeCertificate(c call) (none, error) {
	var r api.Revocation
	if err := c.body(&r); err != nil {
		return none{}, err
	}
	serial, err := s.serial(c)
	if err != nil {
		return none{}, err
	}
	return none{}, s.Console.RevokeCertificate(c.Context(), c.who, serial, cert.Reason(r.Reason))
}

func (s *Server) listAudit(c call) (api.List[api.AuditEntry], error) {
	q := query{c: c}
	f := store.AuditFilter{
		Object: q.text("object"), Actor: q.text("actor"), Action: q.text("action"), From: q.time("from"), To: q.time("to"),
		After: int64(q.number("after", 0, 1<<62, 0)), Limit: q.limit(),
	}
	if q.err != nil {
		return api.List[api.AuditEntry]{}, q.err
	}
	rows, err := s.Console.AuditEntries(c.Context(), c.who, f)
	return page(rows, f.Limit, auditEntry, func(r store.Record) string { return strconv.FormatInt(r.Sequence, 10) }), err
}

func auditEntry(r store.Record) api.AuditEntry {
	e := r.Entry
	return api.AuditEntry{
		Sequence: r.Sequence, Hash: r.Hash.String(), At: utc(e.At), Action: e.Action, Actor: e.Actor, Peer: e.Peer,
		Directory: e.Directory, Object: e.Object, Denied: e.Denied, Detail: e.Detail,
	}
}

func (s *Server) verifyAudit(c call) (api.AuditCheck, error) {
	n, err := s.Console.VerifyAudit(c.Context(), c.who)
	check := api.AuditCheck{Entries: n}
	if errors.Is(err, store.ErrAuditBroken) {
		check.Fault, err = err.Error(), nil
	}
	return check, err
}
