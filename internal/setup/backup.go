package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/chancery-pki/chancery/internal/admin"
	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/carry"
)

// Backup writes everything in the database to a new file, which only its
// owner can read, and returns its size. A running server makes the backup
// itself, from one moment, while it goes on; without one the database is
// opened here.
func Backup(ctx context.Context, c *config.Config, path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	size, err := backup(ctx, c, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
		return 0, err
	}
	return size, nil
}

func backup(ctx context.Context, c *config.Config, f *os.File) (int64, error) {
	err := askServer(ctx, c.Path(c.Admin.Socket), f)
	if errors.Is(err, errNoServer) {
		var db *store.DB
		if db, err = server.OpenDatabase(ctx, c, slog.New(slog.DiscardHandler)); err != nil {
			return 0, err
		}
		err = errors.Join(db.Dump(ctx, f), db.Close())
	}
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

var errNoServer = errors.New("no server is running")

// askServer has the running server write the backup.
func askServer(ctx context.Context, socket string, w io.Writer) error {
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unix", socket); err != nil {
		return errNoServer
	} else {
		conn.Close()
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/v1/backup", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return err
	}
	if resp.Trailer.Get(admin.BackupTrailer) != "whole" {
		return errors.New("the server could not finish the backup; its log says why")
	}
	return nil
}

// Restored is what a Restore did.
type Restored struct {
	MovedAside string             // where the old SQLite database went; "" if there was none
	Missing    []cert.Certificate // issued since the backup, found in the old database
	Carried    carry.Withdrawals  // since the backup, from the old database
	Known      bool               // whether there was an old database to look at
	At         time.Time
}

// Restore loads a backup into an empty database: SQLite's old file is moved
// aside, PostgreSQL must be empty. What the old database knows to be revoked,
// or withdrawn otherwise, stays so. The certificates that it has and the backup
// has not are reported, since they are out there and, but for those that are
// revoked, no record of the CA knows them any more.
func Restore(ctx context.Context, c *config.Config, path string) (*Restored, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	report := &Restored{At: time.Now()}
	log := slog.New(slog.DiscardHandler)
	if file := c.DatabasePath(c.Database.DSN); c.Database.DSNFile == "" && c.Database.DSNEnv == "" && !config.IsPostgres(file) {
		if report.MovedAside, err = moveAside(ctx, file, report.At); err != nil {
			return nil, err
		}
	}
	db, err := fill(ctx, c, f, report, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("restore: %w", err), report.undo(c))
	}
	defer db.Close()
	if report.MovedAside == "" {
		return report, nil
	}
	report.Known = true
	old, err := store.Open(ctx, store.Options{DSN: report.MovedAside, Logger: log})
	if err != nil {
		return report, fmt.Errorf("restored, but the old database can't be read to see what was issued and revoked since: %w", err)
	}
	defer old.Close()
	if report.Missing, err = missing(ctx, old, db); err != nil {
		return report, fmt.Errorf("restored, but what was issued and revoked since is good again and not known: the old database, %s: %w", report.MovedAside, err)
	}
	if report.Carried, err = carry.Over(ctx, operator(), old, db); err != nil {
		return report, fmt.Errorf("restored, but what was revoked since is good again, revoke it anew: the old database, %s: %w", report.MovedAside, err)
	}
	return report, nil
}

// operator is who restores, as the audit log names those who use the admin
// socket.
func operator() string { return fmt.Sprintf("operator:uid:%d", os.Getuid()) }

