package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/store/check"
	"github.com/yourorg/userservice/service/user"
)

const checkChunk = 2000 // rows per query

// Check verifies the database: it runs SQLite's integrity check, then checks the log and
// the users. It returns the problems found, in words for an operator. progress may be nil;
// it receives the number of log rows and users checked. Another process may use the
// store; rows written after Check started are not checked. The users of a store with an older
// schema cannot be checked: the error says so, and the findings are those of the other steps.
func (f *File) Check(ctx context.Context, progress func(done, total int)) (findings []string, err error) {
	if progress == nil {
		progress = func(int, int) {}
	}
	head, err := f.head(ctx)
	if err != nil {
		return nil, fmt.Errorf("check: %w", translate(err))
	}
	c, err := connect(ctx, f.dsn)
	if err != nil {
		return nil, fmt.Errorf("check: %w", translate(err))
	}
	k := &checker{conn: c, head: head, progress: progress}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, step := range []func(context.Context) error{k.integrity, k.meta, k.log, k.schema, k.first, k.names, k.users, k.index} {
		err := step(ctx)
		if code(err)&0xff == codes.SQLITE_CORRUPT {
			err = k.Add("SQLite: %v", err) // continue with the next step
		}
		if err != nil && !errors.Is(err, check.ErrTooManyFindings) {
			return k.List, fmt.Errorf("check: %w", translate(err))
		}
	}
	return k.List, nil
}

// checker is the state of a check.
type checker struct {
	check.Findings

	conn     *conn
	head     user.Head
	rowAt    *stmt
	progress func(done, total int)
	done     int
	total    int
	current  bool  // names are stored in their current normal forms
	retained int64 // position of the oldest retained row when it was last read; 0: not read
}

