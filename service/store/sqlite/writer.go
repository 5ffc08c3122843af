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

const (
	// maxGroup bounds the work of one transaction, in units.
	maxGroup = 4096
	// turnUnits bounds the work of a caller in one transaction where others wait, too.
	turnUnits = 128
	// unitBytes is how much of a change is one unit of work. None is less.
	unitBytes = 2 << 10
)

// item is what waits for the writer: a batch, or a job of the store's own.
type item struct {
	ctx    context.Context //nolint:containedctx // a queued call, which its caller may give up
	caller string
	batch  user.Batch
	job    func(*writer) error
	end    func([]user.Result, error)
	weight int64 // of a batch in the queue

	// The writer's own.
	taken    int           // changes that are in a transaction or were
	results  []user.Result // of those taken
	err      error
	finished bool
}

// part is what one transaction carries out of an item: the changes from and up to, but for, to.
type part struct {
	it       *item
	from, to int
}

func (p part) last() bool { return p.to == len(p.it.batch.Changes) }

// group is what one transaction carries out.
type group struct {
	parts   []part
	units   map[string]int // by caller
	all     int            // units
	changes int
}

// Submit hands a batch in and returns at once, or when there is room in the queue. While
// the disk is stuck it refuses.
func (s *Store) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	pending, end := user.NewPending()
	it := &item{ctx: ctx, caller: user.CallerFromContext(ctx), batch: batch, end: end, weight: weigh(batch)}
	if err := s.enqueue(it); err != nil { //nolint:contextcheck // it has the context
		end(nil, err)
	}
	return pending
}

// do carries a job out in the writer's next transaction and waits for it.
func (s *Store) do(ctx context.Context, job func(*writer) error) error {
	pending, end := user.NewPending()
	if err := s.enqueue(&item{ctx: ctx, job: job, end: end}); err != nil { //nolint:contextcheck // it has the context
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
		if err := s.makeRoom(it); err != nil {
			return err
		}
	}
	s.queue.push(it)
	return nil
}

// write is the writer's goroutine: it carries out one group after the other, until the queue is
// closed and empty. Before each it lets others run once: those that got their results come back
// with their next change, which shares this sync then (with 8 callers that is 45 % more writes/s).
func (s *Store) write() {
	defer close(s.finished)
	g := &group{units: make(map[string]int)}
	for s.queue.wait() {
		runtime.Gosched()
		end := s.pace.begin()
		s.carryOut(g)
		s.checkpoint()
		end()
		clear(g.parts)
		clear(g.units)
		g.parts, g.all, g.changes = g.parts[:0], 0, 0
	}
}

