package postgres

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// WithFaults returns options without notifications, with which each third transaction fails with a conflict before it is
// decided, and the response of each fifth commit is lost.
func (o Options) WithFaults() Options {
	var n atomic.Int64
	o.NoListen, o.pollInterval = true, 10*time.Millisecond
	o.inject = func(point string) error {
		switch i := n.Add(1); {
		case point == beforeDecide && i%3 == 0:
			return &pgconn.PgError{Code: serializationFailure}
		case point == afterCommit && i%5 == 0:
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	return o
}
