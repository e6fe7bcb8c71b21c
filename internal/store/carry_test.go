package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/carry"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// What was withdrawn after a backup stays so when that is restored: nothing
// that somebody lost, gave up or was denied becomes good again.
func TestCarryWithdrawals(t *testing.T) {
	for _, from := range storetest.Engines() {
		for _, to := range storetest.Engines() {
			t.Run(from+" to "+to, func(t *testing.T) { testCarry(t, from, to) })
		}
	}
}

// The issuances of testCarry, by what becomes of each after the backup.
const (
	kept = iota
	revoked
	revokedBefore
	ended
	swept
	rolled
	issuances
)

func testCarry(t *testing.T, from, to string) {
	old, restored := open(t, store.Options{DSN: dsn(t, from)}), open(t, store.Options{DSN: dsn(t, to)})
	ctx, now := t.Context(), time.Now()
	var is [issuances]*storetest.Issuance
	for n := range is {
		is[n] = storetest.NewIssuance(n, now)
		if n == swept {
			is[n] = storetest.NewIssuance(n, now.Add(-30*24*time.Hour)) // idle for long
		}
		if err := issue(ctx, old, is[n]); err != nil {
			t.Fatal(err)
		}
	}
	before := cert.Revoked{At: now.Add(-time.Hour).UTC().Truncate(time.Microsecond), Reason: cert.Superseded}
	update(t, old, func(tx *store.Tx) error {
		_, err := tx.RevokeCertificate(is[revokedBefore].Certificate.Serial, before)
		_, number := tx.NextNumber("crl/x", 41)
		return errors.Join(err, number, tx.BlockKey("00aa", "lost before"),
			tx.InsertEABKey(protocol.EABKey{ID: "eab", Directory: "servers"}), tx.InsertEABKey(protocol.EABKey{ID: "other", Directory: "servers"}))
	})
	backup := dump(t, old)

	late := storetest.NewIssuance(issuances, now)
	late.Certificate.CRLShard = 3
	if err := issue(ctx, old, late); err != nil {
		t.Fatal(err)
	}
	after := cert.Revoked{At: now.Add(-time.Minute).UTC().Truncate(time.Microsecond), Reason: cert.KeyCompromise}
	update(t, old, func(tx *store.Tx) error {
		var errs []error
		must := func(ok bool, err error) {
			if err == nil && !ok {
				err = errors.New("the old database didn't do it")
			}
			errs = append(errs, err)
		}
		must(tx.RevokeCertificate(is[revoked].Certificate.Serial, after))
		must(tx.RevokeCertificate(late.Certificate.Serial, after))
		must(tx.EndAccount(is[ended].Account.ID, protocol.AccountDeactivated))
		must(tx.EndAccount(is[swept].Account.ID, protocol.AccountRevoked))
		must(tx.EndAccount(late.Account.ID, protocol.AccountRevoked))
		must(tx.ReplaceKey(is[rolled].Account.ID, is[rolled].Account.Thumbprint, "another", []byte("{}")))
		must(tx.RevokeEABKey("eab"))
		must(tx.EndAuthorization(is[kept].Authorization.ID, protocol.AuthorizationValid, protocol.AuthorizationDeactivated))
		_, number := tx.NextNumber("crl/x", 99)
		_, revision := tx.NextNumber("revoked/"+late.Certificate.IssuerKeyID, 7)
		return errors.Join(append(errs, number, revision, tx.BlockKey("00bb", "lost"))...)
	})
	// The sweep of an account leaves its retired key, and nothing else.
	update(t, old, func(tx *store.Tx) error { _, err := tx.SweepAccounts(now, 100); return err })
	if _, err := old.Account(ctx, is[swept].Account.ID); !errors.Is(err, store.ErrNotFound) {
		t.Fatal("the account wasn't swept:", err)
	}

	if err := restored.Load(ctx, strings.NewReader(backup)); err != nil {
		t.Fatal(err)
	}
	done, err := carry.Over(ctx, "operator:test", old, restored)
	if err != nil {
		t.Fatal(err)
	}
	want := carry.Withdrawals{Certificates: 2, BlockedKeys: 1, Accounts: 2, AccountKeys: 1, RetiredKeys: 1, EABKeys: 1, Authorizations: 1}
	if done != want || done.Total() != 9 {
		t.Errorf("carried %+v, want %+v", done, want)
	}
	carriedCertificates(t, restored, map[cert.Serial]cert.Revoked{
		is[kept].Certificate.Serial: {}, is[ended].Certificate.Serial: {}, is[revokedBefore].Certificate.Serial: before,
		is[revoked].Certificate.Serial: after, late.Certificate.Serial: after,
	})
	if c, err := restored.Certificate(ctx, late.Certificate.Serial); err != nil || c.State != cert.Issued || string(c.DER) != string(late.DER) || c.Order != "" {
		t.Errorf("the certificate that the backup lacks: %+v, %v", c, err)
	}
	for n, status := range map[int]protocol.AccountStatus{
		kept: protocol.AccountValid, rolled: protocol.AccountValid, ended: protocol.AccountDeactivated, swept: protocol.AccountRevoked,
	} {
		if a, err := restored.Account(ctx, is[n].Account.ID); err != nil || a.Status != status {
			t.Errorf("account %d is %q, want %q: %v", n, a.Status, status, err)
		}
	}
	if a, err := restored.AccountByKey(ctx, "servers", "another"); err != nil || a.ID != is[rolled].Account.ID || string(a.Key) != "{}" {
		t.Errorf("the account with another key: %+v, %v", a, err)
	}
	if _, err := restored.AccountByKey(ctx, "servers", is[rolled].Account.Thumbprint); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its old key still opens an account: %v", err)
	}
	for thumbprint, want := range map[string]bool{
		is[ended].Account.Thumbprint: true, is[swept].Account.Thumbprint: true, late.Account.Thumbprint: true, is[kept].Account.Thumbprint: false,
	} {
		if got, err := restored.KeyRetired(ctx, "servers", thumbprint); got != want || err != nil {
			t.Errorf("key %s retired: %v, want %v: %v", thumbprint, got, want, err)
		}
	}
	for hash, want := range map[string]bool{"00aa": true, "00bb": true, "00cc": false} {
		if got, err := restored.KeyBlocked(ctx, hash); got != want || err != nil {
			t.Errorf("key %s blocked: %v, want %v: %v", hash, got, want, err)
		}
	}
	for id, want := range map[protocol.EABKeyID]bool{"eab": true, "other": false} {
		if k, err := restored.EABKey(ctx, id); err != nil || k.RevokedAt.IsZero() == want {
			t.Errorf("EAB key %s revoked at %v, want %v: %v", id, k.RevokedAt, want, err)
		}
	}
	if z, err := restored.Authorization(ctx, is[kept].Authorization.ID); err != nil || z.Status != protocol.AuthorizationDeactivated {
		t.Errorf("the authorization is %q: %v", z.Status, err)
	}
	// Numbers never go back, and the CRL's maker sees that it has work.
	key := late.Certificate.IssuerKeyID
	for name, want := range map[string]int64{"crl/x": 99, store.RevisionName(key, 0): 8, store.RevisionName(key, 3): 1, store.RevisionName(key, 1): 0} {
		if n, err := restored.Number(ctx, name); n != want || err != nil {
			t.Errorf("number %s is %d, want %d: %v", name, n, want, err)
		}
	}
	carriedLog(t, restored, done.Total(), late.Certificate.Serial)

	// All of it is there now, so that there is nothing to carry.
	if done, err := carry.Over(ctx, "operator:test", old, restored); err != nil || done.Total() != 0 {
		t.Errorf("carried again: %+v, %v", done, err)
	}
	if n, err := restored.Number(ctx, "revoked/"+late.Certificate.IssuerKeyID); n != 8 || err != nil {
		t.Errorf("nothing carried, and the revision is %d: %v", n, err)
	}
}

