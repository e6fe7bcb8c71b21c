package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Migrate applies the migrations that the database lacks, each in its own
// transaction, which the text of begin opens. A migration must leave the tables usable by the version before
// (expand now, contract later), since replicas are updated one by one.
func Migrate(ctx context.Context, conn *sql.Conn, c Config, begin string) error {
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
