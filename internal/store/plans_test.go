package store_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// exercise runs every statement that depends on how much is stored.
func exercise(t *testing.T, db *store.DB) {
	t.Helper()
	ctx := t.Context()
	if err := storetest.Fill(ctx, db, 20); err != nil {
		t.Fatal(err)
	}
	i := storetest.NewIssuance(1, time.Now())
	if err := issue(ctx, db, i); err != nil {
		t.Fatal(err)
	}
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(db.AccountByKey(ctx, "servers", i.Account.Thumbprint))
	check(db.OrdersOf(ctx, i.Account.ID, "", 10))
	check(db.Authorizations(ctx, []protocol.AuthorizationID{i.Authorization.ID, i.Authorization.ID}))
	check(db.ValidationsDue(ctx, time.Now()))
	check(db.PlansDue(ctx, time.Now(), nil))
	check(db.PlansDue(ctx, time.Now(), []string{"00", "01", "02"}))
	check(db.OCSPWanted(ctx, []string{"00"}, time.Now()))
	check(db.AuditEntries(ctx, store.AuditFilter{From: time.Now()}))
	check(db.VerifyAudit(ctx))
	_, _, err := db.OCSP(ctx, i.Certificate.Serial, "sha1")
	check(nil, err)
	_, _, err = db.NewestOfNames(ctx, i.Account.ID, i.Order.Identifiers, time.Now())
	check(nil, err)
	update(t, db, func(tx *store.Tx) error {
		check(tx.ClaimValidations(tx.Now(), time.Minute, 10))
		check(tx.ClaimPlans(tx.Now(), time.Minute, 10, nil))
		check(tx.ClaimPlans(tx.Now(), time.Minute, 10, []string{"00", "01"}))
		check(tx.WantOCSP(i.Certificate.Serial, "sha1", i.Certificate.IssuerKeyID, tx.Now()))
		check(tx.ClaimOCSP([]string{i.Certificate.IssuerKeyID}, tx.Now(), time.Minute, 10))
		check(tx.PutOCSP(store.OCSPResponse{Serial: i.Certificate.Serial, Hash: "sha1", IssuerKeyID: i.Certificate.IssuerKeyID}))
		check(tx.SweepOCSP(tx.Now(), 10))
		check(nil, tx.PutCRLPart("00", 0, 1, 0, []byte{1}))
		check(tx.PublishCRL(store.CRL{IssuerKeyID: "00", Number: 1, Size: 1, Parts: 1}))
		check(tx.CRL(ctx, "00", 0))
		check(tx.SweepCRLParts("00", 0, 1, 10))
		check(nil, tx.PutKeyStates([]store.KeyState{{KeyID: "00"}}))
		check(nil, tx.RaiseNumber("shards", 1))
		check(tx.HoldPlan("00", tx.Now()))
		check(tx.DropPlan("00"))
		check(tx.ReplaceKey(i.Account.ID, "", "", nil))
		check(tx.EndAccount(i.Account.ID, protocol.AccountDeactivated))
		check(tx.EndAuthorization(i.Authorization.ID, protocol.AuthorizationValid, protocol.AuthorizationDeactivated))
		check(tx.ProvenBy(ctx, i.Account.ID, "pod"))
		check(tx.FailOrder(i.Order.ID, nil))
		check(tx.RevokeCertificate(i.Certificate.Serial, cert.Revoked{At: tx.Now()}))
		check(tx.ReplaceCertificate(i.Certificate.Serial, i.Order.ID))
		d := storetest.NewDevice(1, "alice", tx.Now())
		check(nil, tx.InsertDevice(d))
		check(tx.Device(ctx, d.ID))
		check(tx.DeviceByKey(ctx, d.KeyHash))
		check(tx.SetIdentities(d.ID, d.Identities))
		check(tx.HoldSubject(d.Subject()))
		check(tx.StillStands(ctx, i.Order.ID, tx.Now()))
		check(tx.EndDevice(d.ID, protocol.DeviceLost))
		_, _, err := tx.TakeName("a.example", "alice", store.OwnKey)
		check(nil, err)
		check(nil, tx.InsertWatchedKey(protocol.WatchedKey{Fingerprint: "x"}))
		check(tx.WatchedKey(ctx, "x"))
		check(tx.SweepAccounts(tx.Now(), 10))
		check(tx.SweepOrders(tx.Now(), 10))
		check(tx.SweepAuthorizations(tx.Now(), 10))
		check(tx.SweepCertificates(tx.Now(), 10))
		check(tx.SweepAudit(tx.Now(), 10))
		check(tx.SweepLimits(tx.Now(), 10))
		check(tx.Take("key", store.Limit{Count: 1, Per: time.Hour}))
		check(tx.LimitWait(ctx, "key", store.Limit{Count: 1, Per: time.Hour}))
		check(tx.Lease("job", "me", tx.Now()))
		check(tx.TakeEABAccount("none"))
		check(tx.NextNumber("crl", 1))
		return nil
	})
}

