package storetest

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

var pruneTests = map[string]func(*harness){
	"Prune deletes the oldest rows of an age, in steps": func(h *harness) {
		_, all := h.fillLog()
		h.clock.Advance(time.Hour)
		h.create("late")
		all = append(all, h.log(user.LogQuery{After: h.head().Position - 1})...)
		if n := h.prune(time.Hour+time.Second, 1000); n != 0 || h.first() != 1 {
			h.Fatalf("Prune of an age that no row has = %d, First = %d, want 0, 1", n, h.first())
		}
		for _, step := range []struct{ limit, want int }{{10, 10}, {1, 1}, {1000, len(all) - 12}, {1000, 0}} {
			if n := h.prune(time.Hour, step.limit); n != step.want {
				h.Fatalf("Prune(%d) = %d, want %d", step.limit, n, step.want)
			}
			h.sameRows(h.log(user.LogQuery{Retained: true}), all[h.first()-1:])
		}
		h.reopen()
		h.sameRows(h.log(user.LogQuery{Retained: true}), all[len(all)-1:])
		if r := h.mustApply(renameOp(all[0].UserID, "renamed")); r.Position != int64(len(all))+1 {
			h.Errorf("position after pruning and a restart = %d, want %d", r.Position, len(all)+1)
		}
	},
	"a log without rows keeps its head": func(h *harness) {
		users, all := h.fillLog()
		head := h.head()
		h.clock.Advance(time.Hour)
		h.prune(0, 1000)
		for range 2 {
			first, end := h.first(), h.head()
			before, err := h.store.Before(h.ctx(), all[0].Time)
			h.check(err)
			if first != head.Position+1 || end != head || before != head.Position {
				h.Fatalf("First = %d, Head = %+v, Before = %d, want %d, %+v, %d", first, end, before, head.Position+1, head, head.Position)
			}
			page, err := h.store.Log(h.ctx(), user.LogQuery{After: head.Position, MaxRows: 10})
			if err != nil || !page.Done || page.Reached != head.Position || len(page.Rows) != 0 {
				h.Fatalf("Log after the head = %+v, %v", page, err)
			}
			h.reopen()
		}
		h.clock.Advance(-2 * time.Hour)
		h.mustApply(metadataOp(users[0], "k", "v"))
		rows := h.log(user.LogQuery{After: head.Position})
		if len(rows) != 1 || rows[0].Position != head.Position+1 || !rows[0].Time.Equal(head.Time) {
			h.Errorf("rows after the pruning = %+v, want position %d at %v", rows, head.Position+1, head.Time)
		}
	},
	"pruning does not change users": func(h *harness) {
		users, _ := h.fillLog()
		h.mustApply(&user.SetStatus{ID: users[0], Status: user.StatusSuspended})
		h.mustApply(&user.Delete{ID: users[1], Retention: time.Hour})
		before, err := h.store.GetMany(h.ctx(), users)
		h.check(err)
		h.clock.Advance(time.Minute)
		h.prune(0, 1000)
		h.reopen()
		after, err := h.store.GetMany(h.ctx(), users)
		h.check(err)
		h.sameUsers(after, before)
		h.mustApply(&user.Undelete{ID: users[1]})
		if _, err := user.ApplyPurge(h.ctx(), h.store, &user.StartPurge{ID: users[2], Now: true}, user.Change{}); !user.HasReason(err, user.UserNotDeleted) {
			h.Errorf("purge of a user that is not deleted: %v, want USER_NOT_DELETED", err)
		}
		h.mustApply(&user.Delete{ID: users[2]})
		_, err = user.ApplyPurge(h.ctx(), h.store, &user.StartPurge{ID: users[2], Now: true}, user.Change{})
		h.check(err)
	},
	"a log can be read from each position that is retained, in both directions": func(h *harness) {
		users, all := h.fillLog()
		h.clock.Advance(time.Hour)
		h.prune(0, 20)
		kept := all[20:]
		for _, id := range append(users, 0) {
			for _, limits := range [][2]int{{1, 0}, {3, 5}, {1000, 0}} {
				query := user.LogQuery{UserID: id, MaxRows: limits[0], MaxScanned: limits[1]}
				want := filterRows(kept, query)
				query.Retained = true
				h.sameRows(h.log(query), want)
				query.Desc = true
				slices.Reverse(want)
				h.sameRows(h.log(query), want)
				for after := range h.head().Position + 2 {
					h.readAfter(all, user.LogQuery{UserID: id, After: after, MaxRows: limits[0], MaxScanned: limits[1]})
				}
			}
		}
		for _, row := range all {
			before, err := h.store.Before(h.ctx(), row.Time)
			h.check(err)
			want := int64(20)
			for _, other := range kept {
				if other.Time.Before(row.Time) {
					want = other.Position
				}
			}
			if before != want {
				h.Errorf("Before(time of row %d) = %d, want %d", row.Position, before, want)
			}
		}
	},
	"a stored result with a pruned row has expired": func(h *harness) {
		u := h.create("anna")
		change := user.Change{Op: metadataOp(u.ID, "k", "v"), IdempotencyKey: idempotencyKey("1")}
		first, err := h.apply(change)
		h.check(err)
		unchanged := user.Change{Op: metadataOp(u.ID, "k", "v"), IdempotencyKey: idempotencyKey("2")}
		_, err = h.apply(unchanged)
		h.check(err)
		h.clock.Advance(time.Hour)
		h.prune(0, 1000)
		h.mustApply(metadataOp(u.ID, "k", "w"))
		again, err := h.apply(change)
		h.check(err)
		if again.Position <= first.Position || again.User.Metadata["k"] != "v" {
			h.Errorf("repeated request = %+v, want it applied again", again)
		}
		h.mustApply(metadataOp(u.ID, "k", "w"))
		if again, err = h.apply(unchanged); err != nil || again.Position != first.Position {
			h.Errorf("repeated request whose result has no rows = %+v, %v, want the stored result", again, err)
		}
	},
	"a reader that pruning overtakes gets an error and never a gap": func(h *harness) {
		u := h.create("anna")
		var batch user.Batch
		for i := range 300 {
			batch.Changes = append(batch.Changes, user.Change{Op: &user.Record{ID: u.ID, Action: "app.seen", Details: map[string]string{"n": fmt.Sprint(i)}}})
		}
		for range 7 {
			_, err := user.Apply(h.ctx(), h.store, batch)
			h.check(err)
		}
		var done atomic.Bool
		var readers sync.WaitGroup
		overtaken := make([]int, 4)
		for i := range overtaken {
			readers.Go(func() {
				for !done.Load() {
					overtaken[i] += h.followLog(user.LogQuery{Desc: i == 3, MaxRows: []int{1, 20, 600, 600}[i]})
				}
			})
		}
		for h.prune(0, 37) > 0 {
			h.mustApply(&user.Record{ID: u.ID, Action: "app.late"})
			h.prune(0, 7)
		}
		done.Store(true)
		readers.Wait()
		h.Logf("overtaken readers: %d", overtaken)
	},
}

