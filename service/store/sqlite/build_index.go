package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/yourorg/userservice/service/user"
)

const (
	// buildChunk is the number of users per transaction of buildIndex.
	buildChunk = 4096
	// allIndexed is meta.indexed after buildIndex is complete.
	allIndexed = math.MaxInt64
)

// buildIndex writes the index of users stored before there was one. An interrupted build continues where it
// ended.
func buildIndex(ctx context.Context, c *conn, log *slog.Logger) (err error) {
	b := &indexBuilder{index: newIndexWriter(&err, c)}
	b.indexed = c.prepare(&err, "SELECT indexed FROM meta")
	b.users = c.prepare(&err, listQueries[byID])
	b.reached = c.prepare(&err, "UPDATE meta SET indexed = ?, commits = commits + 1")
	for chunks := 0; err == nil; chunks++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		after, _, failure := b.indexed.number()
		if failure != nil || after == allIndexed {
			return failure
		}
		if err = c.run("BEGIN IMMEDIATE"); err != nil {
			break
		}
		if err = b.chunk(after); err == nil {
			err = c.run("COMMIT")
		}
		if err != nil {
			err = errors.Join(err, c.run("ROLLBACK"))
			break
		}
		if b.total > 0 && chunks%16 == 0 {
			log.Info("indexing users for filters", "users", b.total)
		}
		err = c.rows("PRAGMA wal_checkpoint(PASSIVE)", func([]driver.Value) error { return nil })
	}
	if err != nil {
		return fmt.Errorf("index users for filters: %w", err)
	}
	return nil
}

type indexBuilder struct {
	indexed, users, reached *stmt
	index                   indexWriter
	total                   int // users
}

// chunk writes the index of the users with the next higher IDs.
func (b *indexBuilder) chunk(after int64) error {
	last := int64(allIndexed)
	err := b.users.each(func(row []driver.Value) (bool, error) {
		u, keys, err := scanListed(row)
		if err != nil {
			return false, fmt.Errorf("user %d: %w", asNumber(row[0]), err)
		}
		b.total++
		last = u.ID
		return true, b.index.insertTokens(u.ID, userTokens(u, keys))
	}, after, int64(buildChunk))
	if err != nil {
		return err
	}
	return b.reached.exec(last)
}

// scanListed decodes a row of listColumns.
func scanListed(row []driver.Value) (*user.User, user.Keys, error) {
	u, err := scanUser(row)
	return u, user.Keys{Username: asText(row[userColumnCount]), Email: asText(row[userColumnCount+1])}, err
}
