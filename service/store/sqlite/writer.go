package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/user"
)

// maxGroup bounds the changes of one transaction, so that nobody waits long.
const maxGroup = 4096

// item is what waits for the writer: a batch, or a job of the store's own.
type item struct {
	ctx     context.Context //nolint:containedctx // a queued call, which its caller may give up
	batch   user.Batch
	job     func(*writer) error
	end     func([]user.Result, error)
	weight  int64 // of a batch in the queue
	results []user.Result
	err     error
}

func (it *item) size() int { return max(1, len(it.batch.Changes)) }

// Submit hands a batch in and returns at once, or when there is room in the queue. While
// the disk is stuck it refuses.
func (s *Store) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	pending, end := user.NewPending()
	if err := s.enqueue(&item{ctx: ctx, batch: batch, end: end, weight: weigh(batch)}); err != nil {
		end(nil, err)
	}
	return pending
}

// do carries a job out in the writer's next transaction and waits for it.
func (s *Store) do(ctx context.Context, job func(*writer) error) error {
	pending, end := user.NewPending()
	if err := s.enqueue(&item{ctx: ctx, job: job, end: end}); err != nil {
		return err
	}
	_, err := pending.Wait(ctx)
	return err
}

func (s *Store) enqueue(it *item) error {
	if err := it.ctx.Err(); err != nil {
		return context.Cause(it.ctx)
	}
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return user.ErrStoreUnavailable()
	}
	if it.job == nil {
		if err := s.makeRoom(it.ctx, it.weight); err != nil {
			return err
		}
	}
	select {
	case s.queue <- it:
		return nil
	case <-it.ctx.Done():
		s.room.Release(it.weight)
		return context.Cause(it.ctx)
	}
}

// write is the writer's goroutine: it takes what waits as one group, until the
// queue is closed and empty.
func (s *Store) write() {
	defer close(s.finished)
	var group []*item
	for first := range s.queue {
		group = s.gather(append(group[:0], first))
		weight := int64(0)
		for _, it := range group {
			weight += it.weight
		}
		s.room.Release(weight)
		end := s.pace.begin()
		s.carryOut(group)
		s.checkpoint()
		end()
		clear(group)
	}
}

// gather adds to the group what else is waiting, and waits for nothing itself. It
// lets others run once: those who were just answered come back with their next
// change, which shares this sync then (with 8 callers that is 45 % more writes/s).
func (s *Store) gather(group []*item) []*item {
	runtime.Gosched()
	for size := group[0].size(); size < maxGroup; {
		select {
		case it, ok := <-s.queue:
			if !ok {
				return group
			}
			group = append(group, it)
			size += it.size()
		default:
			return group
		}
	}
	return group
}

// carryOut carries a group out in one transaction. If something in it fails
// unexpectedly nothing of the transaction is kept, and the group is carried out once
// more, carefully: each change behind a savepoint of its own, so that only what is
// to blame fails.
func (s *Store) carryOut(group []*item) {
	group = s.dropEnded(group)
	if len(group) == 0 {
		return
	}
	if why := s.stopped.Load(); why != nil {
		endAll(group, why.answer)
		return
	}
	err := s.transaction(group, false)
	if err != nil && s.ReadOnly() == nil && !ofStore(err) {
		s.opts.Logger.Warn("a change failed unexpectedly; its transaction is carried out again change by change", "error", err)
		err = s.transaction(group, true)
	}
	err = s.disk.lookCloser(err)
	s.noteOutcome(err)
	if err != nil {
		s.refuse(group, err)
		return
	}
	if planted(faultAckBeforeCommit) {
		return
	}
	answerAll(group)
}

// noteOutcome logs the failure of a transaction. While one follows the other for the
// same reason, as on a full disk, only the first is logged, and the end of it all.
func (s *Store) noteOutcome(err error) {
	if err == nil {
		if failed := s.trouble.ends(); failed > 0 {
			s.opts.Logger.Info("transactions succeed again", "failed", failed)
		}
		return
	}
	if isDamage(err) {
		s.integrity.suspected()
	}
	if s.trouble.begins(err) {
		s.opts.Logger.Error("a transaction failed", "error", err)
		s.inTrouble()
	}
}

func (s *Store) inTrouble() {
	if s.opts.OnTrouble != nil {
		s.opts.OnTrouble()
	}
}

// dropEnded ends the items whose callers have gone.
func (s *Store) dropEnded(group []*item) []*item {
	kept := group[:0]
	for _, it := range group {
		if it.ctx.Err() != nil {
			it.end(nil, context.Cause(it.ctx))
			continue
		}
		kept = append(kept, it)
	}
	return kept
}

