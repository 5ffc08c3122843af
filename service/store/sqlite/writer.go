package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/user"
)

const (
	// maxGroup limits the work of one transaction, in units.
	maxGroup = 2000
	// turnUnits limits the work of a caller in one transaction until no other caller has written for
	// aloneAfter: others may come while a large transaction is applied or committed.
	turnUnits  = 128
	aloneAfter = time.Second
	// unitBytes is the size of a unit of work. A change is at least one unit.
	unitBytes = 2 << 10
)

// item is a batch or an internal job in the writer's queue.
type item struct {
	ctx    context.Context //nolint:containedctx // of the queued call
	caller string
	batch  user.Batch
	job    func(*writer) error
	end    func([]user.Result, error)
	weight int64     // of a batch in the queue
	tokens [][]token // of the users to be created, by change

	// Used by the writer goroutine only.
	taken     int           // number of changes already taken into a transaction
	results   []user.Result // of the changes taken
	userBytes int           // of the users in results
	err       error
	finished  bool
}

// part is the part of an item in one transaction: changes [from, to).
type part struct {
	it       *item
	from, to int
}

func (p part) last() bool { return p.to == len(p.it.batch.Changes) }

// group is the contents of one transaction.
type group struct {
	parts   []part
	units   map[string]int // by caller
	all     int            // total units
	changes int

	caller     string    // of the last batch, in this group or an earlier one
	alternated time.Time // when a batch of another caller than the one before was last taken
}

// alternates records the caller of a batch.
func (g *group) alternates(caller string) {
	if g.caller != "" && g.caller != caller {
		g.alternated = time.Now()
	}
	g.caller = caller
}

// limit returns the units that a caller may have in the group.
func (s *Store) limit(g *group, caller string, othersWait bool) int {
	_, inGroup := g.units[caller]
	if othersWait || len(g.units) > 1 || len(g.units) == 1 && !inGroup || time.Since(g.alternated) < aloneAfter {
		return s.opts.turnUnits
	}
	return s.opts.maxGroup
}

// Submit implements user.Store. It blocks while the queue is full, and fails while the writer is
// stalled.
func (s *Store) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	pending, end := user.NewPending()
	it := &item{ctx: ctx, caller: user.CallerFromContext(ctx), batch: batch, end: end, weight: weigh(batch)}
	if err := s.enqueue(it); err != nil { //nolint:contextcheck // it contains the context
		end(nil, err)
	}
	return pending
}

// do runs a job in the next transaction of the writer and waits for it.
func (s *Store) do(ctx context.Context, job func(*writer) error) error {
	pending, end := user.NewPending()
	if err := s.enqueue(&item{ctx: ctx, job: job, end: end}); err != nil { //nolint:contextcheck // it contains the context
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
		return user.NewStoreUnavailableError()
	}
	if it.job == nil {
		if err := s.admit(it); err != nil {
			return err
		}
		it.prepare()
	}
	s.queue.push(it)
	return nil
}

// prepare does the part of the work that needs no transaction on the goroutine of the caller.
func (it *item) prepare() {
	it.tokens = make([][]token, len(it.batch.Changes))
	for i := range it.batch.Changes {
		if op, ok := it.batch.Changes[i].Op.(*user.Create); ok {
			it.tokens[i] = createTokens(op)
		}
	}
}

// settleTime bounds how long a group waits for requests that wait for their turn to run.
const settleTime = 500 * time.Microsecond

// write is the writer goroutine. It applies groups until the queue is closed and empty. It yields
// before each group, so that callers that just got their results can submit their next change to
// it (45 % more writes/s with 8 callers).
func (s *Store) write() {
	defer close(s.finished)
	g := &group{units: make(map[string]int)}
	for s.queue.wait() {
		runtime.Gosched()
		if next := s.queue.next(); next != nil {
			fair.FromContext(next.ctx).Settle(settleTime)
		}
		end := s.stalls.begin()
		s.apply(g)
		s.checkpoint()
		end()
		clear(g.parts)
		clear(g.units)
		g.parts, g.all, g.changes = g.parts[:0], 0, 0
	}
}

// take adds the next part to the group, and reports whether there was one. A group has one turn of
// each waiting caller; a single caller has turns up to its limit. So changes that arrive while the
// transaction is open share its sync, and a single change waits for a part of a large batch only.
func (s *Store) take(g *group) bool {
	if g.all >= s.opts.maxGroup {
		return false
	}
	for range s.queue.callers() {
		it, others := s.queue.pop()
		if it == nil {
			return false
		}
		used := g.units[it.caller]
		if used >= s.limit(g, it.caller, others) {
			s.queue.putBack(it) // another caller may not have had its turn
			continue
		}
		if s.dropped(it) {
			continue
		}
		p, units := it.next(min(s.opts.turnUnits, s.opts.maxGroup-g.all))
		g.parts = append(g.parts, p)
		if it.job == nil {
			g.alternates(it.caller)
		}
		g.units[it.caller] = used + units
		g.all += units
		g.changes += p.to - p.from
		if p.last() {
			s.leaveQueue(it)
		} else {
			s.queue.putBack(it)
		}
		return true
	}
	return false
}

