package postgres

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/yourorg/userservice/service/store/move"
)

// observeNodes is the time for which the writers are observed, to find out whether a node runs: above the interval of the probes
// of a node and their timeout (see package health).
const observeNodes = 10 * time.Second

// MoveOptions configures OpenSource and OpenTarget.
type MoveOptions struct {
	URL    string
	Logger *slog.Logger
	// Observe replaces observeNodes in tests.
	Observe time.Duration
}

// moveReader implements move.Reader on one connection.
type moveReader struct {
	pool *pgxpool.Pool
	conn *pgxpool.Conn
}

// connectForMove returns a connection that may be idle in a transaction, while the other store is read or written.
func connectForMove(ctx context.Context, address string) (r moveReader, err error) {
	config, err := parseURL(address)
	if err != nil {
		return r, err
	}
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	if r.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return r, err
	}
	if r.conn, err = r.pool.Acquire(ctx); err != nil {
		r.pool.Close()
	}
	return r, err
}

// Read implements move.Reader.
func (r moveReader) Read(ctx context.Context, t *move.Table, key []string, after move.Row, limit int) (chunk move.Chunk, err error) {
	args := make([]any, 0, len(after)+1)
	for i, v := range after {
		if text, isText := v.(string); isText && t.KindOf(key[i]) == move.Key {
			v = []byte(text)
		}
		args = append(args, v)
	}
	rows, err := r.conn.Query(ctx, t.Select(key, after == nil, "$"), append(args, limit)...)
	if err != nil {
		return chunk, err
	}
	defer rows.Close()
	for more := true; more && rows.Next(); {
		values, err := rows.Values()
		if err != nil {
			return chunk, err
		}
		more = chunk.Add(t, key, values)
	}
	rows.Close()
	return chunk, rows.Err()
}

// Count implements move.Reader.
func (r moveReader) Count(ctx context.Context, t *move.Table) (n int64, err error) {
	err = r.conn.QueryRow(ctx, "SELECT count(*) FROM "+t.Name).Scan(&n)
	return n, err
}

// Close implements move.Reader.
func (r moveReader) Close() error {
	r.conn.Release()
	r.pool.Close()
	return nil
}

// queryer is a connection or a pool.
type queryer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// writersState returns a text that changes with each transaction of a node, which includes probes of idle nodes. It is empty if no
// node was seen since it was last closed.
func writersState(ctx context.Context, q queryer) (state string, err error) {
	err = q.QueryRow(ctx, "SELECT coalesce(string_agg(process || ' ' || number, ',' ORDER BY process), '') FROM writers").Scan(&state)
	return state, err
}

// checkUnused returns an error if a node uses the database. It observes the nodes that were not closed.
func (r moveReader) checkUnused(ctx context.Context, opts MoveOptions) (state string, err error) {
	if state, err = writersState(ctx, r.conn); err != nil || state == "" {
		return state, err
	}
	wait := observeNodes
	if opts.Observe > 0 {
		wait = opts.Observe
	}
	opts.Logger.Info("observing whether a node uses the database", "duration", wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	after, err := writersState(ctx, r.conn)
	if err == nil && after != state {
		err = errInUse
	}
	return state, err
}

var errInUse = errors.New("the database is in use by a node: stop all nodes")

// checkComplete returns an error for a database that is the target of an incomplete move.
func checkComplete(ctx context.Context, q queryer) error {
	incomplete := false
	err := q.QueryRow(ctx, "SELECT to_regclass('move') IS NOT NULL").Scan(&incomplete)
	if err == nil && incomplete {
		err = move.ErrIncomplete
	}
	return err
}
