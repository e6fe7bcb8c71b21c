package store

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

const certificateColumns = `serial, state, order_id, account, directory, profile, issuer, issuer_key_id, names, der, key_hash,
	not_before, not_after, planned_at, revoked_at, revoked_reason, replaced_by, crl_shard, client, format, subject`

func scanCertificate(rows engine.Row, c *cert.Certificate) (err error) {
	var names string
	var notBefore, notAfter, plannedAt, revokedAt, reason int64
	if err := rows.Scan((*hexed)(&c.Serial), (*string)(&c.State), (*string)(&c.Order), (*string)(&c.Account), &c.Directory,
		&c.Profile, &c.Issuer, (*hexed)(&c.IssuerKeyID), &names, &c.DER, (*hexed)(&c.KeyHash),
		&notBefore, &notAfter, &plannedAt, &revokedAt, &reason, (*string)(&c.ReplacedBy), &c.CRLShard, &c.Client,
		(*string)(&c.Format), &c.Subject); err != nil {
		return err
	}
	c.NotBefore, c.NotAfter, c.PlannedAt = fromMicros(notBefore), fromMicros(notAfter), fromMicros(plannedAt)
	c.Revoked = cert.Revoked{At: fromMicros(revokedAt), Reason: cert.Reason(reason)}
	c.Names, err = decodeIdentifiers(names)
	return err
}

// Certificate returns the certificate, planned or issued; ErrNotFound if
// there is none.
func (q *queries) Certificate(ctx context.Context, serial cert.Serial) (cert.Certificate, error) {
	return one(ctx, q, scanCertificate, "SELECT "+certificateColumns+" FROM certificates WHERE serial = $1", hexed(serial))
}

// CertificateFilter narrows Certificates; a zero field matches everything.
type CertificateFilter struct {
	Name         string // a name or an address as in the certificate, without its type
	Account      protocol.AccountID
	EABKey       protocol.EABKeyID // that vouched for the account
	Directory    string
	Issuer       string
	IssuerKeyID  string // hex of the issuing certificate's SubjectKeyId
	KeyHash      string
	Subject      string      // the device or pod that it rests on
	Owner        string      // the person whose devices it rests on
	Format       cert.Format // how it is encoded
	Revoked      *bool
	NotAfterFrom time.Time   // at or after
	NotAfterTo   time.Time   // before
	After        cert.Serial // the last one of the page before
	Limit        int         // 0: 100; at most 1000
}

// Certificates returns a page of certificates, planned and issued, in the
// order of their serials. A search by name, account, EAB key, subject or owner
// reads only what it finds; any other reads through the table (a million certificates take
// seconds): an index is paid for by every issuance.
func (q *queries) Certificates(ctx context.Context, f CertificateFilter) ([]cert.Certificate, error) {
	var where filter
	where.and("serial > $", hexed(f.After))
	texts := []struct{ condition, value string }{
		{"serial IN (SELECT serial FROM certificate_names WHERE name = $)", f.Name},
		{"account = $", string(f.Account)},
		{"account IN (SELECT id FROM accounts WHERE eab_key <> '' AND eab_key = $)", string(f.EABKey)},
		{"directory = $", f.Directory},
		{"issuer = $", f.Issuer},
		{"subject <> '' AND subject = $", f.Subject}, // the index has no empty ones
		{"subject <> '' AND subject IN (SELECT 'device:' || id FROM devices WHERE owner = $)", f.Owner},
		{"format = $", string(f.Format)},
	}
	for _, t := range texts {
		if t.value != "" {
			where.and(t.condition, t.value)
		}
	}
	if f.IssuerKeyID != "" {
		where.and("issuer_key_id = $", hexed(f.IssuerKeyID))
	}
	if f.KeyHash != "" {
		where.and("key_hash = $", hexed(f.KeyHash))
	}
	if f.Revoked != nil && *f.Revoked {
		where.glue("revoked_at > 0")
	} else if f.Revoked != nil {
		where.glue("revoked_at = 0")
	}
	if !f.NotAfterFrom.IsZero() {
		where.and("not_after >= $", micros(f.NotAfterFrom))
	}
	if !f.NotAfterTo.IsZero() {
		where.and("not_after < $", micros(f.NotAfterTo))
	}
	return page(ctx, q, scanCertificate, "SELECT "+certificateColumns+" FROM certificates", &where, "serial", f.Limit)
}

// KeyBlocked reports whether the public key with this hash was compromised.
func (q *queries) KeyBlocked(ctx context.Context, keyHash string) (bool, error) {
	return q.exists(ctx, "SELECT 1 FROM blocked_keys WHERE key_hash = $1", hexed(keyHash))
}

