package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

// A writeGroup is the contents of one transaction, a part that of an item in it.
type (
	writeGroup = group.Group[*writer]
	part       = group.Part[*writer]
)

// Submit implements user.Store.
func (s *Store) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	return s.queue.Submit(ctx, batch)
}

// stopError is the error of writes after they have stopped, else nil.
func (s *Store) stopError() error {
	if stopped := s.stopped.Load(); stopped != nil {
		return stopped.err
	}
	return nil
}

// write applies a group, and then checkpoints the write-ahead log.
func (s *Store) write(g *writeGroup) {
	s.apply(g)
	s.checkpoint()
}

// apply applies a group in one transaction. After an unexpected failure the transaction is rolled
// back and the group is retried with a savepoint for each change, so that only the failing change
// fails.
func (s *Store) apply(g *writeGroup) {
	if !g.Take() {
		return
	}
	err := s.transaction(g, false)
	if err != nil && s.ReadOnly() == nil && !isStoreError(err) {
		s.opts.Logger.Warn("transaction failed unexpectedly, retrying with savepoints", "error", err)
		err = s.transaction(g, true)
	}
	err = s.disk.diagnose(err)
	s.recordOutcome(err)
	if err != nil {
		s.fail(g, err)
		return
	}
	if planted(ackBeforeCommit) {
		return
	}
	g.Complete()
}

// recordOutcome logs a failed transaction. In a series of failures with the same error, as on a full
// disk, it logs only the first one and the end of the series.
func (s *Store) recordOutcome(err error) {
	if err == nil {
		if failed := s.failures.end(); failed > 0 {
			s.opts.Logger.Info("transactions succeed again", "failures", failed)
		}
		return
	}
	if isDamage(err) {
		s.integrity.report(err)
	}
	if s.failures.add(err) {
		s.opts.Logger.Error("transaction failed", "error", err)
		s.notifyWriteFailure()
	}
}

func (s *Store) notifyWriteFailure() {
	if s.opts.OnWriteFailure != nil {
		s.opts.OnWriteFailure()
	}
}

// fail completes the items of a group whose transaction failed. If the outcome of the commit is
// unknown, the changes in it fail with an error that says so; jobs still get the translated error.
func (s *Store) fail(g *writeGroup, err error) {
	callerErr := translateForCaller(err)
	if stopped := s.stopError(); stopped != nil {
		callerErr = stopped
	} else if isDamage(err) {
		callerErr = user.NewStoreDamagedError()
	}
	changeErr := callerErr // of the changes in the transaction
	if errors.As(err, new(unknownOutcomeError)) {
		changeErr = user.NewOutcomeUnknownError()
	}
	g.Fail(changeErr, callerErr)
}

// transaction applies the group and commits it. Without savepoints it also takes items that arrive
// while the transaction is open. After an error the transaction is rolled back.
func (s *Store) transaction(g *writeGroup, savepoints bool) error {
	w := s.writer
	if err := s.checkFiles(); err != nil {
		return err
	}
	w.begin(s.clock.Now())
	defer s.users.endTransaction()
	if err := w.beginTransaction(); err != nil {
		for g.Take() { // fail with this one, not each after a lock timeout of its own
		}
		return s.rollback(fmt.Errorf("begin: %w", err))
	}
	if err := s.applyParts(g, savepoints); err != nil {
		return s.rollback(err)
	}
	unused, err := w.index.flush()
	if err != nil {
		return s.rollback(fmt.Errorf("write index: %w", err))
	}
	head, err := w.writeHead()
	if err != nil {
		return s.rollback(fmt.Errorf("write head: %w", err))
	}
	if planted(ackBeforeCommit) {
		g.Complete()
		time.Sleep(plantedGap)
	}
	start := time.Now()
	if err := w.commit(); err != nil {
		err = fmt.Errorf("commit: %w", err)
		if unknownDiskState(err) {
			s.stopWrites(err, user.NewStoreReadOnlyError())
		}
		if !notCommitted(err) {
			err = unknownOutcomeError{err}
		}
		return s.rollback(err)
	}
	duration := time.Since(start)
	w.head = head
	s.head.Store(&head)
	if s.opts.OnCommit != nil && g.Changes > 0 {
		s.opts.OnCommit(CommitStats{Changes: g.Changes, Sync: duration})
	}
	s.publish(head, w.committed)
	s.cleanIf(unused)
	return nil
}

func (s *Store) applyParts(g *writeGroup, savepoints bool) error {
	s.heavy.acquire(commits)
	defer s.heavy.release()
	for i := 0; i < len(g.Parts); i++ {
		if err := s.writer.applyPart(g, g.Parts[i], savepoints); err != nil {
			return err
		}
		if !savepoints && i == len(g.Parts)-1 {
			g.Take()
		}
	}
	return nil
}

// checkFiles stops writes if the database files were removed, replaced or overwritten, because
// further writes would be lost. It takes a few microseconds.
func (s *Store) checkFiles() error {
	for i := range s.files {
		if err := s.files[i].check(); err != nil {
			s.stopWrites(err, user.NewStoreMovedError())
			return err
		}
	}
	if err := s.session.check(); err != nil {
		s.stopWrites(err, user.NewStoreMovedError())
		s.integrity.setDamage(err)
		return err
	}
	return nil
}

// publish notifies the observer of changes. Transactions without changes may run before Observe, which is not
// synchronized with them.
func (s *Store) publish(head user.Head, committed []user.CommittedChange) {
	if len(committed) > 0 && s.observe != nil {
		s.observe(user.Commit{Head: head, Changes: committed})
	}
}

func (s *Store) rollback(err error) error {
	if isFailedSync(err) {
		s.stopWrites(err, user.NewStoreReadOnlyError())
	}
	// SQLite rolls back automatically after some errors; ROLLBACK then returns SQLITE_ERROR.
	if failure := s.writer.rollbackAll.exec(); failure != nil && code(failure)&0xff != codes.SQLITE_ERROR {
		err = errors.Join(err, fmt.Errorf("rollback: %w", failure))
	}
	return err
}

// stopWrites makes the store read-only until it is opened again.
func (s *Store) stopWrites(cause error, callerErr *user.Error) {
	if s.stopped.CompareAndSwap(nil, &stopped{cause, callerErr}) {
		s.opts.Logger.Error("store is read-only until restart", "error", cause)
		s.notifyWriteFailure()
	}
}

// checkpoint checkpoints the write-ahead log after checkpointPages pages. It runs after the results
// of a group are returned, and not as SQLite's automatic checkpoint, which ignores errors.
func (s *Store) checkpoint() {
	w := s.writer
	pages, err := w.pagesWritten()
	if s.ReadOnly() != nil || err != nil || pages-w.checkpointed < checkpointPages {
		return
	}
	w.checkpointed = pages
	if _, err := w.walCheckpoint.one(); err != nil {
		s.opts.Logger.Error("WAL checkpoint failed", "error", err)
		if unknownDiskState(err) {
			s.stopWrites(fmt.Errorf("checkpoint: %w", err), user.NewStoreReadOnlyError())
		}
	}
}
