package storetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

var logTests = map[string]func(*harness){
	"positions have no gap under concurrent writes": func(h *harness) {
		runConcurrently(16, func(i int) {
			for k := range 10 {
				u, err := h.apply(user.Change{Op: createOp(fmt.Sprintf("user%d-%d", i, k))})
				if err != nil {
					h.Error(err)
					return
				}
				_, _ = h.apply(user.Change{Op: createOp("same name")})
				_, _ = h.apply(user.Change{Op: metadataOp(u.User.ID, "k", "v")})
				_, _ = h.apply(user.Change{Op: metadataOp(12345, "k", "v")})
				_, _ = user.Apply(h.ctx(), h.store, user.Batch{Atomic: true, Changes: []user.Change{
					{Op: metadataOp(u.User.ID, "k", "w")}, {Op: &user.Delete{ID: 12345}},
				}})
			}
		})
		if n := len(h.checkLog()); n != 16*10*2+1 {
			h.Fatalf("log has %d rows, want %d", n, 16*10*2+1)
		}
	},
	"positions and epoch continue after a restart": func(h *harness) {
		first := h.head()
		if first.Position != 0 || !first.Time.IsZero() || first.Epoch == "" {
			h.Fatalf("head of an empty store = %+v", first)
		}
		for i := range 3 {
			h.create(fmt.Sprintf("user%d", i))
			before := h.head()
			h.reopen()
			if after := h.head(); after != before || after.Epoch != first.Epoch {
				h.Fatalf("head after a restart = %+v, want %+v", after, before)
			}
		}
		h.checkLog()
	},
	"a result's position is that of its last row": func(h *harness) {
		u := h.create("anna")
		name, status := "berta", user.StatusInactive
		r := h.mustApply(updateOp(u.ID, user.NewPatch(user.User{Username: name, Status: status})))
		if r.Position != 3 || len(r.Rows) != 2 || r.Rows[1].Position != 3 || r.User.Version != 2 || r.User.StatusPosition != 3 {
			h.Fatalf("result %+v of user %+v", r, r.User)
		}
		if r = h.mustApply(renameOp(u.ID, name)); r.Outcome != user.OutcomeUnchanged || r.Position != 3 || r.User.Version != 2 {
			h.Fatalf("update without a change = %+v, want unchanged at position 3", r)
		}
	},
	"no row appears at or before a position already read": func(h *harness) {
		var done atomic.Bool
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				last := int64(0)
				for ended := false; !ended; {
					ended = done.Load()
					page, err := h.store.Log(h.ctx(), user.LogQuery{After: last, MaxRows: 50})
					if err != nil {
						h.Error(err)
						return
					}
					for _, row := range page.Rows {
						if row.Position != last+1 {
							h.Errorf("position %d read after %d", row.Position, last)
						}
						last = row.Position
					}
				}
			})
		}
		runConcurrently(8, func(i int) {
			for k := range 20 {
				if _, err := h.apply(user.Change{Op: createOp(fmt.Sprintf("user%d-%d", i, k))}); err != nil {
					h.Error(err)
				}
			}
		})
		done.Store(true)
		readers.Wait()
	},
	"times do not decrease when the clock moves back": func(h *harness) {
		for i := range 4 {
			h.create(fmt.Sprintf("user%d", i))
			h.clock.Advance(-time.Hour)
			if i%2 == 1 {
				h.reopen()
			}
		}
		rows := h.checkLog()
		if !rows[0].Time.Equal(rows[3].Time) {
			h.Fatalf("times %v and %v, want the same while the clock is behind", rows[0].Time, rows[3].Time)
		}
		h.clock.Advance(24 * time.Hour)
		if u := h.create("later"); !u.CreatedAt.Equal(h.clock.Now()) {
			h.Fatalf("CreatedAt = %v, want %v", u.CreatedAt, h.clock.Now())
		}
	},
	"times are UTC and truncated to microseconds": func(h *harness) {
		h.clock.Advance(789 * time.Nanosecond)
		u := h.create("anna")
		got := h.get(u.ID)
		want := user.Truncate(h.clock.Now())
		if got.CreatedAt != want || u.CreatedAt != want || h.head().Time != want || h.log(user.LogQuery{})[0].Time != want {
			h.Fatalf("CreatedAt = %v, want %v", got.CreatedAt, want)
		}
	},
	"a change and its rows become visible together": func(h *harness) {
		u := h.create("anna")
		var done atomic.Bool
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				for !done.Load() {
					head := h.head().Position
					rows := h.log(user.LogQuery{UserID: u.ID, MaxRows: 1000})
					later := h.get(u.ID)
					if later.Version < int64(len(rows)) {
						h.Errorf("log has %d rows, user has version %d", len(rows), later.Version)
					}
					if int64(len(rows)) < head {
						h.Errorf("head position = %d, log has %d rows", head, len(rows))
					}
				}
			})
		}
		for i := range 100 {
			h.mustApply(metadataOp(u.ID, "n", fmt.Sprint(i)))
		}
		done.Store(true)
		readers.Wait()
	},
	"pages of the log add up to the whole log in both directions": func(h *harness) {
		users, all := h.fillLog()
		for _, id := range append(users, 0, 4711) {
			for _, actions := range [][]string{nil, {"app.seen"}, {user.ActionCreated, user.ActionUpdated}, {"app.none"}} {
				for _, limits := range [][3]int{{1, 0, 0}, {3, 0, 0}, {7, 5, 0}, {2, 1, 0}, {1000, 0, 0}, {1000, 0, 1}, {1000, 0, 200}} {
					query := user.LogQuery{UserID: id, Actions: actions, MaxRows: limits[0], MaxScanned: limits[1], MaxBytes: limits[2]}
					want := filterRows(all, query)
					h.sameRows(h.log(query), want)
					query.After, query.Before = 10, 40
					want = slices.DeleteFunc(want, func(r user.Activity) bool { return r.Position <= 10 || r.Position >= 40 })
					h.sameRows(h.log(query), want)
					query.Desc = true
					slices.Reverse(want)
					h.sameRows(h.log(query), want)
				}
			}
		}
	},
	"a log page reports Done and Reached": func(h *harness) {
		users, all := h.fillLog()
		head := h.head().Position
		page, err := h.store.Log(h.ctx(), user.LogQuery{UserID: users[0], MaxRows: 1000})
		h.check(err)
		if !page.Done || page.Reached != head {
			h.Fatalf("page to the head: Done = %v, Reached = %d, want head %d", page.Done, page.Reached, head)
		}
		page, err = h.store.Log(h.ctx(), user.LogQuery{MaxRows: 2})
		h.check(err)
		if page.Done || page.Reached != 2 {
			h.Fatalf("first 2 of %d rows: Done = %v, Reached = %d", len(all), page.Done, page.Reached)
		}
		page, err = h.store.Log(h.ctx(), user.LogQuery{After: head, MaxRows: 2})
		h.check(err)
		if !page.Done || page.Reached != head || len(page.Rows) != 0 {
			h.Fatalf("page after the head = %+v", page)
		}
	},
	"Before returns the position of the last row before a time": func(h *harness) {
		_, all := h.fillLog()
		times := []time.Time{{}, h.clock.Now(), h.clock.Now().Add(time.Hour)}
		for _, row := range all {
			times = append(times, row.Time, row.Time.Add(time.Microsecond), row.Time.Add(-time.Microsecond))
		}
		for _, at := range times {
			want := int64(0)
			for _, row := range all {
				if row.Time.Before(at) {
					want = row.Position
				}
			}
			got, err := h.store.Before(h.ctx(), at)
			h.check(err)
			if got != want {
				h.Fatalf("Before(%v) = %d, want %d", at, got, want)
			}
		}
		first, err := h.store.First(h.ctx())
		h.check(err)
		if first != 1 {
			h.Fatalf("First = %d, want 1", first)
		}
	},
	"an empty log has valid bounds": func(h *harness) {
		first, err := h.store.First(h.ctx())
		h.check(err)
		before, err := h.store.Before(h.ctx(), h.clock.Now())
		h.check(err)
		page, err := h.store.Log(h.ctx(), user.LogQuery{MaxRows: 10})
		h.check(err)
		if first != 1 || before != 0 || !page.Done || page.Reached != 0 || len(page.Rows) != 0 {
			h.Fatalf("First = %d, Before = %d, Log = %+v", first, before, page)
		}
	},
}

// fillLog writes rows of three users with different times.
func (h *harness) fillLog() (users []int64, all []user.Activity) {
	h.Helper()
	for i := range 3 {
		users = append(users, h.create(fmt.Sprintf("user%d", i)).ID)
	}
	for i := range 50 {
		h.clock.Advance(time.Duration(i%4) * time.Microsecond)
		id := users[i*i%3]
		if i%5 == 0 {
			h.mustApply(metadataOp(id, "n", fmt.Sprint(i)))
			continue
		}
		op, err := user.NewRecord(id, []string{"app.seen", "app.called"}[i%2], map[string]string{"n": fmt.Sprint(i), "empty": ""})
		h.check(err)
		h.mustApply(op)
	}
	return users, h.checkLog()
}

func filterRows(all []user.Activity, query user.LogQuery) []user.Activity {
	var rows []user.Activity
	for _, row := range all {
		if (query.UserID == 0 || row.UserID == query.UserID) && (len(query.Actions) == 0 || slices.Contains(query.Actions, row.Action)) {
			rows = append(rows, row)
		}
	}
	return rows
}
