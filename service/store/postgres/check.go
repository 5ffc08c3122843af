package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/check"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// checkChunk is the number of users, or of log rows, that the check reads at a time.
const checkChunk = 500

// Check verifies a database in one snapshot: that the log has no gap and ends at the counter row, and that users, their names
// and the index match. It returns the problems found, in words for an operator. It receives the number of log rows and
// users checked. Nodes may use the database.
func Check(ctx context.Context, address string, progress func(done, total int)) (findings []string, err error) {
	r, err := connectForMove(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := checkComplete(ctx, r.conn); err != nil {
		return nil, err
	}
	if err := checkSchema(ctx, r.pool); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	return r.check(ctx, progress)
}

func (r moveReader) check(ctx context.Context, progress func(done, total int)) (findings []string, err error) {
	k := &checker{progress: progress}
	err = pgx.BeginTxFunc(ctx, r.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		k.ctx, k.tx = ctx, tx
		for _, step := range []func() error{k.meta, k.log, k.users, k.index} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, check.ErrTooManyFindings) {
		return k.List, fmt.Errorf("check: %w", err)
	}
	return k.List, nil
}

// checker is the state of a check.
type checker struct {
	check.Findings

	ctx         context.Context //nolint:containedctx // of the check
	tx          pgx.Tx
	progress    func(done, total int)
	done, total int

	position, time, first int64 // of meta
	names                 int
	rows                  map[int64]*user.Activity // to which the users of a chunk refer
}

var _ check.Store = (*checker)(nil)

// meta reads the counter row and the numbers of rows and users.
func (k *checker) meta() error {
	return k.tx.QueryRow(k.ctx, "SELECT position, time, first, names, (SELECT count(*) FROM log) + (SELECT count(*) FROM users) FROM meta").
		Scan(&k.position, &k.time, &k.first, &k.names, &k.total)
}

// log checks that the rows are those from the first to the last position of the counter row, that their times do not
// decrease, and that their details can be decoded.
func (k *checker) log() error {
	want, last := k.first, int64(math.MinInt64)
	for more := true; more; {
		more = false
		rows, err := k.tx.Query(k.ctx, "SELECT "+logColumns+" FROM log WHERE position > $1 ORDER BY position LIMIT $2", k.reached(want), checkChunk)
		if err != nil {
			return err
		}
		err = eachRow(rows, func(row user.Activity, details []byte) error {
			more = true
			k.done++
			err := k.row(row, details, want, last)
			want, last = row.Position+1, row.Time.UnixMicro()
			return err
		})
		if err != nil {
			return err
		}
		k.progress(k.done, k.total)
	}
	switch {
	case want != k.position+1:
		return k.Add("log: last row is %d, head position %d", want-1, k.position)
	case last != math.MinInt64 && last != k.time:
		return k.Add("meta: head time differs from the time of log row %d", k.position)
	}
	return nil
}

// reached returns the position before the next row. The first query also finds rows that were pruned.
func (k *checker) reached(want int64) int64 {
	if k.done == 0 {
		return 0
	}
	return want - 1
}

func (k *checker) row(row user.Activity, details []byte, want, last int64) error {
	if _, err := encoding.DecodeMap(details); err != nil {
		return k.Add("log row %d: details cannot be decoded", row.Position)
	}
	switch {
	case row.Position < k.first:
		return k.Add("log: row %d is left although it was pruned", row.Position)
	case row.Position != want:
		return k.Add("log: gap, row %d follows row %d", row.Position, want-1)
	case row.Time.UnixMicro() < last:
		return k.Add("log row %d: earlier time than row %d", row.Position, row.Position-1)
	}
	return nil
}

// users checks each user against the log and its names against their normal forms.
func (k *checker) users() error {
	return eachUserChunk(k.ctx, k.tx, func(users []listed) error {
		positions := make([]int64, 0, 2*len(users))
		for _, u := range users {
			positions = append(positions, u.user.StatusPosition, u.user.LastActivityID)
		}
		rows, err := k.tx.Query(k.ctx, "SELECT "+logColumns+" FROM log WHERE position = ANY($1)", positions)
		if err != nil {
			return err
		}
		k.rows = make(map[int64]*user.Activity)
		err = eachRow(rows, func(row user.Activity, _ []byte) error {
			k.rows[row.Position] = &row
			return nil
		})
		for i := 0; i < len(users) && err == nil; i++ {
			err = k.User(k, users[i].user, users[i].keys)
		}
		k.done += len(users)
		k.progress(k.done, max(k.done, k.total))
		return err
	})
}

// eachUserChunk calls visit with all users, some at a time.
func eachUserChunk(ctx context.Context, t pgx.Tx, visit func([]listed) error) error {
	for last := int64(0); ; {
		rows, err := t.Query(ctx, userSelect+"WHERE user_id > $1 ORDER BY user_id LIMIT $2", last, checkChunk)
		if err != nil {
			return err
		}
		var users []listed
		if err := eachUser(rows, func(u *user.User, keys user.Keys, _ int) { users = append(users, listed{u, keys}) }); err != nil {
			return err
		}
		if len(users) == 0 {
			return nil
		}
		last = users[len(users)-1].user.ID
		if err := visit(users); err != nil {
			return err
		}
	}
}

// index compares the index with the tokens of the users.
func (k *checker) index() error {
	return k.Index(func(visit check.Visit) error {
		err := eachUserChunk(k.ctx, k.tx, func(users []listed) error {
			for _, u := range users {
				for _, t := range tokens.OfUser(u.user, u.keys) {
					visit(u.user.ID, t, 1)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		rows, err := k.tx.Query(k.ctx, "SELECT token, user_id FROM terms")
		if err != nil {
			return err
		}
		var token, id int64
		_, err = pgx.ForEachRow(rows, []any{&token, &id}, func() error {
			visit(id, tokens.Token(token), check.Minus) //nolint:gosec,nolintlint // any 64 bits
			return nil
		})
		return err
	})
}

// Row implements check.Store.
func (k *checker) Row(position int64) (*user.Activity, error) { return k.rows[position], nil }

// Head implements check.Store.
func (k *checker) Head() int64 { return k.position }

// Missing implements check.Store.
func (k *checker) Missing(position int64, format string, args ...any) error {
	if position < k.first && position > 0 {
		return nil // pruned
	}
	return k.Add(format, args...)
}

// CurrentNames implements check.Store.
func (k *checker) CurrentNames() bool { return k.names == user.NamesVersion }

// Holds implements check.Store.
func (k *checker) Holds(column, key string) (held bool, err error) {
	err = k.tx.QueryRow(k.ctx, "SELECT EXISTS (SELECT FROM users WHERE "+column+" = $1)", []byte(key)).Scan(&held)
	return held, err
}
