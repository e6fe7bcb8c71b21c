package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// The file holds EAB keys: nobody else may read it, its log or its index.
func TestSQLiteFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd ?name%41#&.db")
	db := open(t, store.Options{DSN: "sqlite:" + path})
	if err := storetest.Fill(t.Context(), db, 1); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", info.Name(), info.Mode().Perm())
		}
	}

	open := filepath.Join(t.TempDir(), "open.db")
	if err := os.WriteFile(open, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), store.Options{DSN: open}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read: %v", err)
	}
	if _, err := store.Open(t.Context(), store.Options{DSN: filepath.Join(open, "no", "such")}); err == nil {
		t.Error("a file in a folder that isn't there was opened")
	}
}

// Closing folds the log into the file and takes it away: the file alone is then
// the database, to be copied or moved.
func TestSQLiteCloseFolds(t *testing.T) {
	path := dsn(t, "sqlite")
	db := open(t, store.Options{DSN: path})
	if err := storetest.Fill(t.Context(), db, 20); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Certificates(t.Context(), store.CertificateFilter{}); err != nil { // on the other connections
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if info, err := os.Stat(path + suffix); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path+suffix, info)
		}
	}
	alone := filepath.Join(t.TempDir(), "alone.db")
	if err := os.Rename(path, alone); err != nil {
		t.Fatal(err)
	}
	if found, err := open(t, store.Options{DSN: alone}).Certificates(t.Context(), store.CertificateFilter{}); len(found) != 20 || err != nil {
		t.Errorf("%d certificates in the file alone, want 20: %v", len(found), err)
	}
}