// refuse ends a group whose transaction failed. What may yet take effect must not look
// refused to its callers; the store's own jobs rather hear why.
func (s *Store) refuse(group []*item, err error) {
	why := forCallers(err)
	if stopped := s.stopped.Load(); stopped != nil {
		why = stopped.answer
	} else if isDamage(err) {
		why = user.ErrStoreDamaged()
	}
	unknown := errors.As(err, new(unknownFateError))
	for _, it := range group {
		if unknown && it.job == nil {
			it.end(nil, user.ErrStoreUnknown())
		} else {
			it.end(nil, why)
		}
	}
}

func endAll(group []*item, err error) {
	for _, it := range group {
		it.end(nil, err)
	}
}

func answerAll(group []*item) {
	for _, it := range group {
		it.end(it.results, it.err)
	}
}

// transaction carries the group out and commits it. After an error nothing of it
// is kept.
func (s *Store) transaction(group []*item, careful bool) error {
	w := s.writer
	if err := s.checkPlaces(); err != nil {
		return err
	}
	w.begin(s.clock.Now())
	if err := w.beginTransaction(); err != nil {
		return s.rollback(fmt.Errorf("begin: %w", err))
	}
	changes := 0
	for _, it := range group {
		if err := w.item(it, careful); err != nil {
			return s.rollback(err)
		}
		changes += len(it.batch.Changes)
	}
	head, err := w.noteHead()
	if err != nil {
		return s.rollback(fmt.Errorf("note the head: %w", err))
	}
	if planted(faultPublishEarly) {
		s.publish(head, w.committed)
	}
	if planted(faultAckBeforeCommit) {
		answerAll(group)
		time.Sleep(plantedGap)
	}
	start := time.Now()
	if err := w.commit(); err != nil {
		err = fmt.Errorf("commit: %w", err)
		if losesData(err) {
			s.stopWrites(err, user.ErrStoreReadOnly())
		}
		if !keptNothing(err) {
			err = unknownFateError{err}
		}
		return s.rollback(err)
	}
	took := time.Since(start)
	w.head = head
	s.head.Store(&head)
	if s.opts.OnCommit != nil && changes > 0 {
		s.opts.OnCommit(CommitStats{Changes: changes, Sync: took})
	}
	if !planted(faultPublishEarly) {
		s.publish(head, w.committed)
	}
	return nil
}

// checkPlaces stops writes where those of this transaction would go to a file that the
// next start does not find. It costs a few microseconds, a sync a hundred and more.
func (s *Store) checkPlaces() error {
	for i := range s.places {
		if err := s.places[i].check(); err != nil {
			s.stopWrites(err, user.ErrStoreMoved())
			return err
		}
	}
	return nil
}

func (s *Store) publish(head user.Head, committed []user.Committed) {
	if s.observe != nil && len(committed) > 0 {
		s.observe(user.Commit{Head: head, Changes: committed})
	}
}

func (s *Store) rollback(err error) error {
	if isFailedSync(err) {
		s.stopWrites(err, user.ErrStoreReadOnly())
	}
	// After some errors SQLite has rolled back by itself, and says so with an error.
	if failure := s.writer.rollbackAll.exec(); failure != nil && code(failure)&0xff != codes.SQLITE_ERROR {
		err = errors.Join(err, fmt.Errorf("roll back: %w", failure))
	}
	return err
}

// stopWrites makes the store read only until it is opened again.
func (s *Store) stopWrites(err error, answer *user.Error) {
	if s.stopped.CompareAndSwap(nil, &stopped{err, answer}) {
		s.opts.Logger.Error("the store takes no more writes until the program is started anew", "error", err)
		s.inTrouble()
	}
}

// checkpoint copies the write-ahead log into the database once it has grown. It runs
// after the answers of a group, so nobody waits for it but the next group, and here
// rather than within a commit, where SQLite would keep its failure to itself.
func (s *Store) checkpoint() {
	w := s.writer
	pages, err := w.pagesWritten()
	if s.ReadOnly() != nil || err != nil || pages-w.checkpointed < checkpointPages {
		return
	}
	w.checkpointed = pages
	if _, err := w.walCheckpoint.one(); err != nil {
		s.opts.Logger.Error("the write-ahead log cannot be copied into the database", "error", err)
		if losesData(err) {
			s.stopWrites(fmt.Errorf("checkpoint: %w", err), user.ErrStoreReadOnly())
		}
	}
}
