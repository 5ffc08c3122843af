package storetest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/yourorg/userservice/service/user"
)

func idempotencyKey(id string) *user.IdempotencyKey {
	return &user.IdempotencyKey{Caller: "caller", Procedure: "procedure", ID: id, Fingerprint: [32]byte{1}}
}

// createWithAllFields returns an op that creates anna with all optional fields set.
func (h *harness) createWithAllFields() user.Op {
	op, err := user.NewCreate(user.User{Username: "anna", Email: "anna@example.org", Tags: []string{"a", "b"}, Metadata: map[string]string{"k": "v"}})
	h.check(err)
	return op
}

var idempotencyTests = map[string]func(*harness){
	"a repeated request returns the stored result, also after a restart": func(h *harness) {
		by := user.Author{Actor: "actor", RequestID: "1"}
		create := user.Change{Op: h.createWithAllFields(), IdempotencyKey: idempotencyKey("1"), By: by}
		created, err := h.apply(create)
		h.check(err)
		update := user.Change{Op: metadataOp(created.User.ID, "n", "1"), IdempotencyKey: idempotencyKey("2")}
		updated, err := h.apply(update)
		h.check(err)
		del := user.Change{Op: &user.Delete{ID: created.User.ID, Retention: time.Hour}, IdempotencyKey: idempotencyKey("3")}
		deleted, err := h.apply(del)
		h.check(err)
		for range 2 {
			h.clock.Advance(time.Hour)
			for i, c := range []user.Change{create, update, del} {
				again, err := h.apply(c)
				h.check(err)
				if diff := cmp.Diff([]user.Result{created, updated, deleted}[i], again); diff != "" {
					h.Errorf("repeated request %d (-first +second):\n%s", i+1, diff)
				}
			}
			h.reopen()
		}
		if n := len(h.checkLog()); n != 3 {
			h.Fatalf("log has %d rows, want 3", n)
		}
	},
	"stored results of a large user do not change with the user": func(h *harness) {
		metadata := make(map[string]string)
		for i := range 20 {
			metadata[fmt.Sprint("key", i)] = strings.Repeat("v", 1000)
		}
		op, err := user.NewCreate(user.User{Username: "anna", Email: "anna@example.org", Tags: []string{"a"}, Metadata: metadata})
		h.check(err)
		changes := []user.Change{{Op: op, IdempotencyKey: idempotencyKey("0")}}
		var first []user.Result
		apply := func(c user.Change) user.Result {
			result, err := h.apply(c)
			h.check(err)
			first = append(first, result)
			return result
		}
		u := apply(changes[0]).User
		for i, op := range []user.Op{
			metadataOp(u.ID, "n", "1"), metadataOp(u.ID, "n", "1"), metadataOp(u.ID, "n", "1"), // the last two change nothing
			&user.SetStatus{ID: u.ID, Status: user.StatusActive, Time: h.clock.Now().Add(time.Second)}, // no new version
			metadataOp(u.ID, "n", "1"), metadataOp(u.ID, "n", "2"), &user.Delete{ID: u.ID},
		} {
			c := user.Change{Op: op, IdempotencyKey: idempotencyKey(fmt.Sprint(i + 1))}
			changes = append(changes, c)
			apply(c)
		}
		for range 2 {
			for i, c := range changes {
				again, err := h.apply(c)
				h.check(err)
				if diff := cmp.Diff(first[i], again, cmpopts.EquateEmpty()); diff != "" {
					h.Errorf("repeated request %d (-first +second):\n%s", i, diff)
				}
			}
			h.clock.Advance(user.RequestIDLifetime - time.Second)
			h.reopen()
		}
	},
	"duplicates in one batch and concurrent duplicates take effect once": func(h *harness) {
		u := h.create("anna")
		change := user.Change{Op: incrementOp(u.ID), IdempotencyKey: idempotencyKey("1")}
		results, err := user.Apply(h.ctx(), h.store, user.Batch{Changes: []user.Change{change, change}})
		h.check(err)
		if diff := cmp.Diff(results[0], results[1]); diff != "" || results[0].Err != nil {
			h.Errorf("duplicate in one batch: error %v (-first +second):\n%s", results[0].Err, diff)
		}
		var pending []*user.Pending
		for range 50 {
			pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: incrementOp(u.ID), IdempotencyKey: idempotencyKey("2")}}}))
		}
		for _, p := range pending {
			results, err := p.Wait(h.ctx())
			if err != nil || results[0].Err != nil || results[0].Position != 3 {
				h.Errorf("duplicate: results %+v, error %v, want position 3", results, err)
			}
		}
		var succeeded atomic.Int64
		runConcurrently(20, func(int) {
			if r, err := h.apply(user.Change{Op: incrementOp(u.ID), IdempotencyKey: idempotencyKey("3")}); err == nil && r.Position == 4 {
				succeeded.Add(1)
			}
		})
		if n := h.get(u.ID).Metadata["n"]; n != "3" || succeeded.Load() != 20 {
			h.Fatalf("counter = %s, %d of 20 duplicates succeeded, want counter 3", n, succeeded.Load())
		}
	},
	"a request id reused for a different request is rejected": func(h *harness) {
		_, err := h.apply(user.Change{Op: createOp("anna"), IdempotencyKey: idempotencyKey("1")})
		h.check(err)
		other := idempotencyKey("1")
		other.Fingerprint[31] = 1
		_, err = h.apply(user.Change{Op: createOp("berta"), IdempotencyKey: other})
		h.wantReason(err, user.RequestIDReused)
		h.reopen()
		_, err = h.apply(user.Change{Op: createOp("berta"), IdempotencyKey: other})
		h.wantReason(err, user.RequestIDReused)
	},
	"request ids are scoped to caller and procedure": func(h *harness) {
		u := h.create("anna")
		for _, o := range []*user.IdempotencyKey{
			idempotencyKey("1"), {Caller: "c", Procedure: "procedure", ID: "1"}, {Caller: "caller", Procedure: "p", ID: "1"}, {ID: "1"}, {},
		} {
			for range 2 {
				_, err := h.apply(user.Change{Op: incrementOp(u.ID), IdempotencyKey: o})
				h.check(err)
			}
		}
		if n := h.get(u.ID).Metadata["n"]; n != "5" {
			h.Fatalf("counter = %s, want 5", n)
		}
	},
	"failures and validate-only results are not stored": func(h *harness) {
		u := h.create("anna")
		o := idempotencyKey("1")
		for _, op := range append(failingOps(u.ID), createOp("anna"), metadataOp(4711, "k", "v")) {
			if _, err := h.apply(user.Change{Op: op, IdempotencyKey: o}); err == nil {
				h.Fatalf("apply(%T) succeeded, want an error", op)
			}
		}
		_, err := h.apply(user.Change{Op: createOp("berta"), IdempotencyKey: o, ValidateOnly: true})
		h.check(err)
		other := idempotencyKey("1")
		other.Fingerprint[0] = 2
		r, err := h.apply(user.Change{Op: createOp("berta"), IdempotencyKey: other})
		if err != nil || r.Outcome != user.OutcomeCreated {
			h.Fatalf("apply = %+v, %v, want a created user", r, err)
		}
	},
	"the result of a change without effect is stored": func(h *harness) {
		u := h.create("anna")
		same := user.Change{Op: renameOp(u.ID, "anna"), IdempotencyKey: idempotencyKey("1")}
		skip := user.Change{Op: createOp("anna"), OnConflict: user.ConflictSkip, IdempotencyKey: idempotencyKey("2")}
		for _, c := range []user.Change{same, skip} {
			first, err := h.apply(c)
			h.check(err)
			h.mustApply(metadataOp(u.ID, "k", c.IdempotencyKey.ID))
			again, err := h.apply(c)
			h.check(err)
			if first.Outcome != user.OutcomeUnchanged || first.Position != again.Position || first.User.Version != again.User.Version {
				h.Errorf("stored result = %+v, want %+v", again, first)
			}
		}
	},
	"a request id expires after its lifetime": func(h *harness) {
		u := h.create("anna")
		c := user.Change{Op: incrementOp(u.ID), IdempotencyKey: idempotencyKey("1")}
		count := func(want string) {
			h.Helper()
			_, err := h.apply(c)
			h.check(err)
			if n := h.get(u.ID).Metadata["n"]; n != want {
				h.Fatalf("counter = %s, want %s", n, want)
			}
		}
		count("1")
		h.clock.Advance(user.RequestIDLifetime - time.Microsecond)
		count("1")
		h.clock.Advance(time.Microsecond)
		count("2")
		count("2")
		h.reopen()
		count("2")
	},
	"ExpireRequestIDs deletes expired request ids only": func(h *harness) {
		for i := range 10 {
			_, err := h.apply(user.Change{Op: createOp(fmt.Sprintf("user%d", i)), IdempotencyKey: idempotencyKey(fmt.Sprint(i))})
			h.check(err)
			h.clock.Advance(time.Hour)
		}
		h.clock.Advance(user.RequestIDLifetime - 6*time.Hour)
		for _, want := range []int{3, 2, 0} {
			n, err := h.store.ExpireRequestIDs(h.ctx(), 3)
			h.check(err)
			if n != want {
				h.Fatalf("ExpireRequestIDs = %d, want %d", n, want)
			}
		}
		for i := 5; i < 10; i++ {
			_, err := h.apply(user.Change{Op: createOp(fmt.Sprintf("user%d", i)), IdempotencyKey: idempotencyKey(fmt.Sprint(i))})
			h.check(err)
		}
	},
}
