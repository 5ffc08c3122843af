package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	driverpkg "modernc.org/sqlite"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

// checkpointPages is the number of pages written between checkpoints: 16 MiB.
const checkpointPages = 4096

// writer is the read-write connection with the state of its transaction. Only the writer
// goroutine uses it.
type writer struct {
	store *Store
	conn  *conn

	beginImmediate, rollbackAll                      *stmt
	setHead, countCommit, totalChanges               *stmt
	commitAll                                        *stmt
	savepoint, releaseSavepoint, rollbackToSavepoint *stmt
	walCheckpoint                                    *stmt

	getUser, getKeys, getByName, getByEmail *stmt
	insertUser, updateUser, updateUserFully *stmt
	deleteUser, rowRange                    *stmt
	sharedUsers                             sharedUsers

	log         rowWriter
	requests    requestWriter
	index       indexWriter
	firstUnused *stmt

	commit       func() error // commitAll; replaced in tests
	checkpointed int          // pages written before the last checkpoint

	// State of the transaction.
	head      user.Head // before the transaction
	now       time.Time // time of its rows
	clock     time.Time // best known time
	due       time.Time // earliest possible time
	next      int64     // position of the next row
	committed []user.CommittedChange
	changes   int64 // total_changes() before the transaction
	done      int   // changes applied since the start
}

func newWriter(ctx context.Context, s *Store) (*writer, error) {
	secureDelete := "secure_delete(ON)" // a purge leaves no data in free space
	if s.opts.keepDeleted {
		secureDelete = "secure_delete(OFF)"
	}
	c, err := connect(ctx, dsn(s.opts.Path, writerCacheKiB, fmt.Sprintf("journal_size_limit(%d)", journalSizeLimit), secureDelete))
	if err != nil {
		return nil, err
	}
	w := &writer{store: s, conn: c}
	w.prepareTransaction(&err)
	w.prepareUsers(&err)
	w.index.keepEntries = s.opts.keepEntries
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	w.commit = func() error { return w.commitAll.exec() }
	return w, nil
}

func (w *writer) prepareTransaction(err *error) {
	c := w.conn
	w.beginImmediate = c.prepare(err, "BEGIN IMMEDIATE")
	w.commitAll = c.prepare(err, "COMMIT")
	w.rollbackAll = c.prepare(err, "ROLLBACK")
	w.savepoint = c.prepare(err, "SAVEPOINT point")
	w.releaseSavepoint = c.prepare(err, "RELEASE point")
	w.rollbackToSavepoint = c.prepare(err, "ROLLBACK TO point")
	w.setHead = c.prepare(err, "UPDATE meta SET position = ?, time = ?, commits = commits + 1")
	w.countCommit = c.prepare(err, "UPDATE meta SET commits = commits + 1")
	w.totalChanges = c.prepare(err, "SELECT total_changes()")
	w.walCheckpoint = c.prepare(err, "PRAGMA wal_checkpoint(PASSIVE)")
	w.log = newRowWriter(err, c, "INSERT INTO", "log", logColumns)
	w.rowRange = c.prepare(err, "SELECT "+logColumns+" FROM log WHERE position >= ? AND position < ? ORDER BY position")
	w.sharedUsers = newSharedUsers(err, c)
	w.requests = newRequestWriter(err, c)
}

func (w *writer) prepareUsers(err *error) {
	c := w.conn
	w.getUser = c.prepare(err, "SELECT "+userColumns+" FROM users WHERE user_id = ?")
	w.getByName = c.prepare(err, "SELECT "+userColumns+" FROM users WHERE username_key = ?")
	w.getByEmail = c.prepare(err, "SELECT "+userColumns+" FROM users WHERE email_key = ?")
	w.insertUser = c.prepare(err, "INSERT INTO users ("+userColumns+", username_key, email_key) "+
		"VALUES (?, ?"+strings.Repeat(", ?", userColumnCount)+")")
	w.updateUser = c.prepare(err, "UPDATE users SET "+assignments(updateColumns)+" WHERE user_id = ?")
	w.updateUserFully = c.prepare(err, "UPDATE users SET "+assignments(allUpdateColumns)+
		", username_key = coalesce(?, username_key), email_key = coalesce(?, email_key) WHERE user_id = ?")
	w.deleteUser = c.prepare(err, "DELETE FROM users WHERE user_id = ?")
	w.getKeys = c.prepare(err, "SELECT username_key, email_key FROM users WHERE user_id = ?")
	w.firstUnused = c.prepare(err, "SELECT min(user_id) FROM unused_terms")
	w.index = newIndexWriter(err, c)
}

func (w *writer) start(head user.Head) { w.head = head }

// begin sets the state for a new transaction. Its time is not before that of the last row.
func (w *writer) begin(at clock.Times) {
	w.clock, w.due = user.Truncate(at.Best), user.Truncate(at.Earliest)
	w.now = w.clock
	if w.now.Before(w.head.Time) {
		w.now = w.head.Time
	}
	w.next, w.committed, w.index.changes = w.head.Position+1, nil, nil
	w.log.drop()
	w.requests.drop()
}

func (w *writer) beginTransaction() (err error) {
	if err := w.beginImmediate.exec(); err != nil {
		return err
	}
	w.changes, _, err = w.totalChanges.number()
	return err
}

