package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// termHash returns the key of a term in the postings. It is cryptographic, so that callers cannot choose
// values that collide; a reader compares the user in any case.
func termHash(t user.Term) int64 {
	sum := sha256.Sum256([]byte(t))
	return int64(binary.BigEndian.Uint64(sum[:])) //nolint:gosec,nolintlint // any 64 bits
}

// termHashes returns the keys of the postings of a user, ascending. nil has none.
func termHashes(u *user.User) (hashes []int64) {
	if u == nil {
		return nil
	}
	for _, t := range u.Terms() {
		hashes = append(hashes, termHash(t))
	}
	slices.Sort(hashes)
	return slices.Compact(hashes)
}

// postingInserter inserts the postings of a user, many with one statement: a statement each takes twice as long.
type postingInserter struct {
	rows [maxPostingRows]*stmt // by the number of postings, less 1
	args [maxPostingRows + 1]driver.Value
}

// maxPostingRows is the largest number of postings inserted by a statement.
const maxPostingRows = 8

func newPostingInserter(err *error, c *conn) *postingInserter {
	p := new(postingInserter)
	query := "INSERT OR IGNORE INTO postings (user_id, term) VALUES (?1, ?2)"
	for i := range p.rows {
		if i > 0 {
			query += fmt.Sprintf(", (?1, ?%d)", i+2)
		}
		p.rows[i] = c.prepare(err, query)
	}
	return p
}

func (p *postingInserter) insert(id int64, terms []int64) error {
	p.args[0] = id
	for chunk := range slices.Chunk(terms, maxPostingRows) {
		for i, term := range chunk {
			p.args[i+1] = term
		}
		if err := p.rows[len(chunk)-1].exec(p.args[:len(chunk)+1]...); err != nil {
			return err
		}
	}
	return nil
}

// updatePostings replaces the postings of cur with those of next. Either may be nil.
func (w *writer) updatePostings(id int64, cur, next *user.User) error {
	if cur != nil && next != nil && cur.Equal(next, user.TermFields()) {
		return nil
	}
	was, is := termHashes(cur), termHashes(next)
	for _, term := range without(was, is) {
		if err := w.deletePosting.exec(term, id); err != nil {
			return err
		}
	}
	return w.postings.insert(id, without(is, was))
}

// without returns the elements of a that are not in b, which is sorted.
func without(a, b []int64) []int64 {
	if len(b) == 0 {
		return a
	}
	return slices.DeleteFunc(slices.Clone(a), func(term int64) bool {
		_, found := slices.BinarySearch(b, term)
		return found
	})
}

const (
	// indexChunk is the number of users per transaction of buildPostings.
	indexChunk = 4096
	// allIndexed is meta.indexed after buildPostings is complete.
	allIndexed = math.MaxInt64
)

// buildPostings writes the postings of users stored before there were any. An interrupted build continues
// where it ended.
func buildPostings(ctx context.Context, c *conn, log *slog.Logger) (err error) {
	b := &postingsBuilder{postings: newPostingInserter(&err, c)}
	b.indexed = c.prepare(&err, "SELECT indexed FROM meta")
	b.users = c.prepare(&err, "SELECT "+userColumns+" FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?")
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

type postingsBuilder struct {
	indexed, users, reached *stmt
	postings                *postingInserter
	total                   int // users
}

// chunk writes the postings of the users with the next higher IDs.
func (b *postingsBuilder) chunk(after int64) error {
	last := int64(allIndexed)
	err := b.users.each(func(row []driver.Value) (bool, error) {
		u, err := scanUser(row)
		if err != nil {
			return false, fmt.Errorf("user %d: %w", asNumber(row[0]), err)
		}
		b.total++
		last = u.ID
		return true, b.postings.insert(u.ID, termHashes(u))
	}, after, int64(indexChunk))
	if err != nil {
		return err
	}
	return b.reached.exec(last)
}
