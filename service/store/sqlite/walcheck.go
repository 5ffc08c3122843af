package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// errShortWAL is the error of checkWAL for a log that lacks its end, because it was damaged, or replaced by an older copy.
var errShortWAL = errors.New("transactions that were committed are missing at its end: it is damaged, or an older copy. " +
	"userd serve continues without them, with a new epoch; userd restore --incomplete restores the database without them")

// checkWAL returns an error if the write-ahead log or the rollback journal beside a database belongs to
// another database: SQLite would apply it. It also returns an error for a database that was open
// under another path and was not closed, since its log is beside that path. It modifies
// nothing and must run before SQLite opens the database.
//
// Database and log are matched by the meta table: each open writes a random session ID, and
// each transaction increments commits, so the log contains the session IDs and commit
// counts of its transactions. Files that cannot be read are accepted here.
func checkWAL(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		if log, err := readWAL(path+"-wal", 0); err != nil || log.commits == 0 {
			return err
		}
		return fmt.Errorf("database is missing, but its write-ahead log %s-wal exists; restore the database file, "+
			"or move the log away to start with an empty store", path)
	}
	main, page, err := readMain(ctx, path)
	if err != nil || page == 0 {
		return nil //nolint:nilerr // reported elsewhere
	}
	if err := checkJournal(path, main, page); err != nil {
		return err
	}
	log, err := readWAL(path+"-wal", page)
	if err != nil {
		return err
	}
	continued := log.commits == 0 || main.continuedBy(log)
	if continued && log.commits > 0 && len(log.metaRows) == 0 {
		if continued, err = fits(ctx, path, log); err != nil {
			return err
		}
	}
	switch {
	case !continued:
		return fmt.Errorf("%[1]s-wal is the write-ahead log of another database: the file of a store that was not closed was replaced. "+
			"Use userd restore, which moves the log away; or, to use %[1]s as it is, move the log away", path)
	case !log.exists && main.place != "" && main.place != locationOf(path):
		return fmt.Errorf("database was in use as %s and was not closed: its write-ahead log is there. Open it by that path, "+
			"or move it with its log; if the log is lost, userd restore --incomplete restores the database without it", locationPath(main.place))
	case log.short:
		return fmt.Errorf("%s-wal: %w", path, errShortWAL)
	}
	return nil
}

// checkWALOfOpenStore is checkWAL for a database that another process may have open. Both
// files may then change during the check, so an error is ignored if the database is locked.
func checkWALOfOpenStore(ctx context.Context, path string) error {
	mismatch := checkWAL(ctx, path)
	if mismatch == nil {
		return nil
	}
	db, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // path given by the operator
	if err != nil {
		return mismatch
	}
	defer func() { _ = db.Close() }()
	release, err := lockHandle(db)
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return mismatch
	}
	return errors.Join(checkWAL(ctx, path), release())
}

// continuedBy reports whether the transactions of the log continue the database, which may
// contain a part of them after an interrupted checkpoint.
func (m metaRow) continuedBy(log walContent) bool {
	if m.copied {
		return false // a copy has no log until it is opened
	}
	if len(log.metaRows) == 0 {
		return true
	}
	first, last := log.metaRows[0], log.metaRows[len(log.metaRows)-1]
	if m.epoch != "" && first.epoch != "" && m.epoch != first.epoch {
		return false
	}
	if !m.hasSession || !first.hasSession {
		return true // written by an earlier release
	}
	sameSession := false
	for _, row := range log.metaRows {
		sameSession = sameSession || m.session == row.session || m.session == row.previous
	}
	return sameSession && m.commits >= first.commits-1 && m.commits <= last.commits
}

// fits reports whether the database is intact with a log that has no transaction of this service. Such a
// log was written by Litestream, by a migration, or for another database.
func fits(ctx context.Context, path string, log walContent) (bool, error) {
	c, err := connect(ctx, fileDSN(path))
	if err != nil {
		return false, err
	}
	err = c.rows(`SELECT rootpage FROM sqlite_schema WHERE name LIKE '\_litestream\_%' ESCAPE '\'`, func(row []driver.Value) error {
		delete(log.pages, uint32(asNumber(row[0])))
		return nil
	})
	if err := errors.Join(err, c.close()); err != nil || len(log.pages) == 0 {
		return err == nil, err
	}
	findings, err := structure(ctx, path, fullCheck)
	if isDamage(err) {
		return false, nil
	}
	return len(findings) == 0, err
}

// readMain reads the meta table from the database file alone, without the log, and its
// root page number. page is 0 if there is no such table.
func readMain(ctx context.Context, path string) (meta metaRow, page uint32, err error) {
	c, err := connect(ctx, fileDSN(path))
	if err != nil {
		return meta, 0, err
	}
	defer func() { _ = c.close() }()
	err = c.rows("SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", func(row []driver.Value) error {
		page = uint32(asNumber(row[0]))
		return nil
	})
	if err != nil || page == 0 {
		return meta, 0, err
	}
	err = c.rows("SELECT * FROM meta", func(row []driver.Value) error {
		columns := make([]any, len(row))
		for i := range row {
			columns[i] = row[i]
		}
		meta = newMetaRow(columns)
		return nil
	})
	return meta, page, err
}

// locationOf returns the location of a database: its path and the identity of its
// directory, because a mounted directory has the same path in every container.
func locationOf(path string) string {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return path
	}
	return path + "\n" + dirID(info)
}

// locationPath returns the path in a location.
func locationPath(location string) string {
	path, _, _ := strings.Cut(location, "\n")
	return path
}
