package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// minVersion is the oldest supported version of PostgreSQL.
const minVersion = 150000

// newProvider returns the migrations of a database.
func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files)
}

// lockMigration takes an advisory lock until the end of the transaction. The lock ends with the connection, so a node that is
// killed leaves none, and a pooler in transaction mode keeps the connection. The transaction is idle during the migration; the
// server detects by keepalives that the host of the node is lost.
const lockMigration = `
	SET LOCAL idle_in_transaction_session_timeout = 0;
	SET LOCAL lock_timeout = '5min';
	SET LOCAL tcp_keepalives_idle = 5;
	SET LOCAL tcp_keepalives_interval = 5;
	SET LOCAL tcp_keepalives_count = 3;
	SELECT pg_advisory_xact_lock(1970496882)` // "user" in ASCII

// migrate creates the tables or migrates them to the current version. Of several nodes one migrates, the others wait.
func migrate(ctx context.Context, pool *pgxpool.Pool) (err error) {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	var version int
	if err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	if version < minVersion {
		return fmt.Errorf("PostgreSQL %d is not supported; version %d or later is required", version/10000, minVersion/10000)
	}
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read schema version: %w", err)
	case current > target:
		return fmt.Errorf("schema version %d is newer than version %d of this program; use a newer program", current, target)
	case current == target:
		return nil
	}
	err = pgx.BeginFunc(ctx, pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, lockMigration); err != nil {
			return err
		}
		_, err := provider.Up(ctx) // nothing, if another node has migrated
		return err
	})
	if err != nil {
		return fmt.Errorf("migrate schema from version %d to %d: %w", current, target, err)
	}
	return nil
}

// checkSchema returns an error for a database with the schema of another version of the program, or without one.
func checkSchema(ctx context.Context, pool *pgxpool.Pool) (err error) {
	var exists bool
	if err := pool.QueryRow(ctx, "SELECT to_regclass('goose_db_version') IS NOT NULL").Scan(&exists); err != nil {
		return err
	}
	if !exists {
		return errors.New("the database has no store")
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err == nil && current != target {
		err = fmt.Errorf("schema version %d is not version %d of this program: start userd serve once, which migrates it, and repeat", current, target)
	}
	return err
}
