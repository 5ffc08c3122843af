package postgres

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

const (
	// channel is that of the notifications.
	channel = "userd_log"
	// pollInterval is the time after which the log is read although there was no notification.
	pollInterval = time.Second
	// catchUpRows is the number of rows of other nodes that are read and published at a time.
	catchUpRows = 4096
	// catchUpTimeout bounds the read of commits of other nodes: a server that was lost without a reset must not block it.
	catchUpTimeout = 5 * time.Second
	// slowRead is the duration of a read after which it is reported as failing.
	slowRead = 500 * time.Millisecond
	// listenPause is the pause before the connection of the notifications is opened again.
	listenPause = time.Second
)

// feed publishes the commits of all nodes to the observer, in the order of positions. The writer publishes those of this
// node, because they are known; the follower reads those of other nodes.
type feed struct {
	pool  *pgxpool.Pool
	log   *slog.Logger
	head  atomic.Pointer[user.Head] // of the last published commit
	first *atomic.Int64             // position of the oldest retained row

	timeout   time.Duration // of a read
	onFailure func()        // called when reads start to fail or are slow

	mu      sync.Mutex
	observe func(user.Commit)
	// ownFrom is the first position that the follower must leave to the writer, which is committing.
	ownFrom int64
}

// noOwn is ownFrom while the writer commits nothing.
const noOwn = math.MaxInt64

// beginOwn records that the writer commits rows after a position. It has locked the counter row.
func (f *feed) beginOwn(after int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ownFrom = after + 1
}

// endOwn records that the writer does not publish what it has begun.
func (f *feed) endOwn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ownFrom = noOwn
}

// publishOwn publishes a commit of this node, which follows a position.
func (f *feed) publishOwn(ctx context.Context, after int64, commit user.Commit) {
	defer f.endOwn()
	if f.reach(ctx, after) != nil {
		return // the store is closing
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publish(commit)
}

// reach publishes the commits of other nodes up to a position. While they cannot be read it waits, until ctx ends.
func (f *feed) reach(ctx context.Context, position int64) error {
	for pause := retryPause; f.head.Load().Position < position; pause = min(2*pause, time.Second) {
		err := f.catchUp(ctx)
		if err == nil && f.head.Load().Position >= position {
			return nil
		}
		if err != nil {
			f.log.Error("reading commits of other nodes failed", "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// publish calls the observer. It requires the lock.
func (f *feed) publish(commit user.Commit) {
	f.head.Store(&commit.Head)
	if f.observe != nil && len(commit.Changes) > 0 {
		f.observe(commit)
	}
}

// foreignRows are the rows after a position with their users, or one row without a position.
var foreignRows = "SELECT l.position, l.user_id, l.time, l.action, meta.epoch, meta.first, meta.position, " + names(briefColumns, "u.") +
	" FROM meta LEFT JOIN log l ON l.position > $1 LEFT JOIN users u ON u.user_id = l.user_id ORDER BY l.position LIMIT $2"

// catchUp reads and publishes the next commits of other nodes.
func (f *feed) catchUp(ctx context.Context) error {
	for {
		var changes []user.CommittedChange
		var epoch string
		var end int64 // of the log
		published := f.head.Load()
		// A panic of the observer, which misses commits then, ends the process; others do not.
		err := panics.Catch(func() error {
			ctx, cancel := context.WithTimeout(ctx, f.timeout)
			defer cancel()
			defer time.AfterFunc(slowRead, f.onFailure).Stop()
			rows, err := f.pool.Query(ctx, foreignRows, published.Position, catchUpRows)
			if err == nil {
				changes, epoch, end, err = f.scanForeign(rows)
			}
			return err
		})
		if err != nil {
			f.pool.Reset() // other connections are probably lost too
			return err
		}
		if end < published.Position {
			f.lost(published, end)
		}
		f.publishForeign(changes, epoch)
		if len(changes) < catchUpRows {
			return nil
		}
	}
}

// lost sets the head back to the end of the log in the database. While a commit waits for its synchronous standby and the primary is
// killed, the primary shows the commit to the nodes for a moment, and the standby may not have it.
func (f *feed) lost(published *user.Head, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	head := user.Head{Epoch: published.Epoch, Position: end, Time: published.Time}
	if f.ownFrom == noOwn && f.head.CompareAndSwap(published, &head) {
		f.log.Error("database lost published commits", "published", published.Position, "position", end)
	}
}

// scanForeign returns a change for each row, with the user as of the read, which may be newer, the epoch and the end of the log.
func (f *feed) scanForeign(rows pgx.Rows) (changes []user.CommittedChange, epoch string, end int64, err error) {
	defer rows.Close()
	var position, id, micros *int64
	var action *string
	var first int64
	s := newScanner(briefColumns)
	s.dest = append([]any{&position, &id, &micros, &action, &epoch, &first, &end}, s.dest...)
	for rows.Next() {
		u, err := s.scan(rows)
		if err != nil {
			return nil, "", 0, err
		}
		advance(f.first, first)
		if position == nil {
			continue // no rows
		}
		row := user.Activity{Position: *position, UserID: *id, Time: encoding.FromMicros(*micros), Action: *action}
		changes = append(changes, user.CommittedChange{UserID: *id, User: u, Rows: []user.Activity{row}})
	}
	return changes, epoch, end, rows.Err()
}

// publishForeign publishes the changes that were not published, and are not those that the writer publishes.
func (f *feed) publishForeign(changes []user.CommittedChange, epoch string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	published := f.head.Load().Position
	for len(changes) > 0 && changes[0].Rows[0].Position <= published {
		changes = changes[1:]
	}
	for n := len(changes); n > 0 && changes[n-1].Rows[0].Position >= f.ownFrom; n-- {
		changes = changes[:n-1]
	}
	if n := len(changes); n > 0 {
		last := &changes[n-1].Rows[0]
		f.publish(user.Commit{Head: user.Head{Epoch: epoch, Position: last.Position, Time: last.Time}, Changes: changes})
	}
}

// advance raises a position.
func advance(position *atomic.Int64, to int64) {
	for {
		old := position.Load()
		if old >= to || position.CompareAndSwap(old, to) {
			return
		}
	}
}

// follow publishes the commits of other nodes at each signal and at intervals, until ctx ends.
func (f *feed) follow(ctx context.Context, wake <-chan struct{}, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failing := false
	for {
		err := f.catchUp(ctx)
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			if failing = err != nil; failing {
				f.onFailure()
				f.log.Error("reading commits of other nodes failed", "error", err)
			} else {
				f.log.Info("commits of other nodes are read again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-ticker.C:
		}
	}
}

// listen signals wake at each notification, until ctx ends. It opens a connection of its own, again after a failure.
func (f *feed) listen(ctx context.Context, config *pgx.ConnConfig, wake chan<- struct{}) {
	for failures := 1; ctx.Err() == nil; failures++ {
		err := f.listenOnce(ctx, config, wake, func() { failures = 0 })
		if ctx.Err() != nil {
			return
		}
		if failures <= 1 { // the first of a series
			f.log.Warn("notifications of commits interrupted", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

func (f *feed) listenOnce(ctx context.Context, config *pgx.ConnConfig, wake chan<- struct{}, listening func()) (err error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	listening()
	for {
		select {
		case wake <- struct{}{}: // also for what was committed before LISTEN
		default: // signaled already
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}
