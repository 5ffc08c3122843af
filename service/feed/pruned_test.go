package feed_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/feed"
	storefault "github.com/yourorg/userservice/service/store/faulty"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// In any order of commits, pruning, reads and waits: a cursor returns every row of its selection, or
// POSITION_OUT_OF_RANGE if rows that it has not read were pruned. A cursor that has read everything is
// not affected by pruning.
func TestPrunedCursorsHaveNoGap(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		if err := runPruned(r, ""); err != nil {
			r.Fatal(err)
		}
	})
}

// The property detects a store that checks for pruned rows before it reads.
func TestPrunedPropertyFindsFault(t *testing.T) {
	gen := rapid.Custom(func(r *rapid.T) error { return runPruned(r, storefault.CheckEarly) })
	for seed := range 1000 {
		if err := gen.Example(seed); err != nil {
			t.Logf("try %d: %v", seed+1, err)
			return
		}
	}
	t.Error("fault not detected in 1000 tries")
}

// interleaved is a store with a hook before and after each read of the log.
type interleaved struct {
	*storetest.Model
	during func()
}

func (s *interleaved) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	s.during()
	defer s.during()
	return s.Model.Log(ctx, query)
}

type prunedWorld struct {
	r       *rapid.T
	store   *interleaved
	feed    *feed.Feed
	ids     []int64
	updates int
	history []user.Activity
	readers []*prunedReader
	trace   []string
}

// prunedReader is a cursor with the position up to which its client knows everything.
type prunedReader struct {
	w      *prunedWorld
	opts   feed.CursorOptions
	cursor *feed.Cursor
	last   int64
	atHead bool  // the last read reached the head
	waited int64 // head of the feed at the last wait, or when the cursor was opened
}

func runPruned(r *rapid.T, fault string) (err error) {
	w := &prunedWorld{r: r, store: &interleaved{Model: storetest.NewModel(nil)}}
	w.store.during = func() {
		switch rapid.IntRange(0, 5).Draw(r, "during a read") {
		case 0:
			w.write()
		case 1:
			w.prune()
		}
	}
	if w.feed, err = feed.Open(context.Background(), storefault.New(w.store, fault)); err != nil {
		r.Fatal(err)
	}
	for range 3 {
		w.write()
		w.readers = append(w.readers, &prunedReader{w: w})
	}
	defer func() {
		for _, reader := range w.readers {
			if reader.cursor != nil {
				reader.cursor.Close()
			}
		}
	}()
	for range 80 - rapid.IntRange(0, 79).Draw(r, "fewer steps") {
		var err error
		switch reader := rapid.SampledFrom(w.readers).Draw(r, "reader"); rapid.IntRange(0, 9).Draw(r, "step") {
		case 0, 1:
			w.write()
		case 2:
			w.prune()
		case 3:
			err = reader.wait()
		case 4:
			reader.close()
		default:
			err = reader.read()
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, strings.Join(w.trace, "\n"))
		}
	}
	return nil
}

