package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"

	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

const (
	// buildChunk is the number of users per transaction of buildIndex.
	buildChunk = 4096
	// logChunks is the number of chunks per log line.
	logChunks = 16
	// allIndexed is meta.indexed after buildIndex is complete.
	allIndexed = math.MaxInt64
)

// prepareIndex builds the index if it is incomplete. It reports whether there are unused tokens.
func (w *writer) prepareIndex(ctx context.Context) (unused bool, err error) {
	if err := buildIndex(ctx, w.conn, w.store.opts); err != nil {
		return false, err
	}
	_, unused, err = w.firstUnused.number()
	return unused, err
}

// buildIndex writes the index of users stored before there was one. An interrupted build continues where it
// ended.
func buildIndex(ctx context.Context, c *conn, opts Options) (err error) {
	b := &indexBuilder{conn: c, index: newIndexWriter(&err, c)}
	b.indexed = c.prepare(&err, "SELECT indexed FROM meta")
	b.users = c.prepare(&err, listQueries[byID])
	b.reached = c.prepare(&err, "UPDATE meta SET indexed = ?, commits = commits + 1")
	if err != nil {
		return err
	}
	after, _, err := b.indexed.number()
	if err != nil || after == allIndexed {
		return err
	}
	if err := b.countUsers(after); err != nil {
		return err
	}
	for chunks := 1; after < allIndexed; chunks++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if after, err = b.transaction(after); err != nil {
			return fmt.Errorf("index users for filters: %w", err)
		}
		if opts.OnIndexing != nil && b.total > 0 {
			opts.OnIndexing(b.done, b.total)
		}
		if chunks%logChunks == 0 {
			opts.Logger.Info("indexing users for filters", "users", b.done, "total", b.total)
		}
	}
	return nil
}

// indexBuilder is the state of buildIndex.
type indexBuilder struct {
	conn                    *conn
	indexed, users, reached *stmt
	index                   indexWriter
	done, total             int // users
}

// countUsers sets the number of users up to an ID, and that of all.
func (b *indexBuilder) countUsers(upTo int64) error {
	return b.conn.rows("SELECT count(*), count(CASE WHEN user_id <= ? THEN 1 END) FROM users", func(row []driver.Value) error {
		b.total, b.done = int(asNumber(row[0])), int(asNumber(row[1]))
		return nil
	}, upTo)
}

// transaction writes a chunk in a transaction, and returns the ID that it has reached.
func (b *indexBuilder) transaction(after int64) (reached int64, err error) {
	if err := b.conn.run("BEGIN IMMEDIATE"); err != nil {
		return 0, err
	}
	if reached, err = b.chunk(after); err == nil {
		err = b.conn.run("COMMIT")
	}
	if err != nil {
		return 0, errors.Join(err, b.conn.run("ROLLBACK"))
	}
	return reached, b.conn.rows("PRAGMA wal_checkpoint(PASSIVE)", func([]driver.Value) error { return nil })
}

// chunk writes the index of the users with the next higher IDs.
func (b *indexBuilder) chunk(after int64) (last int64, err error) {
	last = allIndexed
	err = b.users.each(func(row []driver.Value) (bool, error) {
		u, keys, err := scanListed(row)
		if err != nil {
			return false, fmt.Errorf("user %d: %w", asNumber(row[0]), err)
		}
		b.done++
		last = u.ID
		return true, b.index.insertTokens(u.ID, tokens.OfUser(u, keys))
	}, after, int64(buildChunk))
	if err != nil {
		return 0, err
	}
	return last, b.reached.exec(last)
}

// scanListed decodes a row of listColumns.
func scanListed(row []driver.Value) (*user.User, user.Keys, error) {
	u, err := scanUser(row)
	return u, user.Keys{Username: asText(row[userColumnCount]), Email: asText(row[userColumnCount+1])}, err
}