// What SQLite syncs by itself keeps the file whole: WAL with synchronous = NORMAL
// (1). The writer syncs each commit; e2e/durability cuts the power.
func TestSQLiteIsDurable(t *testing.T) {
	db, err := store.Open(t.Context(), store.Options{DSN: dsn(t, "sqlite")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, want := range map[string]string{"synchronous": "1", "journal_mode": "wal"} {
		if got, err := db.Pragma(name); got != want || err != nil {
			t.Errorf("%s = %s, want %s: %v", name, got, want, err)
		}
	}
}

// A program without PostgreSQL says so, and doesn't take the address for a file.
func TestWithoutPostgres(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dsn := range []string{"postgres://ca:secret@db/x", "postgresql:///x"} {
		_, err := store.Open(t.Context(), store.Options{DSN: dsn})
		if err == nil || !strings.Contains(err.Error(), "without PostgreSQL") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
	if left, err := os.ReadDir("."); len(left) > 0 || err != nil {
		t.Errorf("it left %v: %v", left, err)
	}
}

// One process owns a database; a second is told which.
func TestSQLiteLock(t *testing.T) {
	path := dsn(t, "sqlite")
	db, err := store.Open(t.Context(), store.Options{DSN: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), store.Options{DSN: path}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("opened twice: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if err := db.Update(t.Context(), func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Update after Close: %v", err)
	}
	open(t, store.Options{DSN: path})
}

// raw opens the database beside the store, to meddle with it.
func raw(t *testing.T, engine, dsn string) *sql.DB {
	t.Helper()
	driver := map[string]string{"sqlite": "sqlite", "postgres": "pgx"}[engine]
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestNewerSchemaRefused(t *testing.T) {
	for _, engine := range storetest.Engines() {
		dsn := dsn(t, engine)
		open(t, store.Options{DSN: dsn}).Close()
		if _, err := raw(t, engine, dsn).Exec("INSERT INTO migrations (name, applied_at) VALUES ('9999_future.sql', 0)"); err != nil {
			t.Fatal(err)
		}
		_, err := storetest.Open(t.Context(), store.Options{DSN: dsn, UnsafeSync: true})
		if err == nil || !strings.Contains(err.Error(), "9999_future.sql") {
			t.Errorf("%s: a newer schema was opened: %v", engine, err)
		}
	}
}

// Whoever alters the log in place is found out.
func TestAuditTampering(t *testing.T) {
	for _, engine := range storetest.Engines() {
		for _, test := range []struct{ name, statement, want string }{
			{"entry", "UPDATE audit SET entry = replace(entry, 'two', 'owt') WHERE sequence = 2", "entry 2 was altered"},
			{"object", "UPDATE audit SET object = 'x' WHERE sequence = 2", "entry 2 was altered"},
			{"time", "UPDATE audit SET at = at + 1 WHERE sequence = 2", "entry 2 was altered"},
			{"hash", "UPDATE audit SET hash = (SELECT hash FROM audit WHERE sequence = 1) WHERE sequence = 2", "entry 2 was altered"},
			{"taken out", "DELETE FROM audit WHERE sequence = 2", "entry 2 is missing"},
			{"first taken out", "DELETE FROM audit WHERE sequence = 1", "entry 1 is missing"},
			{"swapped", "UPDATE audit SET sequence = 9 WHERE sequence = 1; UPDATE audit SET sequence = 1 WHERE sequence = 4; UPDATE audit SET sequence = 4 WHERE sequence = 9", "entry 1 was altered"},
			{"not JSON", "UPDATE audit SET entry = 'x' WHERE sequence = 3", "entry 3"},
		} {
			t.Run(engine+"/"+test.name, func(t *testing.T) {
				dsn := dsn(t, engine)
				db := open(t, store.Options{DSN: dsn})
				for _, word := range []string{"one", "two", "three", "four"} {
					update(t, db, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: word, Actor: "x", Object: word}) })
				}
				update(t, db, func(tx *store.Tx) error { _, err := tx.SequenceAudit(tx.Now(), "test", 10); return err })
				if n, err := db.VerifyAudit(t.Context()); n != 4 || err != nil {
					t.Fatal(n, err)
				}
				if _, err := raw(t, engine, dsn).Exec(test.statement); err != nil {
					t.Fatal(err)
				}
				if n, err := db.VerifyAudit(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%d entries verified, then %v; want %s", n, err, test.want)
				}
			})
		}
	}
}

func update(t testing.TB, db *store.DB, fn func(*store.Tx) error) {
	t.Helper()
	if err := db.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// queue holds the writer while n calls come to wait for it, then lets go. The
// call that holds it shares their commit.
func queue(t *testing.T, db *store.DB, n int, fn func(n int, tx *store.Tx) error) []error {
	t.Helper()
	errs := make([]error, n)
	var all sync.WaitGroup
	holder := db.Update(t.Context(), func(*store.Tx) error {
		for i := range n {
			all.Go(func() { errs[i] = db.Update(t.Context(), func(tx *store.Tx) error { return fn(i, tx) }) })
		}
		for db.Stats().Waiting < int64(n+1) {
			runtime.Gosched()
		}
		time.Sleep(5 * time.Millisecond) // counted; now they come to wait
		return nil
	})
	all.Wait()
	if holder != nil && !errors.Is(holder, store.ErrUnavailable) {
		t.Error(holder)
	}
	return errs
}

// Calls that come while the writer is busy share its commit; those that fail
// undo only what they did themselves, the audit chain included.
func TestGroupCommit(t *testing.T) {
	db := open(t, store.Options{DSN: dsn(t, "sqlite")})
	before := db.Stats()
	no := errors.New("no")
	errs := queue(t, db, 100, func(n int, tx *store.Tx) error {
		if err := tx.PutSecret(fmt.Sprint(n), []byte{1}); err != nil {
			return err
		}
		if err := tx.Audit(audit.Entry{Action: "group", Actor: "x", Object: fmt.Sprint(n)}); err != nil {
			return err
		}
		if n%3 == 0 {
			return no
		}
		return nil
	})
	good := int64(0)
	for n, err := range errs {
		_, stored := db.Secret(t.Context(), fmt.Sprint(n))
		if n%3 == 0 {
			if !errors.Is(err, no) || !errors.Is(stored, store.ErrNotFound) {
				t.Errorf("call %d failed with %v, and its row: %v", n, err, stored)
			}
		} else if good++; err != nil || stored != nil {
			t.Errorf("call %d: %v, and its row: %v", n, err, stored)
		}
	}
	if n, err := db.VerifyAudit(t.Context()); n != good || err != nil {
		t.Errorf("%d audit entries, want %d: %v", n, good, err)
	}
	after := db.Stats()
	if commits := after.Commits - before.Commits; commits > 20 {
		t.Errorf("101 calls took %d commits", commits)
	}
}

// A test's FailNow, or another runtime.Goexit, must not leave callers hanging.
func TestUpdateGoexit(t *testing.T) {
	db := open(t, store.Options{DSN: dsn(t, "sqlite")})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		db.Update(t.Context(), func(tx *store.Tx) error {
			tx.PutSecret("s", nil)
			runtime.Goexit()
			return nil
		})
		t.Error("a goroutine went on after its end")
	}()
	<-ended
	if _, err := db.Secret(t.Context(), "s"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its row: %v", err)
	}
	update(t, db, func(tx *store.Tx) error { return tx.PutSecret("s", nil) })
}

// A full database fails those who write, says so by ErrUnavailable, keeps
// what is there, and goes on when there is room.
func TestDatabaseFull(t *testing.T) {
	db := open(t, store.Options{DSN: dsn(t, "sqlite")})
	update(t, db, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: "before", Actor: "x"}) })
	if err := db.OnWriter("PRAGMA max_page_count = 60"); err != nil {
		t.Fatal(err)
	}
	errs := queue(t, db, 10, func(n int, tx *store.Tx) error {
		if err := tx.Audit(audit.Entry{Action: "full", Actor: "x"}); err != nil {
			return err
		}
		tx.PutSecret(fmt.Sprint("big", n), make([]byte, 1<<20)) // its error is not looked at
		tx.PutSecret(fmt.Sprint("small", n), []byte{1})
		return nil
	})
	for n, err := range errs {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("call %d on a full database: %v", n, err)
		}
		if _, err := db.Secret(t.Context(), fmt.Sprint("small", n)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("half of call %d was written: %v", n, err)
		}
	}
	if err := db.OnWriter("PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: "after", Actor: "x"}) })
	if n, err := db.VerifyAudit(t.Context()); n != 2 || err != nil {
		t.Errorf("%d audit entries, want 2: %v", n, err)
	}
}