// writeHead writes the new head and the commit count to the meta table, unless the
// transaction has written nothing.
func (w *writer) writeHead() (user.Head, error) {
	head := w.head
	if w.next > head.Position+1 {
		head.Position, head.Time = w.next-1, w.now
		return head, w.setHead.exec(head.Position, head.Time.UnixMicro())
	}
	if changes, _, err := w.totalChanges.number(); err != nil || changes == w.changes {
		return head, err
	}
	return head, w.countCommit.exec()
}

// pagesWritten returns the number of pages that the connection has written to the WAL.
func (w *writer) pagesWritten() (int, error) {
	status, ok := w.conn.raw.(driverpkg.DBStatus)
	if !ok {
		return 0, errors.New("SQLite driver: DBStatus not supported")
	}
	n, _, err := status.Status(driverpkg.DBStatusCacheWrite, false)
	return n, err
}

// applyPart applies a part of an item. After an error the transaction must be rolled back. With
// savepoints, each change has a savepoint, and an unexpected error fails that change only.
func (w *writer) applyPart(g *writeGroup, p part, savepoints bool) error {
	if savepoints || p.From == 0 {
		p.Restart()
	}
	p.Err = nil
	switch {
	case p.Job != nil:
		w.store.heavy.release() // the job may block
		defer w.store.heavy.acquire(commits)
		return w.runStep(savepoints, &p.Err, func() error { return p.Job(w) })
	case p.Batch.Atomic:
		return w.applyAtomic(p, savepoints)
	}
	if !savepoints {
		if err := w.requests.load(p.Batch.Changes[p.From:p.To]); err != nil {
			return err
		}
	}
	for i := p.From; i < p.To; i++ {
		w.yield()
		result := &p.Results[i]
		*result = user.Result{}
		err := w.runStep(savepoints, &result.Err, func() (err error) {
			*result, err = decide.Change(w, &p.Batch.Changes[i], &p.Prepared[i])
			return err
		})
		if err != nil {
			return err
		}
		if result.Err != nil {
			*result = user.Result{Err: result.Err}
		}
		p.Limit(result)
		if !savepoints && g.Cut(i+1) {
			break
		}
	}
	return w.flushRows()
}

// flushRows writes the rows of tables that are not written yet. A part, and a step with a savepoint, ends with it.
func (w *writer) flushRows() error {
	if err := w.log.flush(); err != nil {
		return fmt.Errorf("append rows: %w", err)
	}
	return w.requests.flush()
}

// yield yields the processor to scans after each turn of changes.
func (w *writer) yield() {
	if w.done++; w.done%group.TurnUnits == 0 {
		w.store.heavy.release()
		w.store.heavy.yield()
		w.store.heavy.acquire(commits)
	}
}

// runStep runs step and stores an expected error in *failure. It returns an unexpected error
// or, with savepoints, rolls back the step and stores the error in *failure too.
func (w *writer) runStep(savepoints bool, failure *error, step func() error) error {
	if savepoints {
		if err := w.savepoint.exec(); err != nil {
			return err
		}
	}
	before := w.mark()
	err := panics.Catch(func() error {
		if err := step(); err != nil || !savepoints {
			return err
		}
		return w.flushRows()
	})
	_, expected := user.AsError(err)
	if err == nil || expected {
		*failure = err
		if savepoints {
			return w.releaseSavepoint.exec()
		}
		return nil
	}
	if !savepoints || isStoreError(err) {
		return err
	}
	w.store.opts.Logger.Error("change failed unexpectedly", "error", err, "stack", panics.Stack(err))
	*failure = err
	return w.rollbackTo(before)
}

// savepointMark is the state of the transaction at a savepoint.
type savepointMark struct {
	next               int64
	committed, indexed int
}

func (w *writer) mark() savepointMark {
	return savepointMark{w.next, len(w.committed), len(w.index.changes)}
}

// rollbackTo rolls back to the savepoint.
func (w *writer) rollbackTo(m savepointMark) error {
	w.next, w.committed, w.index.changes = m.next, w.committed[:m.committed], w.index.changes[:m.indexed]
	w.log.drop()
	w.requests.drop()
	if err := w.rollbackToSavepoint.exec(); err != nil {
		return err
	}
	return w.releaseSavepoint.exec()
}

// applyAtomic applies an atomic batch.
func (w *writer) applyAtomic(p part, savepoints bool) error {
	if err := w.savepoint.exec(); err != nil {
		return err
	}
	before := w.mark()
	if err := w.requests.load(p.Batch.Changes); err != nil {
		return err
	}
	for i := range p.Batch.Changes {
		w.yield()
		err := panics.Catch(func() (err error) {
			p.Results[i], err = decide.Change(w, &p.Batch.Changes[i], &p.Prepared[i])
			return err
		})
		if err == nil {
			p.Limit(&p.Results[i])
			continue
		}
		if _, expected := user.AsError(err); !expected {
			if !savepoints || isStoreError(err) {
				return err
			}
			w.store.opts.Logger.Error("change failed unexpectedly", "error", err, "stack", panics.Stack(err))
		}
		p.Err = &user.ItemError{Index: i, Err: err}
		return w.rollbackTo(before)
	}
	if err := w.flushRows(); err != nil {
		return err
	}
	return w.releaseSavepoint.exec()
}
