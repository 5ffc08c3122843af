package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// Target is a database to which a store is moved. The table move, with the state of the move, marks it as incomplete. Without
// the row of meta, which Install inserts, no node can write.
type Target struct{ moveReader }

var _ move.Target = (*Target)(nil)

// OpenTarget opens a database without a store, with one without data, or with an incomplete move. No node may use it.
func OpenTarget(ctx context.Context, opts MoveOptions) (*Target, error) {
	r, err := connectForMove(ctx, opts.URL)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	t := &Target{r}
	if err := t.open(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), t.Close())
	}
	return t, nil
}

func (t *Target) open(ctx context.Context, opts MoveOptions) error {
	switch err := checkComplete(ctx, t.conn); {
	case errors.Is(err, move.ErrIncomplete):
		return checkSchema(ctx, t.pool)
	case err != nil:
		return err
	}
	if err := migrate(ctx, t.pool); err != nil {
		return err
	}
	_, err := t.checkUnused(ctx, opts)
	return err
}

// Begin implements move.Target. Bulk loads are faster without the index of the terms, which BuildIndex creates.
func (t *Target) Begin(ctx context.Context, fingerprint string) (state map[string][]byte, err error) {
	switch err := checkComplete(ctx, t.conn); {
	case errors.Is(err, move.ErrIncomplete):
		return t.resume(ctx, fingerprint)
	case err != nil:
		return nil, err
	}
	begun := false // by a process that was killed, while this one waited
	err = pgx.BeginFunc(ctx, t.conn, func(tx pgx.Tx) error {
		var filled bool
		err := tx.QueryRow(ctx, "SELECT position > 0 OR EXISTS (SELECT FROM users) OR EXISTS (SELECT FROM log) OR EXISTS (SELECT FROM request_ids) "+
			"FROM meta FOR UPDATE").Scan(&filled)
		if begun = errors.Is(err, pgx.ErrNoRows); begun {
			return nil
		}
		if err == nil && filled {
			err = errors.New("the database is not empty")
		}
		if err != nil {
			return err
		}
		for _, statement := range []string{
			"CREATE TABLE move (name text PRIMARY KEY, value bytea NOT NULL)",
			"DELETE FROM meta",
			"DELETE FROM writers",
			"ALTER TABLE terms DROP CONSTRAINT terms_pkey",
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return saveState(ctx, tx, move.SourceState, []byte(fingerprint))
	})
	if err != nil || !begun {
		return nil, err
	}
	return t.resume(ctx, fingerprint)
}

// resume returns the state of a move of the source with the fingerprint.
func (t *Target) resume(ctx context.Context, fingerprint string) (map[string][]byte, error) {
	state := make(map[string][]byte)
	err := t.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT name, value FROM move")
		if err != nil {
			return err
		}
		var name string
		var value []byte
		_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
			state[name] = bytes.Clone(value)
			return nil
		})
		return err
	})
	if err == nil && !bytes.Equal(state[move.SourceState], []byte(fingerprint)) {
		err = move.ErrOtherSource
	}
	return state, err
}

// transaction runs f in a transaction. It first waits for that of a process that was killed, which the server may not have ended yet.
func (t *Target) transaction(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, t.conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = 0")
		if err == nil {
			_, err = tx.Exec(ctx, "SELECT FROM move WHERE name = $1 FOR UPDATE", move.SourceState)
		}
		if err != nil {
			return err
		}
		return f(tx)
	})
}

func saveState(ctx context.Context, tx pgx.Tx, name string, value []byte) error {
	_, err := tx.Exec(ctx, "INSERT INTO move (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
	return err
}

// Write implements move.Target.
func (t *Target) Write(ctx context.Context, table *move.Table, rows []move.Row, cursor []byte) error {
	values := make([][]any, len(rows))
	var terms [][]any
	for i, row := range rows {
		values[i] = make([]any, len(row))
		for j, v := range row {
			if text, isText := v.(string); isText && table.Columns[j].Kind == move.Key {
				v = []byte(text)
			}
			values[i][j] = v
		}
		if table.Name == move.Users {
			var err error
			if terms, err = appendTerms(terms, row); err != nil {
				return err
			}
		}
	}
	return t.transaction(ctx, func(tx pgx.Tx) error {
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{table.Name}, table.ColumnNames(), pgx.CopyFromRows(values)); err != nil {
			return err
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"terms"}, []string{"token", "user_id"}, pgx.CopyFromRows(terms)); err != nil {
			return err
		}
		return saveState(ctx, tx, table.Name, cursor)
	})
}

// appendTerms adds the entries of the index for a row of users.
func appendTerms(terms [][]any, row move.Row) ([][]any, error) {
	u := new(user.User)
	for i, f := range columns {
		if err := encoding.SetColumn(f, u, row[i]); err != nil {
			return nil, fmt.Errorf("user %v: %w", row[0], err)
		}
	}
	var keys user.Keys
	keys.Username, _ = row[len(columns)].(string)
	keys.Email, _ = row[len(columns)+1].(string)
	for _, token := range tokens.OfUser(u, keys) {
		terms = append(terms, []any{int64(token), u.ID})
	}
	return terms, nil
}

// BuildIndex implements move.Target.
func (t *Target) BuildIndex(ctx context.Context, _ func(done, total int)) error {
	return t.transaction(ctx, func(tx pgx.Tx) error {
		var built bool
		err := tx.QueryRow(ctx, "SELECT to_regclass('terms_pkey') IS NOT NULL").Scan(&built)
		if err == nil && !built {
			_, err = tx.Exec(ctx, "ALTER TABLE terms ADD CONSTRAINT terms_pkey PRIMARY KEY (token, user_id)")
		}
		return err
	})
}

// Install implements move.Target.
func (t *Target) Install(ctx context.Context, m move.Meta) error {
	return t.transaction(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO meta (one, epoch, position, time, first, names) VALUES (1, $1, $2, $3, $4, $5)",
			m.Epoch, m.Position, m.Time, m.First, user.NamesVersion)
		if err == nil && !m.Clock.Time.IsZero() {
			_, err = tx.Exec(ctx, "UPDATE probe SET clock = $1", m.Clock.Time.UnixMicro())
		}
		if err != nil {
			return err
		}
		return saveState(ctx, tx, move.Installed, []byte{})
	})
}

// Check implements move.Target.
func (t *Target) Check(ctx context.Context, progress func(done, total int)) ([]string, error) {
	return t.check(ctx, progress)
}

// Complete implements move.Target.
func (t *Target) Complete(ctx context.Context) error {
	return t.transaction(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "DROP TABLE move")
		return err
	})
}