// No statement may read a table from end to end: its cost would grow with
// the number of certificates.
func TestQueryPlans(t *testing.T) {
	path := dsn(t, "sqlite")
	db := open(t, store.Options{DSN: path})
	exercise(t, db)
	statements := db.Statements()
	if len(statements) < 50 {
		t.Fatalf("only %d statements were run", len(statements))
	}
	pages := []string{store.RevokedOfShard, store.RevokedOfAll}
	statements = append(statements, // of searches, which aren't kept
		store.RevokedOfShard, store.RevokedOfAll, store.LiveStatement, store.CRLPartStatement,
		"SELECT entry FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2",
		"SELECT serial FROM certificates WHERE serial > $1 AND serial IN (SELECT serial FROM certificate_names WHERE name = $2) ORDER BY serial LIMIT 10",
		"SELECT serial FROM certificates WHERE serial > $1 AND account = $2 ORDER BY serial LIMIT 10",
		ofSubject, ofOwner,
		"SELECT sequence FROM audit WHERE sequence > $1 AND object = $2 ORDER BY sequence LIMIT 10",
	)
	beside := raw(t, "sqlite", path)
	for _, text := range []string{ofSubject, ofOwner} {
		if steps := explain(t, beside, text); !strings.Contains(strings.Join(steps, "\n"), "certificates_by_subject") {
			t.Errorf("%s\n\t%s", text, steps)
		}
	}
	for _, text := range statements {
		for _, step := range explain(t, beside, text) {
			// "part" is the list of one order's authorizations; an ordered
			// walk along an index or a key ends at its LIMIT.
			if strings.HasPrefix(step, "SCAN ") && step != "SCAN part" && step != "SCAN CONSTANT ROW" && !isShort(step) && !endsAtLimit(step, text) {
				t.Errorf("%s\n\t%s", text, step)
			}
			// Pages of a list come in the index's order: sorting would read all.
			if strings.Contains(step, "TEMP B-TREE FOR ORDER BY") && slices.Contains(pages, text) {
				t.Errorf("%s\n\t%s", text, step)
			}
		}
	}
}

// The searches for what a device and a person hold.
const (
	ofSubject = "SELECT serial FROM certificates WHERE serial > $1 AND subject <> '' AND subject = $2 ORDER BY serial LIMIT 10"
	ofOwner   = "SELECT serial FROM certificates WHERE serial > $1 AND subject <> '' AND subject IN (SELECT 'device:' || id FROM devices WHERE owner = $2) ORDER BY serial LIMIT 10"
)

// isShort knows the tables and the lists that are read whole, since they hold a
// row per key or what a restart finds half done, or end at 64.
func isShort(step string) bool {
	return step == "SCAN key_states" || step == "SCAN n" || strings.HasPrefix(step, "SCAN certificates USING ") && strings.HasSuffix(step, " INDEX certificates_planned")
}

// endsAtLimit finds the statements that want the first or last rows of all.
func endsAtLimit(step, text string) bool {
	ordered := slices.ContainsFunc([]string{
		"FROM audit ORDER BY sequence LIMIT $1", "FROM audit ORDER BY sequence DESC LIMIT 1",
	}, func(s string) bool { return strings.Contains(text, s) })
	return ordered && step == "SCAN audit"
}

func explain(t *testing.T, db *sql.DB, text string) (steps []string) {
	t.Helper()
	switch text {
	case "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "SAVEPOINT one_call", "ROLLBACK TO one_call", "RELEASE one_call":
		return nil
	}
	args := make([]any, 0, 20)
	for n := 1; strings.Contains(text, fmt.Sprintf("$%d", n)); n++ {
		args = append(args, 1)
	}
	rows, err := db.Query("EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, detail)
	}
	return steps
}
