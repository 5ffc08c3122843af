package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/user"
)

var maintenanceTests = map[string]func(*harness){
	"DuePurges returns deleted users past their purge time": func(h *harness) {
		var ids []int64
		for i := range 4 {
			u := h.create(fmt.Sprintf("user%d", i))
			ids = append(ids, u.ID)
			h.mustApply(&user.Delete{ID: u.ID, Retention: time.Duration(4-i) * time.Hour})
		}
		h.create("alive")
		h.mustApply(&user.Undelete{ID: ids[3]})
		h.clock.Advance(3 * time.Hour)
		for limit, want := range map[int][]int64{1: {ids[2]}, 10: {ids[2], ids[1]}} {
			got, err := h.store.DuePurges(h.ctx(), limit)
			h.check(err)
			if !slices.Equal(got, want) {
				h.Errorf("DuePurges(%d) = %v, want %v", limit, got, want)
			}
		}
	},
	"a purged user is not found, also if it was read directly before": func(h *harness) {
		id := h.create("anna").ID
		h.mustApply(&user.Delete{ID: id})
		h.get(id) // stores may cache it
		h.mustApply(&user.Purge{ID: id})
		_, err := h.store.Get(h.ctx(), id)
		h.wantReason(err, user.UserNotFound)
	},
	"a purge keeps row positions and removes personal data": func(h *harness) {
		other := h.create("berta")
		r, err := h.apply(user.Change{Op: h.createWithAllFields(), IdempotencyKey: idempotencyKey("1"), By: user.Author{Actor: "secret actor"}})
		h.check(err)
		id := r.User.ID
		for i := range 25 {
			_, err := h.apply(user.Change{Op: metadataOp(id, "secret key", fmt.Sprint("secret ", i)), IdempotencyKey: idempotencyKey(fmt.Sprint("n", i))})
			h.check(err)
			h.mustApply(metadataOp(other.ID, "k", fmt.Sprint(i)))
		}
		h.mustApply(&user.SetStatus{ID: id, Status: user.StatusSuspended})
		h.mustApply(&user.Delete{ID: id, Retention: time.Hour})
		h.clock.Advance(time.Hour)
		before := h.checkLog()
		for steps, more := 0, true; more; steps++ {
			if steps == 2 {
				h.reopen()
			}
			if steps > 40 {
				h.Fatal("Redact still returns more after 40 calls")
			}
			more, err = h.store.Redact(h.ctx(), id, 4)
			h.check(err)
		}
		h.mustApply(&user.Purge{ID: id})
		after := h.checkLog()
		want := slices.Clone(before)
		for i, row := range want {
			if row.UserID == id {
				want[i].Details = user.RedactDetails(row.Details)
			}
		}
		h.sameRows(after[:len(before)], want)
		if text := fmt.Sprint(after); strings.Contains(text, "secret") || strings.Contains(text, "anna") {
			h.Errorf("personal data left in the log: %s", text)
		}
		if last := after[len(after)-1]; last.Action != user.ActionPurged || last.UserID != id {
			h.Errorf("last row = %+v, want the purge", last)
		}
		_, err = h.store.Get(h.ctx(), id)
		h.wantReason(err, user.UserNotFound)
		// The stored results of the user are deleted, and its names are free.
		r, err = h.apply(user.Change{Op: h.createWithAllFields(), IdempotencyKey: idempotencyKey("1")})
		if err != nil || r.Outcome != user.OutcomeCreated || r.User.ID == id {
			h.Errorf("apply after the purge = %+v, %v, want a new user", r, err)
		}
	},
	"a result stored during a purge is erased with the user": func(h *harness) {
		u := h.create("anna")
		h.mustApply(&user.Delete{ID: u.ID, Retention: time.Hour})
		h.mustApply(&user.StartPurge{ID: u.ID, Now: true})
		for more := true; more; {
			var err error
			more, err = h.store.Redact(h.ctx(), u.ID, 100)
			h.check(err)
		}
		late := user.Change{Op: createOp("anna"), OnConflict: user.ConflictSkip, IdempotencyKey: idempotencyKey("late")}
		r, err := h.apply(late)
		if err != nil || r.User.ID != u.ID {
			h.Fatalf("apply before the purge = %+v, %v, want the user", r, err)
		}
		h.mustApply(&user.Purge{ID: u.ID})
		r, err = h.apply(late)
		if err != nil || r.Outcome != user.OutcomeCreated || r.User.ID == u.ID {
			h.Errorf("apply after the purge = %+v, %v, want a new user", r, err)
		}
	},
	"an interrupted purge leaves the user deleted and due, and is completed by a repetition": func(h *harness) {
		u := h.create("anna")
		h.mustApply(metadataOp(u.ID, "k", "secret"))
		h.mustApply(&user.Delete{ID: u.ID, Retention: time.Hour})
		start := &user.StartPurge{ID: u.ID, Now: true}
		_, err := user.ApplyPurge(h.ctx(), interrupted{h.store}, start, user.Change{IdempotencyKey: idempotencyKey("1")})
		if !errors.Is(err, errInjected) {
			h.Fatalf("ApplyPurge = %v, want the injected error", err)
		}
		h.reopen()
		if got := h.get(u.ID); !got.Deleted() || got.Version != 3 || got.Etag() == u.Etag() {
			h.Errorf("user after the interruption = %+v, want it deleted", got)
		}
		_, err = h.apply(user.Change{Op: &user.Undelete{ID: u.ID}})
		h.wantReason(err, user.UserNotFound)
		if due, err := h.store.DuePurges(h.ctx(), 10); err != nil || !slices.Equal(due, []int64{u.ID}) {
			h.Errorf("DuePurges = %v, %v, want %d", due, err, u.ID)
		}
		first, err := user.ApplyPurge(h.ctx(), h.store, start, user.Change{IdempotencyKey: idempotencyKey("1")})
		h.check(err)
		if text := fmt.Sprint(h.checkLog()); strings.Contains(text, "secret") || strings.Contains(text, "anna") {
			h.Errorf("personal data left in the log: %s", text)
		}
		h.reopen()
		again, err := user.ApplyPurge(h.ctx(), h.store, start, user.Change{IdempotencyKey: idempotencyKey("1")})
		if err != nil || again.Position != first.Position || first.Position != h.head().Position {
			h.Errorf("repeated purge = %+v, %v, want position %d", again, err, first.Position)
		}
		_, err = user.ApplyPurge(h.ctx(), h.store, start, user.Change{IdempotencyKey: idempotencyKey("2")})
		h.wantReason(err, user.UserNotFound)
	},
	"the result of a preparing step is not stored": func(h *harness) {
		u := h.create("anna")
		step := func(value string, prepare bool) user.Result {
			r, err := h.apply(user.Change{Op: metadataOp(u.ID, "k", value), IdempotencyKey: idempotencyKey("1"), Prepare: prepare})
			h.check(err)
			return r
		}
		step("prepared", true)
		stored := step("stored", false)
		if again := step("late", true); stored.User.Metadata["k"] != "stored" || again.User.Metadata["k"] != "stored" || again.Position != stored.Position {
			h.Errorf("change after the step = %+v, repeated step = %+v, want the same", stored, again)
		}
	},
	"a reused request id does not start a purge": func(h *harness) {
		first, second := h.create("anna"), h.create("berta")
		for _, u := range []*user.User{first, second} {
			h.mustApply(&user.Delete{ID: u.ID, Retention: time.Hour})
		}
		_, err := user.ApplyPurge(h.ctx(), h.store, &user.StartPurge{ID: first.ID, Now: true}, user.Change{IdempotencyKey: idempotencyKey("1")})
		h.check(err)
		other := idempotencyKey("1")
		other.Fingerprint[0]++
		_, err = user.ApplyPurge(h.ctx(), h.store, &user.StartPurge{ID: second.ID, Now: true}, user.Change{IdempotencyKey: other})
		h.wantReason(err, user.RequestIDReused)
		h.mustApply(&user.Undelete{ID: second.ID})
	},
	"a purge and an undeletion exclude each other": func(h *harness) {
		for i := range 20 {
			u := h.create(fmt.Sprint("user", i))
			h.mustApply(&user.Delete{ID: u.ID, Retention: time.Hour})
			errs := make([]error, 2)
			runConcurrently(2, func(k int) {
				if k == 0 {
					_, errs[k] = user.ApplyPurge(h.ctx(), h.store, &user.StartPurge{ID: u.ID, Now: true}, user.Change{})
				} else {
					_, errs[k] = h.apply(user.Change{Op: &user.Undelete{ID: u.ID}})
				}
			})
			rows := h.log(user.LogQuery{UserID: u.ID})
			redacted := rows[0].Details["new.username"] == user.RedactedMark
			switch {
			case errs[0] == nil && user.HasReason(errs[1], user.UserNotFound) && redacted && rows[len(rows)-1].Action == user.ActionPurged:
			case user.HasReason(errs[0], user.UserNotDeleted) && errs[1] == nil && !redacted && !h.get(u.ID).Deleted():
			default:
				h.Fatalf("purge: %v, undeletion: %v, redacted %v, want one of them", errs[0], errs[1], redacted)
			}
		}
	},
	"redacting an unknown user does nothing": func(h *harness) {
		more, err := h.store.Redact(h.ctx(), 4711, 10)
		if more || err != nil {
			h.Fatalf("Redact = %v, %v, want false, nil", more, err)
		}
	},
	"the observer is called in order, after the change is visible and before its result": func(h *harness) {
		var mu sync.Mutex
		var observed []user.Activity
		var last user.Head
		h.store.Observe(func(c user.Commit) {
			mu.Lock()
			defer mu.Unlock()
			for _, change := range c.Changes {
				for _, row := range change.Rows {
					if row.Position != last.Position+1 {
						h.Errorf("position %d observed after %d", row.Position, last.Position)
					}
					last.Position = row.Position
					observed = append(observed, row)
				}
				u, err := h.store.Get(h.ctx(), change.UserID)
				if err != nil || u.Version < change.User.Version {
					h.Errorf("observed version %d, but Get = %+v, %v", change.User.Version, u, err)
				}
				if change.Origin != 7 {
					h.Errorf("Origin = %d, want 7", change.Origin)
				}
			}
			if head := h.head(); head != c.Head || head.Position != last.Position {
				h.Errorf("observed head %+v with rows up to %d, but Head = %+v", c.Head, last.Position, head)
			}
		})
		runConcurrently(8, func(i int) {
			for k := range 20 {
				r, err := h.apply(user.Change{Op: createOp(fmt.Sprintf("user%d-%d", i, k)), By: user.Author{Origin: 7}})
				if err != nil {
					h.Error(err)
					return
				}
				mu.Lock()
				if last.Position < r.Position {
					h.Errorf("result at position %d before it was observed (last: %d)", r.Position, last.Position)
				}
				mu.Unlock()
				r.User.Username, r.Rows[0].Details["new.username"] = "modified", "modified"
				_, _ = h.apply(user.Change{Op: metadataOp(4711, "k", "v"), By: user.Author{Origin: 8}})
				_, _ = h.apply(user.Change{Op: createOp("x y"), ValidateOnly: true, By: user.Author{Origin: 9}})
			}
		})
		mu.Lock()
		defer mu.Unlock()
		h.sameRows(observed, user.Summaries(h.checkLog()))
	},
	"the observer receives summaries": func(h *harness) {
		var changes []user.CommittedChange
		h.store.Observe(func(c user.Commit) { changes = append(changes, c.Changes...) })
		h.mustApply(&user.Update{ID: h.create("anna").ID, Patch: user.NewPatch(user.User{Tags: []string{"a"}})})
		for _, c := range changes {
			if c.User.Tags != nil || c.User.Metadata != nil || c.Rows[0].Details != nil {
				h.Errorf("observed %+v, want a user without tags and metadata, and rows without details", c)
			}
		}
	},
	"users in the results of a batch are summaries beyond MaxUserBytes": func(h *harness) {
		u := h.create("anna")
		for _, atomic := range []bool{false, true} {
			batch := user.Batch{Atomic: atomic, MaxUserBytes: 2*u.Size() + 100}
			for i := range 100 { // more than one part
				tags := []string{fmt.Sprint(atomic, i)}
				batch.Changes = append(batch.Changes, user.Change{Op: &user.Update{ID: u.ID, Patch: user.NewPatch(user.User{Tags: tags})}})
			}
			results, err := user.Apply(h.ctx(), h.store, batch)
			if err != nil {
				h.Fatal(err)
			}
			for i, r := range results {
				if got, want := r.Summary, i >= 2; got != want || (r.User.Tags == nil) != want || (r.Rows[0].Details == nil) != want {
					h.Errorf("atomic %v: result %d = %+v, want a summary: %v", atomic, i, r, want)
				}
				if r.User.ID != u.ID || r.User.Version == 0 || r.User.UpdatedAt.IsZero() {
					h.Errorf("atomic %v: result %d = %+v, want the ID, version and times of the user", atomic, i, r)
				}
			}
		}
	},
	"the observer receives a purge as a change without a user": func(h *harness) {
		var changes []user.CommittedChange
		h.store.Observe(func(c user.Commit) { changes = append(changes, c.Changes...) })
		u := h.create("anna")
		h.mustApply(&user.Delete{ID: u.ID})
		h.mustApply(&user.Purge{ID: u.ID})
		if n := len(changes); n != 3 || changes[1].User == nil || changes[2].User != nil || changes[2].UserID != u.ID {
			h.Fatalf("observed changes = %+v", changes)
		}
	},
	"a later status time without a new status is stored": func(h *harness) {
		u := h.create("anna")
		at := h.clock.Now().Add(30 * time.Second)
		r := h.mustApply(&user.SetStatus{ID: u.ID, Status: user.StatusActive, Time: at})
		if len(r.Rows) != 0 || r.Position != 1 || r.User.Version != 1 || r.User.StatusPosition != 1 || r.Outcome != user.OutcomeUnchanged {
			h.Fatalf("SetStatus = %+v, want only a later status time", r)
		}
		h.reopen()
		r = h.mustApply(&user.SetStatus{ID: u.ID, Status: user.StatusInactive, Time: at.Add(-time.Microsecond)})
		if got := h.get(u.ID); got.Status != user.StatusActive || !got.StatusTime.Equal(at) || r.Outcome != user.OutcomeUnchanged {
			h.Fatalf("user = %+v, result = %+v, want unchanged", got, r)
		}
		h.mustApply(&user.SetStatus{ID: u.ID, Status: user.StatusInactive, Time: at})
		if got := h.get(u.ID); got.Status != user.StatusInactive || got.StatusPosition != 2 {
			h.Fatalf("user = %+v, want inactive at position 2", got)
		}
		h.checkLog()
	},
	"Probe has no visible effect": func(h *harness) {
		h.create("anna")
		head := h.head()
		runConcurrently(10, func(int) {
			if err := h.store.Probe(h.ctx()); err != nil {
				h.Error(err)
			}
		})
		if h.head() != head {
			h.Fatalf("head = %+v, want %+v", h.head(), head)
		}
		h.reopen()
		h.checkLog()
	},
}

// interrupted is a store whose Redact fails.
type interrupted struct{ user.Store }

// Redact implements user.Store.
func (s interrupted) Redact(context.Context, int64, int) (bool, error) { return false, errInjected }
