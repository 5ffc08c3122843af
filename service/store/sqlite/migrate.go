package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	driverpkg "modernc.org/sqlite"

	"github.com/yourorg/userservice/service/store/move"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID is the application_id of a store of this service ("user" in ASCII).
const applicationID = 0x75736572

// minSQLite is the oldest supported version: earlier ones can corrupt the database when a
// write and a checkpoint run concurrently.
const minSQLite = "3.51.3"

// migrate creates the tables or migrates them to the current version.
func migrate(ctx context.Context, path string) (err error) {
	// synchronous=NORMAL is enough: closing the database checkpoints and syncs it, before
	// any write is acknowledged.
	connector, err := driverpkg.NewConnector(dsn(path, readerCacheKiB, "synchronous(NORMAL)"))
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := checkVersion(ctx, db); err != nil {
		return err
	}
	if err := checkNoMove(ctx, db); err != nil {
		return err
	}
	if err := mark(ctx, db); err != nil {
		return err
	}
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current == target {
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema from version %d to %d: %w", current, target, err)
	}
	return nil
}

// mark sets the application_id of a new database, also of one whose first start was interrupted.
func mark(ctx context.Context, db *sql.DB) error {
	var id int
	err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	if err == nil && id != applicationID {
		_, err = db.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(applicationID))
	}
	return err
}

// checkNoMove returns an error for a store that is the target of an incomplete move.
func checkNoMove(ctx context.Context, db *sql.DB) error {
	incomplete := false
	err := db.QueryRowContext(ctx, "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'move'").Scan(&incomplete)
	if err == nil && incomplete {
		err = move.ErrIncomplete
	}
	return err
}

func checkVersion(ctx context.Context, db *sql.DB) error {
	var version string
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	if olderVersion(version, minSQLite) {
		return fmt.Errorf("SQLite %s can corrupt a database; version %s or later is required", version, minSQLite)
	}
	return nil
}

func olderVersion(version, than string) bool {
	a, b := strings.Split(version, "."), strings.Split(than, ".")
	for i := range min(len(a), len(b)) {
		x, errX := strconv.Atoi(a[i])
		y, errY := strconv.Atoi(b[i])
		if errX != nil || errY != nil || x != y {
			return errX != nil || x < y
		}
	}
	return len(a) < len(b)
}

// checkStore returns an error for a database of another program and for one with a newer
// schema. It reads the database file alone and modifies nothing. With strict, it also
// rejects a database without application_id, which no start has marked.
func checkStore(ctx context.Context, path string, strict bool) error {
	c, err := connect(ctx, fileDSN(path))
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }()
	number := func(query string) (n int64) {
		if err == nil {
			err = c.rows(query, func(row []driver.Value) error { n = asNumber(row[0]); return nil })
		}
		return n
	}
	id := number("PRAGMA application_id")
	foreign := number(`SELECT count(*) FROM sqlite_schema
		WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
		AND name NOT IN ('goose_db_version', 'users', 'log', 'request_ids', 'request_users', 'postings',
			'terms', 'terms_config', 'terms_data', 'terms_idx', 'unused_terms', 'meta')`)
	versioned := number("SELECT count(*) FROM sqlite_schema WHERE name = 'goose_db_version'")
	if err != nil {
		if strict {
			return err
		}
		return nil // the data may be in the write-ahead log, which is read later
	}
	if id != applicationID && (id != 0 || foreign > 0 || strict) {
		return errors.New("database belongs to another program; use another file")
	}
	if versioned == 0 {
		return nil
	}
	newest, err := newestVersion()
	if version := number("SELECT max(version_id) FROM goose_db_version WHERE is_applied"); err == nil && version > newest {
		return fmt.Errorf("schema version %d is newer than version %d of this program; use a newer program", version, newest)
	}
	return err
}

// newestVersion returns the schema version of the last migration.
func newestVersion() (newest int64, err error) {
	files, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return 0, err
	}
	for _, name := range files {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return 0, err
		}
		newest = max(newest, version)
	}
	return newest, nil
}
