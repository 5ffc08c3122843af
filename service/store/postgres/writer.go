package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

const (
	// transactionTimeout bounds an attempt to write a group.
	transactionTimeout = 10 * time.Second
	// outcomeTimeout bounds the search for the outcome of a transaction whose connection was lost.
	outcomeTimeout = 10 * time.Second
	// maxAttempts bounds the attempts to write a group.
	maxAttempts = 10
	// retryPause is the pause before the second attempt. It doubles with each one.
	retryPause = time.Millisecond
)

// A writeGroup is the contents of one transaction, a part that of an item in it.
type (
	writeGroup = group.Group[*tx]
	part       = group.Part[*tx]
)

// Submit implements user.Store.
func (s *Store) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	return s.queue.Submit(ctx, batch)
}

// write applies a group in one transaction. After an unexpected failure each change is applied in a transaction of its
// own, so that only the failing one fails.
func (s *Store) write(g *writeGroup) {
	for g.Take() { // the next transaction has what arrives during this one
	}
	if len(g.Parts) == 0 {
		return
	}
	err := s.apply(g.Parts)
	if err != nil && !isStoreError(err) && (len(g.Parts) > 1 || g.Changes > 1) {
		s.opts.Logger.Warn("transaction failed unexpectedly, applying each change alone", "error", err)
		s.applyAlone(g.Parts)
		err = nil
	}
	s.recordOutcome(err)
	if err != nil {
		g.Fail(changeError(err), translate(err))
		return
	}
	g.Complete()
}

// changeError returns the error of a change whose transaction failed.
func changeError(err error) error {
	if errors.As(err, new(unknownOutcomeError)) {
		return user.NewOutcomeUnknownError()
	}
	return translate(err)
}

// applyAlone applies each change, atomic batch and job in a transaction of its own. Each gets its own error: others are
// committed.
func (s *Store) applyAlone(parts []part) {
	for _, p := range parts {
		if p.Job != nil || p.Batch.Atomic {
			if err := s.apply([]part{p}); err != nil {
				p.Err = changeError(err)
			}
			continue
		}
		for i := p.From; i < p.To; i++ {
			err := s.apply([]part{{Item: p.Item, From: i, To: i + 1}})
			if err == nil {
				continue
			}
			s.opts.Logger.Error("change failed", "error", err)
			p.Results[i] = user.Result{Err: changeError(err)}
		}
	}
}

// recordOutcome logs the first of a series of failed transactions, and the end of the series.
func (s *Store) recordOutcome(err error) {
	if err == nil {
		if s.failures > 0 {
			s.opts.Logger.Info("transactions succeed again", "failures", s.failures)
		}
		s.failures = 0
		return
	}
	if s.failures++; s.failures > 1 {
		return
	}
	s.opts.Logger.Error("transaction failed", "error", err)
	s.opts.OnWriteFailure()
}

// apply applies parts in one transaction. It tries again after a conflict with another transaction, and once after a
// connection was found broken before the commit.
func (s *Store) apply(parts []part) error {
	pause, broken, checkIDs := retryPause, 0, false
	for attempt := 1; ; attempt++ {
		err := s.attempt(parts, checkIDs)
		if err == nil || attempt == maxAttempts || s.closing.Err() != nil {
			return err
		}
		switch {
		case errors.As(err, new(unknownOutcomeError)):
			return err
		case isConflict(err):
			checkIDs = checkIDs || isSameID(err)
			time.Sleep(pause)
			pause *= 2
		case isDisconnect(err) && broken == 0:
			broken++ // the pool had a connection that was lost, and has others probably
			s.pool.Reset()
			s.writes.Reset()
		default:
			return err
		}
	}
}

// attempt applies parts in one transaction. With checkIDs the ids of new users are known to be unused before they are
// written: otherwise the unique index finds those that are in use, which is rare unless the clock stands still.
func (s *Store) attempt(parts []part, checkIDs bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), transactionTimeout)
	defer cancel()
	conn, err := s.writes.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // of a transaction that was not ended, it closes the connection
	t, err := s.load(ctx, conn.Conn(), s.clock.Now(), needsOf(parts))
	if err == nil && checkIDs {
		err = t.findIDs(parts)
	}
	if err == nil {
		err = s.injected(beforeDecide)
	}
	if err == nil {
		err = t.decide(parts)
	}
	if err != nil {
		return s.abort(ctx, conn.Conn(), err)
	}
	if len(t.before)+len(t.rows)+len(t.saved) == 0 && !t.wrote(parts) {
		if _, err = conn.Exec(ctx, "ROLLBACK"); err == nil {
			err = s.feed.reach(s.closing, t.head.Position) // the results have its position
		}
		return err
	}
	return s.commit(ctx, conn.Conn(), t, parts)
}

// abort rolls back and returns err.
func (s *Store) abort(ctx context.Context, conn *pgx.Conn, err error) error {
	if !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' {
		_, _ = conn.Exec(ctx, "ROLLBACK") // a failure closes the connection
	}
	return err
}