func (w *prunedWorld) notef(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// write commits changes of one to four users.
func (w *prunedWorld) write() {
	var batch user.Batch
	for range rapid.IntRange(1, 4).Draw(w.r, "changes") {
		if len(w.ids) < 3 {
			op, err := user.NewCreate(user.User{Username: fmt.Sprintf("user %d", len(w.ids)), Email: fmt.Sprintf("u%d@example.org", len(w.ids))})
			if err != nil {
				w.r.Fatal(err)
			}
			result, err := user.ApplyOne(context.Background(), w.store, user.Change{Op: op})
			if err != nil {
				w.r.Fatal(err)
			}
			w.ids, w.history = append(w.ids, result.User.ID), append(w.history, user.Summaries(result.Rows)...)
			continue
		}
		batch.Changes = append(batch.Changes, user.Change{Op: w.op()})
	}
	results, err := user.Apply(context.Background(), w.store, batch)
	if err != nil {
		w.r.Fatal(err)
	}
	for _, result := range results {
		w.history = append(w.history, user.Summaries(result.Rows)...)
	}
	w.notef("rows up to %d", len(w.history))
}

// op returns a change of one or two rows.
func (w *prunedWorld) op() user.Op {
	id := rapid.SampledFrom(w.ids).Draw(w.r, "user")
	switch action := rapid.SampledFrom([]string{"app.seen", "app.called", user.ActionUpdated}).Draw(w.r, "action"); action {
	case user.ActionUpdated:
		w.updates++
		patch := user.NewPatch(user.User{Tags: []string{fmt.Sprint(w.updates)}, Status: user.Status(1 + w.updates%3)})
		op, err := user.NewUpdate(id, patch, "")
		if err != nil {
			w.r.Fatal(err)
		}
		return op
	default:
		return &user.Record{ID: id, Action: action}
	}
}

func (w *prunedWorld) prune() {
	limit := rapid.IntRange(1, 1+len(w.history)).Draw(w.r, "pruned")
	if _, err := w.store.Prune(context.Background(), -time.Hour, limit); err != nil {
		w.r.Fatal(err)
	}
	w.notef("first row %d", w.first())
}

func (w *prunedWorld) first() int64 {
	first, err := w.store.First(context.Background())
	if err != nil {
		w.r.Fatal(err)
	}
	return first
}

// selected returns the rows after a position and up to another one that a reader selects.
func (p *prunedReader) selected(after, through int64, actions []string) (rows []user.Activity) {
	for _, row := range p.w.history[min(after, through):through] {
		if (p.opts.UserID == 0 || row.UserID == p.opts.UserID) && (len(actions) == 0 || slices.Contains(actions, row.Action)) {
			rows = append(rows, row)
		}
	}
	return rows
}

// open opens a cursor at the last position, or at the oldest row.
func (p *prunedReader) open() {
	r := p.w.r
	p.opts = feed.CursorOptions{
		UserID:  rapid.SampledFrom(append([]int64{0}, p.w.ids...)).Draw(r, "user"),
		Actions: rapid.SampledFrom([][]string{nil, {"app.seen"}}).Draw(r, "actions"),
		After:   p.last,
	}
	if err := p.w.feed.CheckPosition(context.Background(), p.w.feed.Head().Epoch, p.last); err != nil || rapid.IntRange(0, 2).Draw(r, "oldest") == 0 {
		p.opts.After, p.opts.Oldest = p.w.first()-1, true
	}
	p.cursor, p.last, p.atHead, p.waited = p.w.feed.Cursor(p.opts), p.opts.After, false, p.w.feed.Head().Position
	p.w.notef("open %+v", p.opts)
}

func (p *prunedReader) close() {
	if p.cursor != nil {
		p.cursor.Close()
		p.cursor = nil
	}
}

func (p *prunedReader) read() error {
	if p.cursor == nil {
		p.open()
	}
	if rapid.Bool().Draw(p.w.r, "prefetch") {
		p.cursor.Prefetch(context.Background())
	}
	oldest := p.opts.Oldest
	page, err := p.cursor.Read(context.Background())
	if user.HasReason(err, user.PositionOutOfRange) {
		p.w.notef("%v after %d", err, p.last)
		first := p.w.first()
		switch {
		case oldest:
			return errors.New("a cursor from the oldest row was overtaken before its first read")
		case p.last+1 >= first:
			return fmt.Errorf("out of range after %d, want the rows from %d", p.last, first)
		}
		p.close()
		return nil
	}
	if err != nil {
		p.w.r.Fatal(err)
	}
	from := p.last
	if oldest && len(page.Rows) > 0 {
		from = max(from, page.Rows[0].Position-1) // rows before it may have been pruned
	}
	if want := p.selected(from, p.cursor.Position(), p.opts.Actions); !reflect.DeepEqual(user.Summaries(page.Rows), want) && len(page.Rows)+len(want) > 0 && (!oldest || len(page.Rows) > 0) {
		return fmt.Errorf("read (%d, %d] = %v, want %v", from, p.cursor.Position(), page.Rows, want)
	}
	p.last, p.atHead, p.opts.Oldest = p.cursor.Position(), page.AtHead, false
	p.w.notef("read (%d, %d], at head %t", from, p.last, page.AtHead)
	return nil
}

// wait waits with a timer that has fired.
func (p *prunedReader) wait() error {
	if p.cursor == nil || !p.atHead {
		return nil
	}
	fired := make(chan time.Time)
	close(fired)
	if err := p.cursor.Wait(context.Background(), fired); err != nil {
		p.w.r.Fatal(err)
	}
	if missed := p.selected(p.last, p.cursor.Position(), nil); len(missed) > 0 {
		return fmt.Errorf("wait moved from %d to %d, past %v", p.last, p.cursor.Position(), missed)
	}
	// A row that was read after it had woken the cursor wakes it again.
	wokenByRead := len(p.selected(p.waited, p.last, nil)) > 0
	if first := p.w.first(); !wokenByRead && p.cursor.Position()+1 < first && len(p.selected(p.last, first-1, nil)) == 0 {
		return fmt.Errorf("wait left the cursor at %d, before the oldest row %d, but no pruned row is missing", p.cursor.Position(), first)
	}
	p.w.notef("waited, %d to %d", p.last, p.cursor.Position())
	p.last, p.waited, p.atHead = p.cursor.Position(), p.w.feed.Head().Position, false
	return nil
}