// AllShards asks for a full list.
const AllShards = -1

// RevokedCertificates calls yield for each certificate of the issuer that was
// revoked and ends after the time, of one shard or of all, until yield fails;
// in the order of the shards, and within one of the serials. It reads page by
// page, so that a slow yield hinders nobody; what is revoked meanwhile may or
// may not be seen.
func (q *queries) RevokedCertificates(ctx context.Context, issuerKeyID string, shard int, after time.Time, yield func(serial cert.Serial, at time.Time, reason cert.Reason, notAfter time.Time) error) error {
	type revoked struct {
		serial                      cert.Serial
		at, notAfter, reason, shard int64
	}
	scan := func(rows engine.Row, r *revoked) error {
		return rows.Scan((*hexed)(&r.serial), &r.at, &r.reason, &r.notAfter, &r.shard)
	}
	last := revoked{shard: int64(max(shard, 0))}
	text := revokedOfShard
	if shard < 0 {
		text = revokedOfAll
	}
	for {
		list, err := many(ctx, q, scan, text, hexed(issuerKeyID), last.shard, hexed(last.serial), micros(after), int64(maxPage))
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := yield(r.serial, fromMicros(r.at), cert.Reason(r.reason), fromMicros(r.notAfter)); err != nil {
				return err
			}
		}
		if len(list) < maxPage {
			return nil
		}
		last = list[len(list)-1]
	}
}

const (
	revokedColumns = "SELECT serial, revoked_at, revoked_reason, not_after, crl_shard FROM certificates WHERE issuer_key_id = $1 AND revoked_at > 0"
	revokedOfShard = revokedColumns + " AND crl_shard = $2 AND serial > $3 AND not_after > $4 ORDER BY serial LIMIT $5"
	revokedOfAll   = revokedColumns + " AND (crl_shard, serial) > ($2, $3) AND not_after > $4 ORDER BY crl_shard, serial LIMIT $5"
)

// CountRevoked is about how many certificates RevokedCertificates yields: those
// that have ended and are still there are counted too. It reads an index.
func (q *queries) CountRevoked(ctx context.Context, issuerKeyID string, shard int) (int, error) {
	text, args := "SELECT count(*) FROM certificates WHERE issuer_key_id = $1 AND revoked_at > 0", []any{hexed(issuerKeyID)}
	if shard >= 0 {
		text, args = text+" AND crl_shard = $2", append(args, int64(shard))
	}
	list, err := many(ctx, q, scanInt, text, args...) // a million take a tenth of a second
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return int(list[0]), nil
}

// InsertCertificate adds a certificate and makes it findable by its names;
// ErrConflict when the serial is taken. A planned one is the caller's to sign
// until claimedUntil, then anybody's who claims it.
func (tx *Tx) InsertCertificate(c cert.Certificate, claimedUntil time.Time) error {
	err := tx.insert("INSERT INTO certificates ("+certificateColumns+`, claimed_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) ON CONFLICT DO NOTHING`,
		hexed(c.Serial), string(c.State), string(c.Order), string(c.Account), c.Directory, c.Profile, c.Issuer, hexed(c.IssuerKeyID),
		encodeIdentifiers(c.Names), notNil(c.DER), hexed(c.KeyHash), micros(c.NotBefore), micros(c.NotAfter), micros(c.PlannedAt),
		micros(c.Revoked.At), int64(c.Revoked.Reason), string(c.ReplacedBy), int64(c.CRLShard), c.Client,
		string(cmp.Or(c.Format, cert.X509)), c.Subject, micros(claimedUntil))
	if err != nil {
		return err
	}
	for _, name := range c.Names {
		if _, err := tx.exec("INSERT INTO certificate_names (name, not_after, serial) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
			name.Value, micros(c.NotAfter), hexed(c.Serial)); err != nil {
			return err
		}
	}
	return nil
}

// IssueCertificate turns a planned certificate into an issued one, for which
// its client waits no more. False: it isn't planned (any more).
func (tx *Tx) IssueCertificate(serial cert.Serial, der []byte) (bool, error) {
	return tx.changed("UPDATE certificates SET state = 'issued', der = $2, client = '', claimed_until = 0 WHERE serial = $1 AND state = 'planned'",
		hexed(serial), notNil(der))
}

// ReplanCertificate puts another plan in the place of one that was surely
// never signed, in its order too. False: the old one isn't planned any more,
// and nothing was changed.
func (tx *Tx) ReplanCertificate(old cert.Serial, c cert.Certificate, claimedUntil time.Time) (bool, error) {
	dropped, err := tx.DropPlan(old)
	if err != nil || !dropped {
		return false, err
	}
	if err := tx.InsertCertificate(c, claimedUntil); err != nil {
		return false, err
	}
	_, err = tx.exec("UPDATE orders SET certificate = $3 WHERE id = $1 AND certificate = $2", string(c.Order), string(old), string(c.Serial))
	return err == nil, err
}

