// Package group implements the queue of a store's writer, and the groups that it forms: a group is the contents of one
// transaction (group commit). Callers are served round-robin; a full queue blocks them, and a stalled writer rejects them.
package group

import (
	"context"
	"time"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/user"
)

// Item is a batch or a job. Its fields are used by the writer only.
type Item[T any] struct {
	Caller  string
	Batch   user.Batch
	Job     func(T) error // nil: a batch
	Results []user.Result // of the changes taken
	// UserBytes is the size of the users in Results.
	UserBytes int
	Err       error // of the job, or of an atomic batch
	// Prepared is the prepared part of each change.
	Prepared []decide.Prepared

	ctx      context.Context //nolint:containedctx // of the queued call
	end      func([]user.Result, error)
	weight   int64 // of a batch in the queue
	taken    int   // number of changes taken into a transaction
	finished bool

	bytes     int // size of the users of the changes applied
	partBytes int // of them, those of its last part
}

// prepare does the part of the work that needs no transaction on the goroutine of the caller.
func (it *Item[T]) prepare(prepare func(*user.Change) decide.Prepared) {
	it.Prepared = make([]decide.Prepared, len(it.Batch.Changes))
	for i := range it.Batch.Changes {
		it.Prepared[i] = prepare(&it.Batch.Changes[i])
	}
}

// Part is the part of an item in one transaction: changes [From, To).
type Part[T any] struct {
	*Item[T]

	From, To int

	units int // for which it was taken
}

func (p Part[T]) last() bool { return p.To == len(p.Batch.Changes) }

// Limit adds the size of the user of a result to the work of the item, and limits the users in its results. Stores call it
// for each result.
func (p Part[T]) Limit(r *user.Result) {
	if r.User != nil {
		size := r.User.Size()
		p.bytes += size
		p.partBytes += size
	}
	r.LimitUser(&p.UserBytes, p.Batch.MaxUserBytes)
}

// Restart sets the state of the item as of the start of the part, so that the part can be applied again.
func (p Part[T]) Restart() {
	p.Err, p.UserBytes = nil, 0
	for i := range p.Results[:p.From] {
		if u := p.Results[i].User; u != nil {
			p.UserBytes += u.Size()
		}
	}
}

// Group is the contents of one transaction.
type Group[T any] struct {
	Parts   []Part[T]
	Changes int

	queue *Queue[T]
	units map[string]int // by caller
	all   int            // total units

	caller     string    // of the last batch, in this group or an earlier one
	alternated time.Time // when a batch of another caller than the one before was last taken
}

func (g *Group[T]) reset() {
	clear(g.Parts)
	clear(g.units)
	g.Parts, g.all, g.Changes = g.Parts[:0], 0, 0
}

// alternates records the caller of a batch.
func (g *Group[T]) alternates(caller string) {
	if g.caller != "" && g.caller != caller {
		g.alternated = time.Now()
	}
	g.caller = caller
}

// limit returns the units that a caller may have in the group.
func (g *Group[T]) limit(othersWait bool) int {
	if othersWait || len(g.units) > 1 || time.Since(g.alternated) < aloneAfter {
		return g.queue.opts.TurnUnits
	}
	return g.queue.opts.MaxUnits
}

// Take adds the next part to the group, and reports whether there was one. A group has one turn of
// each waiting caller; a single caller has turns up to its limit. So changes that arrive while the
// transaction is open share its sync, and a single change waits for a part of a large batch only.
func (g *Group[T]) Take() bool {
	q := g.queue
	g.charge()
	if g.all >= q.opts.MaxUnits {
		return false
	}
	for range q.callers() {
		it, others := q.pop()
		if it == nil {
			return false
		}
		used := g.units[it.Caller]
		if used >= g.limit(others) {
			q.putBack(it) // another caller may not have had its turn
			continue
		}
		if q.dropped(it) {
			continue
		}
		p, units := it.next(min(q.opts.TurnUnits, q.opts.MaxUnits-g.all))
		g.Parts = append(g.Parts, p)
		if it.Job == nil {
			g.alternates(it.Caller)
		}
		g.units[it.Caller] = used + units
		g.all += units
		g.Changes += p.To - p.From
		if p.last() {
			q.release(it)
		} else {
			q.putBack(it)
		}
		return true
	}
	return false
}