func (k *checker) integrity(context.Context) error {
	err := k.conn.rows("PRAGMA integrity_check(20)", func(row []driver.Value) error {
		if text := asText(row[0]); text != "ok" {
			return k.Add("SQLite: %s", text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return k.conn.rows("SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM log)", func(row []driver.Value) error {
		k.total = int(asNumber(row[0]))
		return nil
	})
}

// meta compares the head in the meta table with the last log row.
func (k *checker) meta(context.Context) error {
	return k.conn.rows("SELECT m.position, m.time, coalesce((SELECT max(position) FROM log), 0), "+
		"coalesce((SELECT time FROM log WHERE position = m.position), 0) FROM meta m",
		func(row []driver.Value) error {
			head, last := asNumber(row[0]), asNumber(row[2])
			if last == 0 {
				if pruned, err := k.pruned(head); pruned || err != nil {
					return err
				}
			}
			switch {
			case head != last:
				return k.Add("meta: head position is %d, the last log row %d", head, last)
			case asNumber(row[1]) != asNumber(row[3]):
				return k.Add("meta: head time differs from the time of log row %d", head)
			}
			return nil
		})
}

// log checks that positions have no gap, times do not decrease and details can be decoded.
func (k *checker) log(ctx context.Context) error {
	var err error
	chunk := k.conn.prepare(&err, "SELECT "+logColumns+" FROM log WHERE position > ? AND position <= ? ORDER BY position LIMIT ?")
	if err != nil {
		return err
	}
	last := user.Activity{}
	for more := true; more; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		more = false
		err := chunk.each(func(row []driver.Value) (bool, error) {
			more = true
			a, err := scanRow(row)
			if err != nil {
				err = k.Add("log row %d: details cannot be decoded", a.Position)
			}
			if err == nil && a.Position != last.Position+1 {
				err = k.Missing(a.Position-1, "log: gap, row %d follows row %d", a.Position, last.Position)
			}
			if err == nil && a.Time.Before(last.Time) {
				err = k.Add("log row %d: earlier time than row %d", a.Position, last.Position)
			}
			last = a
			k.done++
			return true, err
		}, last.Position, k.head.Position, int64(checkChunk))
		if err != nil {
			return err
		}
		k.progress(k.done, max(k.done, k.total))
	}
	if last.Position != k.head.Position {
		return k.Missing(k.head.Position, "log: last row is %d, head position %d", last.Position, k.head.Position)
	}
	return nil
}

// Missing implements check.Store.
func (k *checker) Missing(position int64, format string, args ...any) error {
	if pruned, err := k.pruned(position); pruned || err != nil {
		return err
	}
	return k.Add(format, args...)
}

// pruned reports whether a row has been pruned by now. Another process may prune during the check.
func (k *checker) pruned(position int64) (bool, error) {
	if position < 1 || position < k.retained {
		return position > 0, nil
	}
	if known, err := k.hasColumn("first"); err != nil || !known {
		return false, err
	}
	err := k.conn.rows("SELECT first FROM meta", func(row []driver.Value) error {
		k.retained = asNumber(row[0])
		return nil
	})
	return position < k.retained, err
}

// hasColumn reports whether the table meta has a column, which an older program may not have added.
func (k *checker) hasColumn(name string) (found bool, err error) {
	err = k.conn.rows("SELECT 1 FROM pragma_table_info('meta') WHERE name = ?", func([]driver.Value) error {
		found = true
		return nil
	}, name)
	return found, err
}

// first checks that no row before the first position is left.
func (k *checker) first(context.Context) error {
	return k.conn.rows("SELECT log.position FROM log, meta WHERE log.position < meta.first LIMIT 1", func(row []driver.Value) error {
		return k.Add("log: row %d is left although it was pruned", asNumber(row[0]))
	})
}

// schema returns an error if the columns of the users are those of an older program.
func (k *checker) schema(context.Context) error {
	newest, err := newestVersion()
	if err != nil {
		return err
	}
	return k.conn.rows("SELECT max(version_id) FROM goose_db_version WHERE is_applied", func(row []driver.Value) error {
		if version := asNumber(row[0]); version < newest {
			return fmt.Errorf("users not checked: schema version %d is older than version %d of this program; "+
				"start userd serve once, which migrates the store, and check again", version, newest)
		}
		return nil
	})
}

// names reads which version of the normalization rules the stored names have.
func (k *checker) names(context.Context) error {
	if versioned, err := k.hasColumn("names"); err != nil || !versioned {
		return err
	}
	return k.conn.rows("SELECT names FROM meta", func(row []driver.Value) error {
		k.current = asNumber(row[0]) == user.NamesVersion
		return nil
	})
}

// users checks each user against the log and its names against their normal forms.
func (k *checker) users(ctx context.Context) error {
	var err error
	k.rowAt = k.conn.prepare(&err, "SELECT "+logColumns+" FROM log WHERE position = ?")
	if err != nil {
		return err
	}
	err = k.eachUser(ctx, func(row []driver.Value) error {
		if k.done++; k.done%checkChunk == 0 {
			k.progress(k.done, max(k.done, k.total))
		}
		u, keys, err := scanListed(row)
		if err != nil {
			return k.Add("user %d: tags or metadata cannot be decoded", asNumber(row[0]))
		}
		return k.User(k, u, keys)
	})
	k.progress(k.done, max(k.done, k.total))
	return err
}

// Row implements check.Store.
func (k *checker) Row(position int64) (*user.Activity, error) {
	row, err := k.rowAt.one(position)
	if err != nil || len(row) == 0 {
		return nil, err
	}
	return &user.Activity{Position: asNumber(row[0]), UserID: asNumber(row[1]), Action: asText(row[3])}, nil
}

// Head implements check.Store.
func (k *checker) Head() int64 { return k.head.Position }

// CurrentNames implements check.Store.
func (k *checker) CurrentNames() bool { return k.current }

// Holds implements check.Store.
func (k *checker) Holds(column, key string) (held bool, err error) {
	err = k.conn.rows("SELECT 1 FROM users WHERE "+column+" = ?", func([]driver.Value) error {
		held = true
		return nil
	}, key)
	return held, err
}
