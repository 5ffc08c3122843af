package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// maxConns limits the connections of the pools, unless the URL has pool_max_conns.
	maxConns = 16
	// writeConns are those of the writer, of the search for the outcome of a commit, and of the follower.
	writeConns = 3
	// backgroundConns are those of reads without a caller, such as probes.
	backgroundConns = 2
	// minConns leaves a connection for the reads of callers.
	minConns = writeConns + backgroundConns + 1
	// connectTimeout bounds the attempt to connect, unless the URL has connect_timeout.
	connectTimeout = 3 * time.Second
)

// Parameters of the connections, unless the URL has them. A node that is cut off from the database must not hold the
// counter row for long. Each query has an index in its order; the planner must not read and sort the table instead, as
// it does before it has statistics. The transactions need no other isolation than that of the lock of the counter row, and
// a replica does not have serializable transactions.
var runtimeParams = map[string]string{
	"application_name":                    "userd",
	"default_transaction_isolation":       "read committed",
	"idle_in_transaction_session_timeout": "5000",
	"lock_timeout":                        "8000", // less than the timeout of a transaction
	"enable_seqscan":                      "off",
	"enable_bitmapscan":                   "off",
	"jit":                                 "off", // the cost of a scan that cannot be avoided would start it
}

// CheckURL returns an error for an invalid URL of a database. The error does not contain its password.
func CheckURL(address string) error {
	_, err := parseURL(address)
	return err
}

func parseURL(address string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("invalid URL")
	}
	if !u.Query().Has("pool_max_conns") {
		config.MaxConns = maxConns
	}
	if config.MaxConns < minConns {
		return nil, fmt.Errorf("pool_max_conns: must be at least %d", minConns)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	for name, value := range runtimeParams {
		if _, given := config.ConnConfig.RuntimeParams[name]; !given {
			config.ConnConfig.RuntimeParams[name] = value
		}
	}
	return config, nil
}

// connect opens the pools for reads and for writes.
func (s *Store) connect(ctx context.Context, config *pgxpool.Config) (err error) {
	writes := config.Copy()
	writes.MaxConns, writes.MinConns, writes.MinIdleConns, writes.BeforeConnect = writeConns, 0, 0, disableCancel
	config.MaxConns -= writeConns
	s.reading, s.background = newSlots(int(config.MaxConns)-backgroundConns), newSlots(backgroundConns)
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	if s.writes, err = pgxpool.NewWithConfig(ctx, writes); err != nil {
		s.pool.Close()
	}
	return err
}

func (s *Store) disconnect() {
	s.replica.close()
	s.pool.Close()
	s.writes.Close()
}

var errCancelDisabled = errors.New("cancel requests are disabled")

// disableCancel keeps a connection that times out from sending a cancel request: it would make a COMMIT that waits for a
// synchronous standby visible, although a failover to the standby loses it.
func disableCancel(_ context.Context, config *pgx.ConnConfig) error {
	var connected atomic.Bool
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if connected.Load() {
			return nil, errCancelDisabled
		}
		return dial(ctx, network, address)
	}
	config.AfterConnect = func(context.Context, *pgconn.PgConn) error {
		connected.Store(true)
		return nil
	}
	return nil
}

// warnUnsafe logs settings of the server with which it may lose acknowledged writes. Other databases may not have them.
func warnUnsafe(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) {
	for _, name := range []string{"synchronous_commit", "fsync", "full_page_writes"} {
		var value *string
		err := pool.QueryRow(ctx, "SELECT current_setting($1, true)", name).Scan(&value)
		if err == nil && value != nil && *value == "off" {
			log.Warn("database may lose acknowledged writes in a crash", "setting", name, "value", *value)
		}
	}
}