// commit writes and commits the transaction, and publishes it.
func (s *Store) commit(ctx context.Context, conn *pgx.Conn, t *tx, parts []part) error {
	s.feed.beginOwn(t.head.Position)
	start := time.Now()
	err := t.flush()
	if err == nil {
		err = s.injected(afterCommit)
	}
	if err != nil && !isRejected(err) {
		err = s.resolve(t.number, err) //nolint:contextcheck // the context may be that of the lost connection
	}
	if err != nil {
		s.feed.endOwn()
		return s.abort(ctx, conn, err)
	}
	if s.opts.OnCommit != nil && len(t.rows) > 0 {
		s.opts.OnCommit(CommitStats{Changes: changes(parts), Sync: time.Since(start)})
	}
	s.committed.Store(t.number)
	advance(&s.first, t.first)
	head := t.head
	head.Position = t.next - 1
	if len(t.rows) > 0 {
		head.Time = t.now
	}
	//nolint:contextcheck // results are returned after the publication
	s.feed.publishOwn(s.closing, t.head.Position, user.Commit{Head: head, Changes: t.committed})
	return nil
}

func changes(parts []part) (n int) {
	for _, p := range parts {
		n += p.To - p.From
	}
	return n
}

// wrote reports whether parts have jobs, which write by themselves.
func (t *tx) wrote(parts []part) bool {
	for _, p := range parts {
		if p.Job != nil {
			return true
		}
	}
	return false
}

// decide applies the changes of parts to the transaction. An error concerns the whole transaction.
func (t *tx) decide(parts []part) error {
	for _, p := range parts {
		p.Restart()
		switch {
		case p.Job != nil:
			if err := t.run(p.Job); err != nil {
				return err
			}
		case p.Batch.Atomic:
			t.atomic(p)
		default:
			for i := p.From; i < p.To; i++ {
				p.Results[i] = user.Result{}
				if err := t.change(p, i); err != nil {
					p.Results[i] = user.Result{Err: err}
				}
			}
		}
		if t.failure != nil {
			return t.failure
		}
	}
	return nil
}

// run runs a job after the changes before it were written. It may delete stored requests.
func (t *tx) run(job func(*tx) error) error {
	b := &pgx.Batch{}
	t.queue(b)
	if b.Len() > 0 {
		if err := t.conn.SendBatch(t.ctx, b).Close(); err != nil {
			return err
		}
	}
	clear(t.requests)
	return job(t)
}

// change applies a change. After an error it has no effect.
func (t *tx) change(p part, i int) error {
	before := t.mark()
	result := &p.Results[i]
	err := panics.Catch(func() (err error) {
		*result, err = decide.Change(t, &p.Batch.Changes[i], &p.Prepared[i])
		return err
	})
	if err == nil {
		p.Limit(result)
		return nil
	}
	t.rollback(before)
	if _, expected := user.AsError(err); !expected && t.failure == nil {
		t.store.opts.Logger.Error("change failed unexpectedly", "error", err, "stack", panics.Stack(err))
	}
	return err
}

// atomic applies an atomic batch.
func (t *tx) atomic(p part) {
	before := t.mark()
	for i := range p.Batch.Changes {
		if err := t.change(p, i); err != nil {
			t.rollback(before)
			p.Err = &user.ItemError{Index: i, Err: err}
			return
		}
	}
}

// unknownOutcomeError is the error of a commit that may be stored.
type unknownOutcomeError struct{ error }

// Unwrap returns the error of the commit.
func (e unknownOutcomeError) Unwrap() error { return e.error }

// errNotCommitted is the error of a transaction that is known not to be committed.
var errNotCommitted = errors.New("transaction was not committed")

// resolve finds the outcome of a transaction whose commit failed with cause. It returns nil if it was committed. With the
// lock of the counter row, which the transaction had, it is known to have ended. Its id in the database does not identify
// it: after a crash another transaction can get the same.
func (s *Store) resolve(number int64, cause error) error {
	ctx, cancel := context.WithTimeout(s.closing, outcomeTimeout)
	defer cancel()
	for pause := retryPause; ; pause = min(2*pause, time.Second) {
		last, err := s.lastCommitted(ctx)
		switch {
		case err != nil && ctx.Err() == nil: // the server may be starting
			s.opts.OnWriteFailure()
		case err != nil:
			return unknownOutcomeError{fmt.Errorf("commit: %w", cause)}
		case last == number:
			s.opts.Logger.Info("transaction was committed although its connection was lost", "error", cause)
			return nil
		default:
			return fmt.Errorf("%w: %w", errNotCommitted, cause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// lastCommitted returns the number of the last transaction that this process has committed, when none is in progress. It
// commits a write of its own after that transaction, so a synchronous standby has both.
func (s *Store) lastCommitted(ctx context.Context) (number int64, err error) {
	err = pgx.BeginFunc(ctx, s.writes, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, "SELECT FROM meta FOR UPDATE"); err != nil {
			return err
		}
		err := t.QueryRow(ctx, "UPDATE writers SET time = time WHERE process = $1 RETURNING number", s.process).Scan(&number)
		if errors.Is(err, pgx.ErrNoRows) {
			err = nil // it has committed none
		}
		return err
	})
	return number, err
}
