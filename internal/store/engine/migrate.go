package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// migrationLock is the key of the advisory lock that keeps replicas which
// start together from migrating together.
const migrationLock = 0x6368616e63657279 // "chancery"

// migrate applies the migrations that the database lacks, each in its own
// transaction. A migration must leave the tables usable by the version before
// (expand now, contract later), since replicas are updated one by one.
func migrate(ctx context.Context, conn *sql.Conn, c Config, postgres bool) error {
	begin := "BEGIN IMMEDIATE"
	if postgres {
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
	known, err := fs.Glob(c.Migrations, "*.sql") // sorted
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
		if err := applyMigration(ctx, conn, c, begin, name); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
		c.Logger.Info("the database was migrated", "migration", name)
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

func applyMigration(ctx context.Context, conn *sql.Conn, c Config, begin, name string) (err error) {
	text, err := fs.ReadFile(c.Migrations, name)
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
	if _, err := conn.ExecContext(ctx, "INSERT INTO migrations (name, applied_at) VALUES ($1, $2)", name, c.Clock().UnixMicro()); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}