func carriedCertificates(t *testing.T, db *store.DB, want map[cert.Serial]cert.Revoked) {
	t.Helper()
	listed := map[cert.Serial]bool{} // as a CRL would
	var issuer string
	for serial, want := range want {
		c, err := db.Certificate(t.Context(), serial)
		if err != nil || c.Revoked != want {
			t.Errorf("certificate %s: revoked %+v, want %+v: %v", serial, c.Revoked, want, err)
		}
		issuer = c.IssuerKeyID
	}
	err := db.RevokedCertificates(t.Context(), issuer, store.AllShards, time.Now(), func(serial cert.Serial, _ time.Time, _ cert.Reason, _ time.Time) error {
		listed[serial] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for serial, want := range want {
		if listed[serial] != (want != cert.Revoked{}) {
			t.Errorf("certificate %s is on the CRL: %v", serial, listed[serial])
		}
	}
}

// carriedLog checks that the log has each thing, by whom, and holds.
func carriedLog(t *testing.T, db *store.DB, entries int, serial cert.Serial) {
	t.Helper()
	update(t, db, func(tx *store.Tx) error { _, err := tx.SequenceAudit(tx.Now(), "test", 1000); return err })
	log, err := db.AuditEntries(t.Context(), store.AuditFilter{Action: "restore.carry", Actor: "operator:test", Limit: 1000})
	if err != nil || len(log) != entries {
		t.Errorf("%d entries, want %d: %v", len(log), entries, err)
	}
	log, err = db.AuditEntries(t.Context(), store.AuditFilter{Object: string(serial), Action: "restore.carry"})
	if err != nil || len(log) != 1 || log[0].Entry.Detail["reason"] != float64(cert.KeyCompromise) {
		t.Errorf("of certificate %s: %+v, %v", serial, log, err)
	}
	if _, err := db.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
}

// Another account has taken the key that an account was given after the
// backup: then that account ends, since its key here was replaced for a
// reason.
func TestCarryKeyConflict(t *testing.T) {
	for _, engine := range storetest.Engines() {
		old, restored := open(t, store.Options{DSN: dsn(t, engine)}), open(t, store.Options{DSN: dsn(t, engine)})
		account := func(id protocol.AccountID, thumbprint string) func(tx *store.Tx) error {
			return func(tx *store.Tx) error {
				return tx.InsertAccount(protocol.Account{ID: id, Directory: "servers", Status: protocol.AccountValid, Thumbprint: thumbprint})
			}
		}
		update(t, old, account("a", "new"))
		update(t, restored, account("a", "old"))
		update(t, restored, account("b", "new"))
		if done, err := carry.Over(t.Context(), "test", old, restored); err != nil || done != (carry.Withdrawals{Accounts: 1}) {
			t.Errorf("%s: carried %+v, %v", engine, done, err)
		}
		for id, want := range map[protocol.AccountID]protocol.AccountStatus{"a": protocol.AccountRevoked, "b": protocol.AccountValid} {
			if a, err := restored.Account(t.Context(), id); err != nil || a.Status != want {
				t.Errorf("%s: account %s is %q, want %q: %v", engine, id, a.Status, want, err)
			}
		}
	}
}

// What was taken from a device after the backup isn't its again, nor is anything
// given; and a key that is watched since then still is.
func TestCarryIdentities(t *testing.T) {
	for _, from := range storetest.Engines() {
		for _, to := range storetest.Engines() {
			t.Run(from+" to "+to, func(t *testing.T) { testCarryIdentities(t, from, to) })
		}
	}
}

func testCarryIdentities(t *testing.T, from, to string) {
	old, restored := open(t, store.Options{DSN: dsn(t, from)}), open(t, store.Options{DSN: dsn(t, to)})
	ctx := t.Context()
	d, same := storetest.NewDevice(1, "alice", time.Now()), storetest.NewDevice(2, "bob", time.Now())
	d.Identities = protocol.Identities{Names: []string{"a.example", "b.example"}, OtherNames: []string{"c.example"}, Principals: []string{"alice", "root"}}
	update(t, old, func(tx *store.Tx) error {
		return errors.Join(tx.InsertDevice(d), tx.InsertDevice(same), tx.InsertWatchedKey(protocol.WatchedKey{Fingerprint: "before"}))
	})
	backup := dump(t, old)
	update(t, old, func(tx *store.Tx) error {
		_, err := tx.SetIdentities(d.ID, protocol.Identities{Names: []string{"b.example", "new.example"}, Principals: []string{"alice"}, MaxLifetime: time.Hour})
		return errors.Join(err, tx.InsertDevice(storetest.NewDevice(3, "carol", time.Now())), tx.InsertWatchedKey(protocol.WatchedKey{Fingerprint: "after", Label: "x"}))
	})
	if err := restored.Load(ctx, strings.NewReader(backup)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []carry.Withdrawals{{Identities: 1, WatchedKeys: 1}, {}} {
		if done, err := carry.Over(ctx, "operator:test", old, restored); err != nil || done != want {
			t.Errorf("carried %+v, %v; want %+v", done, err, want)
		}
	}
	got, err := restored.Device(ctx, d.ID)
	if err != nil || strings.Join(got.Names, " ") != "b.example" || len(got.OtherNames) != 0 || strings.Join(got.Principals, " ") != "alice" || got.MaxLifetime != time.Hour {
		t.Errorf("%+v, %v", got.Identities, err)
	}
	if got, err := restored.Device(ctx, same.ID); err != nil || len(got.Names) != len(same.Names) {
		t.Errorf("%+v, %v", got, err)
	}
	if list, err := restored.WatchedKeys(ctx); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := restored.Devices(ctx, store.DeviceFilter{Owner: "carol"}); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// What can't be recorded isn't carried, and nothing is carried by halves.
func TestCarryIsWhole(t *testing.T) {
	now := time.Now()
	old := open(t, store.Options{DSN: dsn(t, "sqlite")})
	restored := open(t, store.Options{DSN: dsn(t, "sqlite"), Clock: func() time.Time { return now }})
	update(t, old, func(tx *store.Tx) error { return tx.BlockKey("00aa", "lost") })
	update(t, restored, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: "x", Actor: "y"}) })
	now = now.Add(-time.Hour)
	if done, err := carry.Over(t.Context(), "test", old, restored); !errors.Is(err, store.ErrClockBehind) || done.Total() != 0 {
		t.Errorf("carried %+v, %v", done, err)
	}
	if blocked, err := restored.KeyBlocked(t.Context(), "00aa"); blocked || err != nil {
		t.Errorf("a part was carried: %v, %v", blocked, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := carry.Over(ctx, "test", old, restored); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A device that was lost after the backup stays lost, one that the backup
// doesn't know is never enrolled again, and its names stay its owner's.
func TestCarryDevices(t *testing.T) {
	for _, from := range storetest.Engines() {
		for _, to := range storetest.Engines() {
			t.Run(from+" to "+to, func(t *testing.T) { testCarryDevices(t, from, to) })
		}
	}
}

func testCarryDevices(t *testing.T, from, to string) {
	old, restored := open(t, store.Options{DSN: dsn(t, from)}), open(t, store.Options{DSN: dsn(t, to)})
	ctx := t.Context()
	var devices [5]protocol.Device // kept, lost, retired, ended before, enrolled and lost after
	for n := range devices {
		devices[n] = storetest.NewDevice(n, "alice", time.Now())
	}
	update(t, old, func(tx *store.Tx) error {
		var errs []error
		for _, d := range devices[:4] {
			errs = append(errs, tx.InsertDevice(d))
		}
		_, err := tx.EndDevice(devices[3].ID, protocol.DeviceLost)
		return errors.Join(append(errs, err, tx.InsertAdvisory(protocol.Advisory{ID: "before"}))...)
	})
	backup := dump(t, old)
	held := storetest.NewIssuance(1, time.Now()).Certificate
	held.Subject, held.State, held.Format = devices[0].Subject(), cert.Issued, cert.X509
	ended, pods := held, held
	ended.Serial, ended.NotAfter = cert.NewSerial(), time.Now().Add(-time.Hour)
	pods.Serial, pods.Subject = cert.NewSerial(), "pod:x"
	update(t, old, func(tx *store.Tx) error {
		return errors.Join(tx.InsertCertificate(held, time.Time{}), tx.InsertCertificate(ended, time.Time{}), tx.InsertCertificate(pods, time.Time{}))
	})
	update(t, old, func(tx *store.Tx) error {
		errs := []error{tx.InsertDevice(devices[4]), tx.InsertAdvisory(protocol.Advisory{ID: "after", First: "5.0.0", Last: "5.1.0", CreatedAt: tx.Now()})}
		for n, state := range map[int]protocol.DeviceState{1: protocol.DeviceLost, 2: protocol.DeviceRetired, 4: protocol.DeviceLost} {
			_, err := tx.EndDevice(devices[n].ID, state)
			errs = append(errs, err)
		}
		_, _, err := tx.TakeName("alice.example", "alice", store.OwnKey)
		return errors.Join(append(errs, err)...)
	})
	if err := restored.Load(ctx, strings.NewReader(backup)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []carry.Withdrawals{{Devices: 3, Advisories: 1, Held: 1}, {}} {
		if done, err := carry.Over(ctx, "operator:test", old, restored); err != nil || done != want {
			t.Errorf("carried %+v, %v; want %+v", done, err, want)
		}
	}
	for n, want := range []protocol.DeviceState{protocol.DeviceActive, protocol.DeviceLost, protocol.DeviceRetired, protocol.DeviceLost, protocol.DeviceLost} {
		if d, err := restored.DeviceByKey(ctx, devices[n].KeyHash); err != nil || d.State != want || d.ID != devices[n].ID {
			t.Errorf("device %d: %+v, %v; want %s", n, d, err, want)
		}
	}
	// What a device got since then is known, so that losing it revokes that.
	if list, err := restored.Certificates(ctx, store.CertificateFilter{Subject: devices[0].Subject()}); err != nil || len(list) != 1 || list[0].Serial != held.Serial || list[0].Order != "" {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := restored.Advisories(ctx); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	update(t, restored, func(tx *store.Tx) error {
		owner, _, err := tx.TakeName("alice.example", "bob", store.OwnKey)
		if owner != "alice" {
			t.Errorf("the name went to %s", owner)
		}
		return err
	})
}
