package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

//go:embed migrations
var migrations embed.FS

// migrationNames lists an engine's migrations in the order they are applied.
// Both engines have the same names, which is what a dump compares.
func migrationNames(engine string) ([]string, error) {
	entries, err := fs.ReadDir(migrations, "migrations/"+engine) // sorted
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// migrationLock is the key of the advisory lock that keeps replicas which
// start together from migrating together.
const migrationLock = 0x6368616e63657279 // "chancery"

// migrate applies the migrations that the database lacks, each in its own
// transaction. A migration must leave the tables usable by the version before
// (expand now, contract later), since replicas are updated one by one.
func migrate(ctx context.Context, conn *sql.Conn, engine string, now time.Time) error {
	begin := "BEGIN IMMEDIATE"
	if engine == "postgres" {
		begin = "BEGIN; SET LOCAL statement_timeout = 0"
		if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
			return err
		}
		defer conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock)
	}
	if _, err := conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at BIGINT NOT NULL)"); err != nil {
		return err
	}
	applied, err := appliedMigrations(ctx, conn)
	if err != nil {
		return err
	}
	known, err := migrationNames(engine)
	if err != nil {
		return err
	}
	for _, name := range applied {
		if !slices.Contains(known, name) {
			return fmt.Errorf("it was migrated by a newer version (%s), which this one doesn't know; run that version", name)
		}
	}
	for _, name := range known {
		if slices.Contains(applied, name) {
			continue
		}
		if err := applyMigration(ctx, conn, engine, begin, name, now); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return nil
}

func appliedMigrations(ctx context.Context, conn *sql.Conn) (names []string, err error) {
	rows, err := conn.QueryContext(ctx, "SELECT name FROM migrations ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

func applyMigration(ctx context.Context, conn *sql.Conn, engine, begin, name string, now time.Time) (err error) {
	text, err := migrations.ReadFile("migrations/" + engine + "/" + name)
	if err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, begin); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, back := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
			err = errors.Join(err, back)
		}
	}()
	if _, err := conn.ExecContext(ctx, string(text)); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "INSERT INTO migrations (name, applied_at) VALUES ($1, $2)", name, micros(now)); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}
