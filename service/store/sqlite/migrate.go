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
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID marks a file as a store of this service ("user" in ASCII).
const applicationID = 0x75736572

// minSQLite is the first version whose write-ahead log is safe with a writer and a
// checkpoint at the same time.
const minSQLite = "3.51.3"

// migrate creates the tables or brings them to the present form.
func migrate(ctx context.Context, path string) (err error) {
	// The close below copies the write-ahead log into the database and syncs it, once
	// for all: nothing is acknowledged before.
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
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	present, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the tables: %w", err)
	}
	if present == target {
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the tables from version %d to %d: %w", present, target, err)
	}
	_, err = db.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(applicationID))
	return err
}

func checkVersion(ctx context.Context, db *sql.DB) error {
	var version string
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	if olderVersion(version, minSQLite) {
		return fmt.Errorf("SQLite %s is too old, it can damage a database; %s or newer is needed", version, minSQLite)
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

// checkStore refuses a database that another program made, and one whose tables are
// newer than this program knows. It changes nothing, and reads the database file alone.
//
// A file whose first start was interrupted has at most a part of our tables, and no mark
// yet; strict refuses that too.
func checkStore(ctx context.Context, path string, strict bool) error {
	c, err := connect(ctx, fileDSN(path))
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }() // only read
	number := func(query string) (n int64) {
		if err == nil {
			err = c.rows(query, func(row []driver.Value) error { n = asNumber(row[0]); return nil })
		}
		return n
	}
	id := number("PRAGMA application_id")
	foreign := number(`SELECT count(*) FROM sqlite_schema
		WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
		AND name NOT IN ('goose_db_version', 'users', 'log', 'request_ids', 'request_users', 'meta')`)
	versioned := number("SELECT count(*) FROM sqlite_schema WHERE name = 'goose_db_version'")
	if err != nil {
		if strict {
			return err
		}
		return nil // what the file alone does not tell shows when it is opened with its log
	}
	if id != applicationID && (id != 0 || foreign > 0 || strict) {
		return errors.New("this database belongs to another program; name another file")
	}
	if versioned == 0 {
		return nil
	}
	newest, err := newestVersion()
	if present := number("SELECT max(version_id) FROM goose_db_version WHERE is_applied"); err == nil && present > newest {
		return fmt.Errorf("the tables have version %d, which is newer than the %d of this program; use a newer program", present, newest)
	}
	return err
}

// newestVersion returns the version that the migrations of this program lead to.
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