// next returns the next part of an item, of about limit units. An atomic batch is one part.
func (it *item) next(limit int) (p part, units int) {
	if it.results == nil {
		it.results = make([]user.Result, len(it.batch.Changes))
	}
	p.it, p.from, p.to = it, it.taken, it.taken
	for p.to < len(it.batch.Changes) && (units < limit || it.batch.Atomic) {
		units += 1 + weighOp(it.batch.Changes[p.to].Op)/unitBytes
		p.to++
	}
	it.taken = p.to
	return p, max(1, units)
}

// dropped completes an item with an error, and returns true, if its context has ended or writes
// have stopped.
func (s *Store) dropped(it *item) bool {
	err := context.Cause(it.ctx)
	if stopped := s.stopped.Load(); err == nil && stopped != nil {
		err = stopped.err
	}
	if err == nil {
		return false
	}
	s.leaveQueue(it)
	it.fail(it.taken, err, err)
	return true
}

func (s *Store) leaveQueue(it *item) {
	if it.job == nil && it.weight > 0 {
		s.queue.release(it.caller, it.weight)
		it.weight = 0
	}
}

// apply applies a group in one transaction. After an unexpected failure the transaction is rolled
// back and the group is retried with a savepoint for each change, so that only the failing change
// fails.
func (s *Store) apply(g *group) {
	if !s.take(g) {
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
	g.complete()
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
		s.integrity.recheck()
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
func (s *Store) fail(g *group, err error) {
	callerErr := translateForCaller(err)
	if stopped := s.stopped.Load(); stopped != nil {
		callerErr = stopped.err
	} else if isDamage(err) {
		callerErr = user.NewStoreDamagedError()
	}
	changeErr := callerErr // of the changes in the transaction
	if errors.As(err, new(unknownOutcomeError)) {
		changeErr = user.NewOutcomeUnknownError()
	}
	for _, p := range g.parts {
		if p.it.finished {
			continue // by an earlier part in the group
		}
		if p.it.job != nil {
			p.it.finish(nil, callerErr)
			continue
		}
		s.queue.remove(p.it)
		s.leaveQueue(p.it)
		p.it.fail(p.from, changeErr, callerErr)
	}
}

// fail completes an item. Changes before from are committed and keep their results; later ones that
// were taken fail with takenErr, the others with restErr.
func (it *item) fail(from int, takenErr, restErr error) {
	if from == 0 {
		it.finish(nil, takenErr)
		return
	}
	for i := from; i < len(it.results); i++ {
		err := takenErr
		if i >= it.taken {
			err = restErr
		}
		it.results[i] = user.Result{Err: err}
	}
	it.finish(it.results, nil)
}

func (it *item) finish(results []user.Result, err error) {
	it.finished = true
	it.end(results, err)
}

// complete completes the items whose last part is in the group.
func (g *group) complete() {
	for _, p := range g.parts {
		switch {
		case !p.last():
		case p.it.err != nil:
			p.it.finish(nil, p.it.err)
		default:
			p.it.finish(p.it.results, nil)
		}
	}
}

// transaction applies the group and commits it. Without savepoints it also takes items that arrive
// while the transaction is open. After an error the transaction is rolled back.
func (s *Store) transaction(g *group, savepoints bool) error {
	w := s.writer
	if err := s.checkFiles(); err != nil {
		return err
	}
	w.begin(s.clock.Now())
	if err := w.beginTransaction(); err != nil {
		for s.take(g) { // fail with this one, not each after a lock timeout of its own
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
		g.complete()
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
	if s.opts.OnCommit != nil && g.changes > 0 {
		s.opts.OnCommit(CommitStats{Changes: g.changes, Sync: duration})
	}
	s.publish(head, w.committed)
	s.cleanIf(unused)
	return nil
}

func (s *Store) applyParts(g *group, savepoints bool) error {
	s.heavy.acquire(commits)
	defer s.heavy.release()
	for i := 0; i < len(g.parts); i++ {
		if err := s.writer.applyPart(g.parts[i], savepoints); err != nil {
			return err
		}
		if !savepoints && i == len(g.parts)-1 {
			s.take(g)
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
