package sqlite

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/user"
)

// Target is a new store to which another one is moved. It holds the lock of the file. The file has no write-ahead log. The
// table move, with the state of the move, marks it as incomplete.
type Target struct {
	moveReader

	path string
	lock *fileLock
	log  *slog.Logger
}

var _ move.Target = (*Target)(nil)

// OpenTarget creates a store, or opens one without data or of an incomplete move. No process may use it.
func OpenTarget(ctx context.Context, path string, log *slog.Logger) (*Target, error) {
	resolved, err := resolve(path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	lock, err := lockFile(resolved)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	t := &Target{path: resolved, lock: lock, log: log}
	if err := t.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, translate(err)), t.moveReader.Close(), lock.discard())
	}
	return t, nil
}

func (t *Target) open(ctx context.Context) error {
	if err := errors.Join(checkHeader(t.lock.file), checkWAL(ctx, t.path), checkStore(ctx, t.path, false)); err != nil {
		return err
	}
	if err := migrate(ctx, t.path); err != nil && !errors.Is(err, move.ErrIncomplete) {
		return err
	}
	if err := syncDir(filepath.Dir(t.path)); err != nil {
		return err
	}
	var err error
	t.conn, err = connect(ctx, address(t.path, url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "journal_mode(DELETE)", "synchronous(FULL)", "foreign_keys(OFF)", "temp_store(MEMORY)", "trusted_schema(OFF)",
		"cache_size(-" + strconv.Itoa(writerCacheKiB) + ")",
	}}))
	return err
}

// Begin implements move.Target.
func (t *Target) Begin(_ context.Context, fingerprint string) (state map[string][]byte, err error) {
	incomplete := checkComplete(t.conn)
	switch {
	case errors.Is(incomplete, move.ErrIncomplete):
		return t.resume(fingerprint)
	case incomplete != nil:
		return nil, translate(incomplete)
	}
	filled := false
	err = t.conn.rows("SELECT 1 FROM users UNION ALL SELECT 1 FROM log UNION ALL SELECT 1 FROM request_ids UNION ALL SELECT 1 FROM meta WHERE position > 0 LIMIT 1",
		func([]driver.Value) error { filled = true; return nil })
	if err == nil && filled {
		err = fmt.Errorf("%s is not empty", t.path)
	}
	if err != nil {
		return nil, translate(err)
	}
	return nil, t.transaction(func() error {
		if err := t.conn.run("CREATE TABLE move (name TEXT PRIMARY KEY, value BLOB) STRICT"); err != nil {
			return err
		}
		return t.save(move.SourceState, []byte(fingerprint))
	})
}

// resume returns the state of a move of the source with the fingerprint.
func (t *Target) resume(fingerprint string) (map[string][]byte, error) {
	newest, err := newestVersion()
	if err != nil {
		return nil, err
	}
	state := make(map[string][]byte)
	err = t.conn.rows("SELECT name, value FROM move", func(row []driver.Value) error {
		state[asText(row[0])] = append([]byte{}, asBlob(row[1])...)
		return nil
	})
	if err == nil {
		err = t.conn.rows("SELECT max(version_id) FROM goose_db_version WHERE is_applied", func(row []driver.Value) error {
			if asNumber(row[0]) != newest {
				return move.ErrOtherSource
			}
			return nil
		})
	}
	if err == nil && !bytes.Equal(state[move.SourceState], []byte(fingerprint)) {
		err = move.ErrOtherSource
	}
	return state, translate(err)
}

// transaction runs f in a transaction.
func (t *Target) transaction(f func() error) error {
	err := t.conn.run("BEGIN IMMEDIATE")
	if err != nil {
		return translate(err)
	}
	if err = f(); err == nil {
		err = t.conn.run("COMMIT")
	}
	if err != nil {
		_ = t.conn.run("ROLLBACK") // err is more important
	}
	return translate(err)
}

func (t *Target) save(name string, value []byte) error {
	return t.conn.run("INSERT OR REPLACE INTO move (name, value) VALUES (?, ?)", name, value)
}

// Write implements move.Target.
func (t *Target) Write(_ context.Context, table *move.Table, rows []move.Row, cursor []byte) error {
	columns := table.ColumnNames()
	insert, err := t.prepare("INSERT INTO " + table.Name + " (" + strings.Join(columns, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")")
	if err != nil {
		return translate(err)
	}
	return t.transaction(func() error {
		args := make([]driver.Value, len(columns))
		for _, row := range rows {
			for i, v := range row {
				args[i] = v
			}
			if err := insert.exec(args...); err != nil {
				return err
			}
		}
		return t.save(table.Name, cursor)
	})
}

// BuildIndex implements move.Target.
func (t *Target) BuildIndex(ctx context.Context, progress func(done, total int)) error {
	return translate(buildIndex(ctx, t.conn, Options{Logger: t.log, OnIndexing: progress}))
}

// Install implements move.Target.
func (t *Target) Install(_ context.Context, m move.Meta) error {
	return t.transaction(func() error {
		at := int64(0)
		if !m.Clock.Time.IsZero() {
			at = m.Clock.Time.UnixMicro()
		}
		err := t.conn.run("UPDATE meta SET epoch = ?, position = ?, time = ?, first = ?, names = ?, clock_time = ?, clock_elapsed = ?, clock_boot = ?",
			m.Epoch, m.Position, m.Time, m.First, int64(user.NamesVersion), at, int64(m.Clock.Elapsed), m.Clock.Boot)
		if err != nil {
			return err
		}
		return t.save(move.Installed, nil)
	})
}

// Check implements move.Target.
func (t *Target) Check(ctx context.Context, progress func(done, total int)) ([]string, error) {
	return newFile(t.path).Check(ctx, progress)
}

// Complete implements move.Target.
func (t *Target) Complete(context.Context) error { return translate(t.conn.run("DROP TABLE move")) }

// Close implements move.Target.
func (t *Target) Close() error { return errors.Join(t.moveReader.Close(), t.lock.unlock()) }