// followLog reads some pages of the log from the oldest row on, and returns 1 if it was overtaken.
func (h *harness) followLog(query user.LogQuery) (overtaken int) {
	query.Retained = true
	step := int64(1)
	if query.Desc {
		step = -1
	}
	for range 5 {
		page, err := h.store.Log(h.ctx(), query)
		if user.HasReason(err, user.PositionOutOfRange) && !query.Desc {
			return 1
		}
		if err != nil {
			h.Errorf("Log(%+v): %v", query, err)
			return 0
		}
		for i, row := range page.Rows {
			switch {
			case i > 0 && row.Position-page.Rows[i-1].Position != step:
				h.Errorf("Log(%+v): position %d after %d", query, row.Position, page.Rows[i-1].Position)
			case i == 0 && !query.Retained && row.Position != query.After+1:
				h.Errorf("Log(%+v): first position %d", query, row.Position)
			}
		}
		if query.Desc {
			return 0 // the next page may be pruned
		}
		query.After, query.Retained = page.Reached, false
	}
	return 0
}

// readAfter compares a read of the log after a position, in both directions, with the rows of all.
func (h *harness) readAfter(all []user.Activity, query user.LogQuery) {
	h.Helper()
	want := filterRows(slices.DeleteFunc(slices.Clone(all), func(row user.Activity) bool { return row.Position <= query.After }), query)
	for _, query.Desc = range []bool{false, true} {
		if query.After+1 >= h.first() {
			h.sameRows(h.log(query), want)
			slices.Reverse(want)
			continue
		}
		page, err := h.store.Log(h.ctx(), query)
		e, _ := user.AsError(err)
		if e == nil || e.Reason != user.PositionOutOfRange || e.Metadata["first_position"] != strconv.FormatInt(h.first(), 10) ||
			e.Metadata["last_position"] != strconv.FormatInt(h.head().Position, 10) || e.Metadata["epoch"] != h.head().Epoch {
			h.Fatalf("Log(%+v) = %+v, %v, want POSITION_OUT_OF_RANGE with the bounds", query, page, err)
		}
	}
}

func (h *harness) prune(age time.Duration, limit int) int {
	h.Helper()
	n, err := h.store.Prune(h.ctx(), age, limit)
	h.check(err)
	return n
}

func (h *harness) first() int64 {
	h.Helper()
	first, err := h.store.First(h.ctx())
	h.check(err)
	return first
}