// charge adds the size of the users in the last part, which is known when they have been read, to the units of its caller.
// The group stays open for other callers.
func (g *Group[T]) charge() {
	if len(g.Parts) == 0 {
		return
	}
	p := g.Parts[len(g.Parts)-1]
	g.units[p.Caller] += max(0, p.partBytes/unitBytes-p.units)
	p.partBytes = 0
}

// Cut ends the last part, which is not of an atomic batch, before its change to, if the users of the changes before are as
// large as a turn. It reports whether it did. The rest of the part is queued again.
func (g *Group[T]) Cut(to int) bool {
	p := &g.Parts[len(g.Parts)-1]
	if to == p.To || p.partBytes < g.queue.opts.TurnUnits*unitBytes {
		return false
	}
	last := p.last()
	g.Changes -= p.To - to
	p.To, p.taken = to, to
	if last {
		g.queue.putBack(p.Item)
	}
	return true
}

// next returns the next part of an item, of about limit units. An atomic batch is one part.
func (it *Item[T]) next(limit int) (p Part[T], units int) {
	if it.Results == nil {
		it.Results = make([]user.Result, len(it.Batch.Changes))
	}
	p.Item, p.From, p.To = it, it.taken, it.taken
	it.partBytes = 0
	each := it.bytes / unitBytes / max(1, it.taken)
	for p.To < len(it.Batch.Changes) && (units < limit || it.Batch.Atomic) {
		units += max(1+weighOp(it.Batch.Changes[p.To].Op)/unitBytes, each)
		p.To++
	}
	it.taken = p.To
	p.units = max(1, units)
	return p, p.units
}

// dropped completes an item with an error, and returns true, if its context has ended or writes
// have stopped.
func (q *Queue[T]) dropped(it *Item[T]) bool {
	err := context.Cause(it.ctx)
	if err == nil && q.opts.Stopped != nil {
		err = q.opts.Stopped()
	}
	if err == nil {
		return false
	}
	q.release(it)
	it.fail(it.taken, err, err)
	return true
}

// Complete completes the items whose last part is in the group.
func (g *Group[T]) Complete() {
	g.queue.inFlight = g.queue.length()
	for _, p := range g.Parts {
		if p.last() && p.Job == nil {
			g.queue.inFlight++
		}
	}
	for _, p := range g.Parts {
		switch {
		case !p.last():
		case p.Err != nil:
			p.finish(nil, p.Err)
		default:
			p.finish(p.Results, nil)
		}
	}
}

// Fail completes the items of a group whose transaction failed. The changes in it fail with changeErr, jobs and the
// changes that were not taken with restErr.
func (g *Group[T]) Fail(changeErr, restErr error) {
	for _, p := range g.Parts {
		switch {
		case p.finished: // by an earlier part in the group
		case p.Job != nil:
			p.finish(nil, restErr)
		default:
			g.queue.remove(p.Item)
			g.queue.release(p.Item)
			p.fail(p.From, changeErr, restErr)
		}
	}
}

// fail completes an item. Changes before from are committed and keep their results; later ones that
// were taken fail with takenErr, the others with restErr.
func (it *Item[T]) fail(from int, takenErr, restErr error) {
	if from == 0 {
		it.finish(nil, takenErr)
		return
	}
	for i := from; i < len(it.Results); i++ {
		err := takenErr
		if i >= it.taken {
			err = restErr
		}
		it.Results[i] = user.Result{Err: err}
	}
	it.finish(it.Results, nil)
}

func (it *Item[T]) finish(results []user.Result, err error) {
	it.finished = true
	it.end(results, err)
}