// The disk may also fill up at the commit itself: here by a limit on the size
// of files, which the log runs into.
func TestCommitFails(t *testing.T) {
	path := dsn(t, "sqlite")
	db := open(t, store.Options{DSN: path})
	update(t, db, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: "before", Actor: "x"}) })
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(info.Size()), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)
	errs := queue(t, db, 10, func(n int, tx *store.Tx) error {
		return errors.Join(tx.Audit(audit.Entry{Action: "full", Actor: "x"}), tx.PutSecret(fmt.Sprint(n), []byte{1}))
	})
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	for n, err := range errs {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("call %d: %v", n, err)
		}
		if _, err := db.Secret(t.Context(), fmt.Sprint(n)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("call %d's row: %v", n, err)
		}
	}
	update(t, db, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: "after", Actor: "x"}) })
	if n, err := db.VerifyAudit(t.Context()); n != 2 || err != nil {
		t.Errorf("%d audit entries, want 2: %v", n, err)
	}
}

// A certificate alive, with its account, order, authorization, names, indexes
// and five audit entries, takes at most 4 KiB.
func TestSizePerCertificate(t *testing.T) {
	const n = 500
	path := dsn(t, "sqlite")
	db := open(t, store.Options{DSN: path})
	beside := raw(t, "sqlite", path)
	size := func() (bytes int) {
		if err := beside.QueryRow("SELECT p.page_count * s.page_size FROM pragma_page_count p, pragma_page_size s").Scan(&bytes); err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	empty := size()
	if err := storetest.Fill(t.Context(), db, n); err != nil {
		t.Fatal(err)
	}
	each := (size() - empty) / n
	t.Logf("%d bytes per certificate", each)
	if each > 4096 {
		t.Errorf("%d bytes per certificate, want at most 4096", each)
	}
}

// What is deleted is used again: filling and sweeping over and over doesn't
// make the file grow.
func TestSpaceIsReused(t *testing.T) {
	path := dsn(t, "sqlite")
	now := time.Now()
	db := open(t, store.Options{DSN: path, Clock: func() time.Time { return now }})
	beside := raw(t, "sqlite", path)
	var first, pages int
	for round := range 4 {
		if err := storetest.Fill(t.Context(), db, 100); err != nil {
			t.Fatal(err)
		}
		now = now.Add(30 * 24 * time.Hour)
		for _, sweep := range []func(*store.Tx, time.Time, int) (int, error){
			(*store.Tx).SweepAccounts, (*store.Tx).SweepOrders, (*store.Tx).SweepAuthorizations, (*store.Tx).SweepCertificates, (*store.Tx).SweepAudit,
		} {
			update(t, db, func(tx *store.Tx) error { _, err := sweep(tx, now, 1<<20); return err })
		}
		if err := beside.QueryRow("SELECT page_count FROM pragma_page_count").Scan(&pages); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			first = pages
		}
	}
	if pages > first*11/10 {
		t.Errorf("%d pages after the first round, %d after the fourth", first, pages)
	}
}

// What Update answered is there after the program was opened anew.
func TestReopen(t *testing.T) {
	for _, engine := range storetest.Engines() {
		dsn := dsn(t, engine)
		db := open(t, store.Options{DSN: dsn})
		i := storetest.NewIssuance(0, time.Now())
		if err := issue(t.Context(), db, i); err != nil {
			t.Fatal(err)
		}
		db.Close()
		db = open(t, store.Options{DSN: dsn})
		c, err := db.Certificate(context.Background(), i.Certificate.Serial)
		if err != nil || c.State != cert.Issued {
			t.Errorf("%s: %+v, %v", engine, c, err)
		}
		update(t, db, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: "again", Actor: "x"}) })
		update(t, db, func(tx *store.Tx) error { _, err := tx.SequenceAudit(tx.Now(), "test", 100); return err })
		if n, err := db.VerifyAudit(t.Context()); n != 6 || err != nil {
			t.Errorf("%s: %d audit entries, want 6: %v", engine, n, err)
		}
	}
}