// DropPlan deletes a planned certificate. False: it isn't planned (any more).
func (tx *Tx) DropPlan(serial cert.Serial) (bool, error) {
	c, err := one(context.Background(), &tx.queries, scanNamed,
		"DELETE FROM certificates WHERE serial = $1 AND state = 'planned' RETURNING serial, names, not_after", hexed(serial))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, tx.deleteNames(c)
}

// named is what finds a certificate's rows in certificate_names.
type named struct {
	serial   []byte
	names    string
	notAfter int64
}

func scanNamed(rows engine.Row, n *named) error { return rows.Scan(&n.serial, &n.names, &n.notAfter) }

func (tx *Tx) deleteNames(c named) error {
	names, err := decodeIdentifiers(c.names)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := tx.exec("DELETE FROM certificate_names WHERE name = $1 AND not_after = $2 AND serial = $3",
			name.Value, c.notAfter, c.serial); err != nil {
			return err
		}
	}
	return nil
}

// ClaimPlans takes planned certificates that nobody works on, of those that
// these keys are to sign, for as long as the lease; whoever else asks meanwhile
// gets others. nil is all keys, an empty list none.
func (tx *Tx) ClaimPlans(now time.Time, lease time.Duration, limit int, keyIDs []string) ([]cert.Certificate, error) {
	if keyIDs != nil && len(keyIDs) == 0 {
		return nil, nil
	}
	condition, keys := ofKeys(4, keyIDs)
	// The outer conditions repeat the inner ones, as in ClaimValidations.
	return all(context.Background(), &tx.queries, scanCertificate, `UPDATE certificates SET claimed_until = $1
		WHERE serial IN (SELECT serial FROM certificates WHERE state = 'planned' AND claimed_until < $2`+condition+` ORDER BY claimed_until LIMIT $3)
		AND state = 'planned' AND claimed_until < $2 RETURNING `+certificateColumns,
		append([]any{micros(now.Add(lease)), micros(now), int64(bound(limit))}, keys...)...)
}

// ofKeys is the condition that a row is of one of the issuing keys, with
// arguments from that number on; nothing for nil.
func ofKeys(first int, keyIDs []string) (condition string, args []any) {
	if keyIDs == nil {
		return "", nil
	}
	list, count := placeholders(first, len(keyIDs))
	for i := range count {
		args = append(args, hexed(keyIDs[min(i, len(keyIDs)-1)])) // the last one fills what is left
	}
	return " AND issuer_key_id IN (" + list + ")", args
}

// HoldPlan keeps a planned certificate ours until then. False: it isn't
// planned any more, or our claim has run out, so that another may have it.
func (tx *Tx) HoldPlan(serial cert.Serial, until time.Time) (bool, error) {
	return tx.changed("UPDATE certificates SET claimed_until = $2 WHERE serial = $1 AND state = 'planned' AND claimed_until >= $3",
		hexed(serial), micros(until), micros(tx.now))
}

// RevokeCertificate revokes a certificate, deletes what OCSP said good of it,
// and sends a notice of TopicRevoked. False: it was revoked before, or isn't
// there.
func (tx *Tx) RevokeCertificate(serial cert.Serial, r cert.Revoked) (bool, error) {
	issuerKeyID, err := one(context.Background(), &tx.queries, func(rows engine.Row, id *hexed) error { return rows.Scan(id) },
		"UPDATE certificates SET revoked_at = $2, revoked_reason = $3 WHERE serial = $1 AND revoked_at = 0 RETURNING issuer_key_id",
		hexed(serial), micros(r.At), int64(r.Reason))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := tx.withdrawOCSP(serial); err != nil {
		return false, err
	}
	return true, tx.Notify(TopicRevoked, string(issuerKeyID)+" "+string(serial))
}

// ReplaceCertificate marks a certificate as replaced by an order (RFC 9773
// section 5). False: another order replaces it, or it isn't there.
func (tx *Tx) ReplaceCertificate(serial cert.Serial, order protocol.OrderID) (bool, error) {
	return tx.changed("UPDATE certificates SET replaced_by = $2 WHERE serial = $1 AND replaced_by = ''", hexed(serial), string(order))
}

// BlockKey refuses a public key for good; blocking it twice changes nothing.
func (tx *Tx) BlockKey(keyHash, why string) error {
	_, err := tx.exec("INSERT INTO blocked_keys (key_hash, why, blocked_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", hexed(keyHash), why, micros(tx.now))
	return err
}