// fill opens the database, which is empty, loads the backup, and records that.
func fill(ctx context.Context, c *config.Config, backup *os.File, r *Restored, log *slog.Logger) (*store.DB, error) {
	db, err := server.OpenDatabase(ctx, c, log)
	if err != nil {
		return nil, err
	}
	if err = db.Load(ctx, backup); err == nil {
		err = db.Update(ctx, func(tx *store.Tx) error {
			return tx.Audit(audit.Entry{Action: "database.restore", Actor: operator(), Detail: map[string]any{"from": backup.Name(), "moved_aside": r.MovedAside}})
		})
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// undo puts the old database back in its place when the backup was no good.
func (r *Restored) undo(c *config.Config) error {
	if r.MovedAside == "" {
		return nil
	}
	return rename(r.MovedAside, c.DatabasePath(c.Database.DSN))
}

// moveAside renames an SQLite database with its companions, and makes sure
// that no server has it open.
func moveAside(ctx context.Context, file string, at time.Time) (string, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	db, err := store.Open(ctx, store.Options{DSN: file, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", fmt.Errorf("the database must not be in use: %w", err)
	}
	if err := db.Close(); err != nil { // its log is folded in now
		return "", err
	}
	aside := file + ".before-restore-" + at.UTC().Format("20060102T150405Z")
	return aside, rename(file, aside)
}

// rename moves an SQLite database over another, companions included.
func rename(from, to string) error {
	for _, companion := range []string{"", "-wal", "-shm"} {
		err := os.Rename(from+companion, to+companion)
		if errors.Is(err, fs.ErrNotExist) { // what would belong to another database
			if err = os.Remove(to + companion); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// missing lists the issued, unexpired certificates that the old database has
// and the new one has not.
func missing(ctx context.Context, old, new *store.DB) ([]cert.Certificate, error) {
	var lost []cert.Certificate
	f := store.CertificateFilter{NotAfterFrom: time.Now(), Limit: 500}
	for {
		page, err := old.Certificates(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, c := range page {
			_, err := new.Certificate(ctx, c.Serial)
			switch {
			case errors.Is(err, store.ErrNotFound) && c.State == cert.Issued:
				lost = append(lost, c)
			case err != nil && !errors.Is(err, store.ErrNotFound):
				return nil, err
			}
		}
		if len(page) < f.Limit {
			return lost, nil
		}
		f.After = page[len(page)-1].Serial
	}
}

// Print tells what was done, and what the CA has forgotten.
func (r *Restored) Print(w io.Writer) {
	fmt.Fprintln(w, "restored")
	if !r.Known {
		fmt.Fprintln(w, "There was no old database to compare with: certificates issued after the backup was made are not known here, and what was revoked after it is good again.")
		return
	}
	if len(r.Missing) == 0 {
		fmt.Fprintf(w, "The old database is at %s; it has no certificate that the backup lacks.\n", r.MovedAside)
	} else {
		fmt.Fprintf(w, "The old database is at %s. It has %d certificates that the backup lacks:\n", r.MovedAside, len(r.Missing))
	}
	for _, c := range r.Missing {
		names := ""
		for _, id := range c.Names {
			names += " " + id.Value
		}
		if !c.Revoked.At.IsZero() {
			names += "  (revoked)"
		}
		fmt.Fprintf(w, "  %s  until %s %s\n", c.Serial, c.NotAfter.UTC().Format(time.RFC3339), names)
	}
	r.printCarried(w)
}

func (r *Restored) printCarried(w io.Writer) {
	if r.Carried.Total() == 0 {
		fmt.Fprintln(w, "Nothing was revoked after the backup was made.")
		return
	}
	fmt.Fprintln(w, "Revoked, withdrawn or held after the backup was made, and so again:")
	for _, c := range []struct {
		n    int
		what string
	}{
		{r.Carried.Certificates, "certificates revoked"},
		{r.Carried.Held, "certificates of devices known again, so that they can be revoked"},
		{r.Carried.BlockedKeys, "compromised keys blocked"},
		{r.Carried.Accounts, "accounts ended"},
		{r.Carried.AccountKeys, "account keys replaced"},
		{r.Carried.RetiredKeys, "keys of ended accounts retired"},
		{r.Carried.EABKeys, "EAB keys revoked"},
		{r.Carried.Authorizations, "authorizations ended"},
		{r.Carried.Devices, "devices retired or lost"},
		{r.Carried.Identities, "devices with less than before"},
		{r.Carried.Advisories, "advisories that refuse firmware"},
		{r.Carried.WatchedKeys, "SSH keys to be watched"},
	} {
		if c.n > 0 {
			fmt.Fprintf(w, "  %6d %s\n", c.n, c.what)
		}
	}
}
