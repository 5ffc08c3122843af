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

// checkPair refuses a database that does not belong to the write-ahead log beside it:
// SQLite would apply the log to it. It also refuses a database that was in use under
// another name and not closed, since its log lies beside that name. It changes nothing,
// and must run before SQLite opens the database.
//
// The meta table ties the two. Each open writes a random session into it, and each
// transaction that writes counts up commits, so nearly every transaction in the log
// tells which database it continues. What cannot be read decides nothing here.
func checkPair(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		if log, err := readWAL(path+"-wal", 0); err != nil || log.commits == 0 {
			return err
		}
		return fmt.Errorf("the database is missing, its write-ahead log %s-wal is there; put the database back, "+
			"or move the log away to begin with an empty store", path)
	}
	main, page, err := readMain(ctx, path)
	if err != nil || page == 0 {
		return nil //nolint:nilerr // what cannot be read, or has no such table, is refused elsewhere
	}
	log, err := readWAL(path+"-wal", page)
	switch {
	case err != nil:
		return err
	case log.commits > 0 && !main.continuedBy(log):
		return fmt.Errorf("%[1]s-wal is the write-ahead log of another database: a file was put in the place of a store that was not closed. "+
			"Use userd restore, which takes the log away; or, to use %[1]s as it is, move the log away", path)
	case !log.exists && main.place != "" && main.place != placeOf(path):
		return fmt.Errorf("this database was in use as %s and was not closed: its write-ahead log is there. Open it by that name, "+
			"or move it with its log; if the log is lost, userd restore --incomplete takes the database without it", placeName(main.place))
	}
	return nil
}

// checkPairBeside is checkPair for a database that a process may be serving. Such a
// process has checked it, and writes to both files meanwhile, so what is read here may
// not fit: a refusal counts only where no process has the database open.
func checkPairBeside(ctx context.Context, path string) error {
	refusal := checkPair(ctx, path)
	if refusal == nil {
		return nil
	}
	db, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the operator names the file
	if err != nil {
		return refusal
	}
	defer func() { _ = db.Close() }() // only locked
	release, err := lockHandle(db)
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return refusal
	}
	return errors.Join(checkPair(ctx, path), release())
}

// continuedBy reports whether the transactions of the log follow the state that the
// database is in, or one that a checkpoint has partly copied into it.
func (m metaMark) continuedBy(log walContent) bool {
	if m.copied {
		return false // a copy is opened without a log first
	}
	if len(log.metas) == 0 {
		return true
	}
	first, last := log.metas[0], log.metas[len(log.metas)-1]
	if m.epoch != "" && m.epoch != first.epoch {
		return false
	}
	if !m.paired || !first.paired {
		return true // written by an earlier release
	}
	known := false
	for _, mark := range log.metas {
		known = known || m.session == mark.session || m.session == mark.previous
	}
	return known && m.commits >= first.commits-1 && m.commits <= last.commits
}

// readMain reads the meta table as the database file alone has it, without the log, and
// on which page it is; 0: there is none.
func readMain(ctx context.Context, path string) (mark metaMark, page uint32, err error) {
	c, err := connect(ctx, fileDSN(path))
	if err != nil {
		return mark, 0, err
	}
	defer func() { _ = c.close() }() // only read
	err = c.rows("SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", func(row []driver.Value) error {
		page = uint32(asNumber(row[0]))
		return nil
	})
	if err != nil || page == 0 {
		return mark, 0, err
	}
	err = c.rows("SELECT * FROM meta", func(row []driver.Value) error {
		columns := make([]any, len(row))
		for i := range row {
			columns[i] = row[i]
		}
		mark = metaMarkOf(columns)
		return nil
	})
	return mark, page, err
}

// placeOf identifies the name under which a database is open: the folder by its own
// identity, because a mounted folder has the same path in every container.
func placeOf(path string) string {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return path
	}
	return path + "\n" + folderIdentity(info)
}

// placeName returns the path within a place.
func placeName(place string) string {
	path, _, _ := strings.Cut(place, "\n")
	return path
}
