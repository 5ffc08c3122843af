package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/user"
)

var keepTests = map[string]func(*harness){
	"users whose time has come are due to be purged": func(h *harness) {
		var ids []int64
		for i := range 4 {
			u := h.create(fmt.Sprintf("user%d", i))
			ids = append(ids, u.ID)
			h.do(&user.Delete{ID: u.ID, Retention: time.Duration(4-i) * time.Hour})
		}
		h.create("alive")
		h.do(&user.Undelete{ID: ids[3]})
		h.clock.Advance(3 * time.Hour)
		for limit, want := range map[int][]int64{1: {ids[2]}, 10: {ids[2], ids[1]}} {
			got, err := h.store.DuePurges(h.ctx(), limit)
			h.check(err)
			if !slices.Equal(got, want) {
				h.Errorf("due: %v, want %v", got, want)
			}
		}
	},
	"a purge leaves the rows in their places and nothing personal in them": func(h *harness) {
		other := h.create("berta")
		r, err := h.apply(user.Change{Op: h.full(), Once: once("1"), By: user.Author{Actor: "secret actor"}})
		h.check(err)
		id := r.User.ID
		for i := range 25 {
			_, err := h.apply(user.Change{Op: noting(id, "secret key", fmt.Sprint("secret ", i)), Once: once(fmt.Sprint("n", i))})
			h.check(err)
			h.do(noting(other.ID, "k", fmt.Sprint(i)))
		}
		h.do(&user.SetStatus{ID: id, Status: user.StatusSuspended})
		h.do(&user.Delete{ID: id, Retention: time.Hour})
		h.clock.Advance(time.Hour)
		before := h.checkLog()
		for steps, more := 0, true; more; steps++ {
			if steps == 2 {
				h.reopen()
			}
			if steps > 40 {
				h.Fatal("redaction does not end")
			}
			more, err = h.store.Redact(h.ctx(), id, 4)
			h.check(err)
		}
		h.do(&user.Purge{ID: id})
		after := h.checkLog()
		want := slices.Clone(before)
		for i, row := range want {
			if row.UserID == id {
				want[i].Details = user.Redacted(row.Details)
			}
		}
		h.sameRows(after[:len(before)], want)
		if text := fmt.Sprint(after); strings.Contains(text, "secret") || strings.Contains(text, "anna") {
			h.Errorf("the log still says: %s", text)
		}
		if last := after[len(after)-1]; last.Action != user.ActionPurged || last.UserID != id {
			h.Errorf("the last row is %+v", last)
		}
		_, err = h.store.Get(h.ctx(), id)
		h.wantReason(err, user.UserNotFound)
		// What was remembered of the user is forgotten, and its names are free.
		r, err = h.apply(user.Change{Op: h.full(), Once: once("1")})
		if err != nil || r.Outcome != user.OutcomeCreated || r.User.ID == id {
			h.Errorf("%+v %v", r, err)
		}
	},
	"redacting nobody ends at once": func(h *harness) {
		more, err := h.store.Redact(h.ctx(), 4711, 10)
		if more || err != nil {
			h.Fatal(more, err)
		}
	},
	"the observer is called in order, after the change is visible and before its result": func(h *harness) {
		var mu sync.Mutex
		var seen []user.Activity
		var last user.Head
		h.store.Observe(func(c user.Commit) {
			mu.Lock()
			defer mu.Unlock()
			for _, change := range c.Changes {
				for _, row := range change.Rows {
					if row.Position != last.Position+1 {
						h.Errorf("position %d was observed after %d", row.Position, last.Position)
					}
					last.Position = row.Position
					seen = append(seen, row)
				}
				u, err := h.store.Get(h.ctx(), change.UserID)
				if err != nil || u.Version < change.User.Version {
					h.Errorf("when it was told of version %d, a read gave %+v, %v", change.User.Version, u, err)
				}
				if change.Origin != 7 {
					h.Errorf("origin %d", change.Origin)
				}
			}
			if head := h.head(); head != c.Head || head.Position != last.Position {
				h.Errorf("told of head %+v with rows up to %d, a read gave %+v", c.Head, last.Position, head)
			}
		})
		together(8, func(i int) {
			for k := range 20 {
				r, err := h.apply(user.Change{Op: creating(fmt.Sprintf("user%d-%d", i, k)), By: user.Author{Origin: 7}})
				if err != nil {
					h.Error(err)
					return
				}
				mu.Lock()
				if last.Position < r.Position {
					h.Errorf("result at %d, observed up to %d", r.Position, last.Position)
				}
				mu.Unlock()
				r.User.Username, r.Rows[0].Details["new.username"] = "spoilt", "spoilt"
				_, _ = h.apply(user.Change{Op: noting(4711, "k", "v"), By: user.Author{Origin: 8}})
				_, _ = h.apply(user.Change{Op: creating("x y"), ValidateOnly: true, By: user.Author{Origin: 9}})
			}
		})
		mu.Lock()
		defer mu.Unlock()
		h.sameRows(seen, h.checkLog())
	},
	"the observer is told of a purge by a change without a user": func(h *harness) {
		var changes []user.Committed
		h.store.Observe(func(c user.Commit) { changes = append(changes, c.Changes...) })
		u := h.create("anna")
		h.do(&user.Delete{ID: u.ID})
		h.do(&user.Purge{ID: u.ID})
		if n := len(changes); n != 3 || changes[1].User == nil || changes[2].User != nil || changes[2].UserID != u.ID {
			h.Fatalf("%+v", changes)
		}
	},
	"a status time without a new status is kept": func(h *harness) {
		u := h.create("anna")
		at := h.clock.Now().Add(30 * time.Second)
		r := h.do(&user.SetStatus{ID: u.ID, Status: user.StatusActive, Time: at})
		if len(r.Rows) != 0 || r.Position != 1 || r.User.Version != 1 || r.User.StatusPosition != 1 || r.Outcome != user.OutcomeUnchanged {
			h.Fatalf("%+v, want a later time and nothing else", r)
		}
		h.reopen()
		r = h.do(&user.SetStatus{ID: u.ID, Status: user.StatusInactive, Time: at.Add(-time.Microsecond)})
		if got := h.get(u.ID); got.Status != user.StatusActive || !got.StatusTime.Equal(at) || r.Outcome != user.OutcomeUnchanged {
			h.Fatalf("%+v %+v", got, r)
		}
		h.do(&user.SetStatus{ID: u.ID, Status: user.StatusInactive, Time: at})
		if got := h.get(u.ID); got.Status != user.StatusInactive || got.StatusPosition != 2 {
			h.Fatalf("%+v", got)
		}
		h.checkLog()
	},
	"a probe writes nothing that anybody sees": func(h *harness) {
		h.create("anna")
		head := h.head()
		together(10, func(int) {
			if err := h.store.Probe(h.ctx()); err != nil {
				h.Error(err)
			}
		})
		if h.head() != head {
			h.Fatalf("head %+v", h.head())
		}
		h.reopen()
		h.checkLog()
	},
}