// take adds a part to the group, and reports whether there was one. A group is one turn of each
// caller that waits; a caller that is alone has turns up to maxGroup. So what comes in while the
// transaction is open shares its sync, and a single change waits for a part of a large batch and
// not for its end.
func (s *Store) take(g *group) bool {
	for {
		it, others := s.queue.pop()
		if it == nil {
			return false
		}
		used, known := g.units[it.caller]
		shared := others || len(g.units) > 1 || len(g.units) == 1 && !known
		if g.all >= s.opts.maxGroup || shared && used >= s.opts.turnUnits {
			s.queue.putBack(it)
			return false
		}
		if s.dropped(it) {
			continue
		}
		p, units := it.next(min(s.opts.turnUnits, s.opts.maxGroup-g.all))
		g.parts = append(g.parts, p)
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
}

// next takes the next part of an item, of about so many units. All or nothing is one part.
func (it *item) next(most int) (p part, units int) {
	if it.results == nil {
		it.results = make([]user.Result, len(it.batch.Changes))
	}
	p.it, p.from, p.to = it, it.taken, it.taken
	for p.to < len(it.batch.Changes) && (units < most || it.batch.Atomic) {
		units += 1 + weighOp(it.batch.Changes[p.to].Op)/unitBytes
		p.to++
	}
	it.taken = p.to
	return p, max(1, units)
}

// dropped ends an item that is not to be carried out: its caller has gone, or the store takes no
// more writes.
func (s *Store) dropped(it *item) bool {
	why := context.Cause(it.ctx)
	if stopped := s.stopped.Load(); why == nil && stopped != nil {
		why = stopped.answer
	}
	if why == nil {
		return false
	}
	s.leaveQueue(it)
	it.fail(it.taken, why, why)
	return true
}

func (s *Store) leaveQueue(it *item) {
	if it.job == nil && it.weight > 0 {
		s.queue.release(it.caller, it.weight)
		it.weight = 0
	}
}

// carryOut carries a group out in one transaction. If something in it fails
// unexpectedly nothing of the transaction is kept, and the group is carried out once
// more, carefully: each change behind a savepoint of its own, so that only what is
// to blame fails.
func (s *Store) carryOut(g *group) {
	if !s.take(g) {
		return
	}
	err := s.transaction(g, false)
	if err != nil && s.ReadOnly() == nil && !ofStore(err) {
		s.opts.Logger.Warn("a change failed unexpectedly; its transaction is carried out again change by change", "error", err)
		err = s.transaction(g, true)
	}
	err = s.disk.lookCloser(err)
	s.noteOutcome(err)
	if err != nil {
		s.refuse(g, err)
		return
	}
	if planted(faultAckBeforeCommit) {
		return
	}
	g.complete()
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
	if s.opts.OnWriteFailure != nil {
		s.opts.OnWriteFailure()
	}
}

// refuse ends the items of a group whose transaction failed. What may yet take effect must not look
// refused to its callers; the store's own jobs rather hear why.
func (s *Store) refuse(g *group, err error) {
	why := forCallers(err)
	if stopped := s.stopped.Load(); stopped != nil {
		why = stopped.answer
	} else if isDamage(err) {
		why = user.NewStoreDamagedError()
	}
	fate := why // of the changes in the transaction
	if errors.As(err, new(unknownFateError)) {
		fate = user.NewOutcomeUnknownError()
	}
	for _, p := range g.parts {
		if p.it.finished {
			continue // an earlier part of it is in the group, too
		}
		if p.it.job != nil {
			p.it.finish(nil, why)
			continue
		}
		s.queue.remove(p.it)
		s.leaveQueue(p.it)
		p.it.fail(p.from, fate, why)
	}
}

// fail ends an item whose changes from from on have failed: those that were taken for one reason,
// those that were not for another. Earlier ones are committed, and keep their results.
func (it *item) fail(from int, taken, rest error) {
	if from == 0 {
		it.finish(nil, taken)
		return
	}
	for i := from; i < len(it.results); i++ {
		why := taken
		if i >= it.taken {
			why = rest
		}
		it.results[i] = user.Result{Err: why}
	}
	it.finish(it.results, nil)
}

func (it *item) finish(results []user.Result, err error) {
	it.finished = true
	it.end(results, err)
}

// complete ends the items whose last part is in the group.
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

// transaction carries the group out and commits it, with what comes in meanwhile; careful, it
// carries out the same parts once more. After an error nothing of it is kept.
func (s *Store) transaction(g *group, careful bool) error {
	w := s.writer
	if err := s.checkPlaces(); err != nil {
		return err
	}
	w.begin(s.clock.Now())
	if err := w.beginTransaction(); err != nil {
		return s.rollback(fmt.Errorf("begin: %w", err))
	}
	if err := s.carryOutParts(g, careful); err != nil {
		return s.rollback(err)
	}
	head, err := w.noteHead()
	if err != nil {
		return s.rollback(fmt.Errorf("note the head: %w", err))
	}
	if planted(faultPublishEarly) {
		s.publish(head, w.committed)
	}
	if planted(faultAckBeforeCommit) {
		g.complete()
		time.Sleep(plantedGap)
	}
	start := time.Now()
	if err := w.commit(); err != nil {
		err = fmt.Errorf("commit: %w", err)
		if losesData(err) {
			s.stopWrites(err, user.NewStoreReadOnlyError())
		}
		if !keptNothing(err) {
			err = unknownFateError{err}
		}
		return s.rollback(err)
	}
	took := time.Since(start)
	w.head = head
	s.head.Store(&head)
	if s.opts.OnCommit != nil && g.changes > 0 {
		s.opts.OnCommit(CommitStats{Changes: g.changes, Sync: took})
	}
	if !planted(faultPublishEarly) {
		s.publish(head, w.committed)
	}
	return nil
}

func (s *Store) carryOutParts(g *group, careful bool) error {
	s.heavy.acquire()
	defer s.heavy.release()
	for i := 0; i < len(g.parts); i++ {
		if err := s.writer.part(g.parts[i], careful); err != nil {
			return err
		}
		if !careful && i == len(g.parts)-1 {
			s.take(g)
		}
	}
	return nil
}

// checkPlaces stops writes where those of this transaction would go to a file that the
// next start does not find. It costs a few microseconds, a sync a hundred and more.
func (s *Store) checkPlaces() error {
	for i := range s.files {
		if err := s.files[i].check(); err != nil {
			s.stopWrites(err, user.NewStoreMovedError())
			return err
		}
	}
	if err := s.session.check(); err != nil {
		s.stopWrites(err, user.NewStoreMovedError())
		s.integrity.found(err)
		return err
	}
	return nil
}

func (s *Store) publish(head user.Head, committed []user.CommittedChange) {
	if s.observe != nil && len(committed) > 0 {
		s.observe(user.Commit{Head: head, Changes: committed})
	}
}

func (s *Store) rollback(err error) error {
	if isFailedSync(err) {
		s.stopWrites(err, user.NewStoreReadOnlyError())
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
			s.stopWrites(fmt.Errorf("checkpoint: %w", err), user.NewStoreReadOnlyError())
		}
	}
}
