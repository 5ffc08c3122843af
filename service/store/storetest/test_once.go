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

func once(id string) *user.Once {
	return &user.Once{Caller: "caller", Procedure: "procedure", ID: id, Fingerprint: [32]byte{1}}
}

// full creates anna with everything that an answer must remember.
func (h *harness) full() user.Op {
	op, err := user.NewCreate("anna", "anna@example.org", []string{"a", "b"}, map[string]string{"k": "v"})
	h.check(err)
	return op
}

var onceTests = map[string]func(*harness){
	"a request takes effect once and gives its first success again, over restarts too": func(h *harness) {
		by := user.Author{Actor: "somebody", RequestID: "1"}
		create := user.Change{Op: h.full(), Once: once("1"), By: by}
		made, err := h.apply(create)
		h.check(err)
		note := user.Change{Op: noting(made.User.ID, "n", "1"), Once: once("2")}
		noted, err := h.apply(note)
		h.check(err)
		remove := user.Change{Op: &user.Delete{ID: made.User.ID, Retention: time.Hour}, Once: once("3")}
		removed, err := h.apply(remove)
		h.check(err)
		for range 2 {
			h.clock.Advance(time.Hour)
			for i, c := range []user.Change{create, note, remove} {
				again, err := h.apply(c)
				h.check(err)
				if diff := cmp.Diff([]user.Result{made, noted, removed}[i], again); diff != "" {
					h.Errorf("request %d, repeated (-first +second):\n%s", i+1, diff)
				}
			}
			h.reopen()
		}
		if n := len(h.checkLog()); n != 3 {
			h.Fatalf("%d rows", n)
		}
	},
	"results of a large user are given again as they were, whatever the user is by then": func(h *harness) {
		metadata := make(map[string]string)
		for i := range 20 {
			metadata[fmt.Sprint("key", i)] = strings.Repeat("v", 1000)
		}
		op, err := user.NewCreate("anna", "anna@example.org", []string{"a"}, metadata)
		h.check(err)
		changes := []user.Change{{Op: op, Once: once("0")}}
		var first []user.Result
		apply := func(c user.Change) user.Result {
			result, err := h.apply(c)
			h.check(err)
			first = append(first, result)
			return result
		}
		u := apply(changes[0]).User
		for i, op := range []user.Op{
			noting(u.ID, "n", "1"), noting(u.ID, "n", "1"), noting(u.ID, "n", "1"), // two that change nothing
			&user.SetStatus{ID: u.ID, Status: user.StatusActive, Time: h.clock.Now().Add(time.Second)}, // no new version
			noting(u.ID, "n", "1"), noting(u.ID, "n", "2"), &user.Delete{ID: u.ID},
		} {
			c := user.Change{Op: op, Once: once(fmt.Sprint(i + 1))}
			changes = append(changes, c)
			apply(c)
		}
		for range 2 {
			for i, c := range changes {
				again, err := h.apply(c)
				h.check(err)
				if diff := cmp.Diff(first[i], again, cmpopts.EquateEmpty()); diff != "" {
					h.Errorf("request %d, repeated (-first +second):\n%s", i, diff)
				}
			}
			h.clock.Advance(user.RequestIDLifetime - time.Second)
			h.reopen()
		}
	},
	"a request takes effect once within one batch and at once": func(h *harness) {
		u := h.create("anna")
		change := user.Change{Op: counting(u.ID), Once: once("1")}
		results, err := user.Apply(h.ctx(), h.store, user.Batch{Changes: []user.Change{change, change}})
		h.check(err)
		if diff := cmp.Diff(results[0], results[1]); diff != "" || results[0].Err != nil {
			h.Errorf("%v %s", results[0].Err, diff)
		}
		var pending []*user.Pending
		for range 50 {
			pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: counting(u.ID), Once: once("2")}}}))
		}
		for _, p := range pending {
			results, err := p.Wait(h.ctx())
			if err != nil || results[0].Err != nil || results[0].Position != 3 {
				h.Errorf("%v %+v", err, results)
			}
		}
		var ended atomic.Int64
		together(20, func(int) {
			if r, err := h.apply(user.Change{Op: counting(u.ID), Once: once("3")}); err == nil && r.Position == 4 {
				ended.Add(1)
			}
		})
		if n := h.get(u.ID).Metadata["n"]; n != "3" || ended.Load() != 20 {
			h.Fatalf("counted %s, %d ended well", n, ended.Load())
		}
	},
	"a request id with another request is refused": func(h *harness) {
		_, err := h.apply(user.Change{Op: creating("anna"), Once: once("1")})
		h.check(err)
		other := once("1")
		other.Fingerprint[31] = 1
		_, err = h.apply(user.Change{Op: creating("berta"), Once: other})
		h.wantReason(err, user.RequestIDReused)
		h.reopen()
		_, err = h.apply(user.Change{Op: creating("berta"), Once: other})
		h.wantReason(err, user.RequestIDReused)
	},
	"request ids belong to a caller and a procedure": func(h *harness) {
		u := h.create("anna")
		for _, o := range []*user.Once{
			once("1"), {Caller: "c", Procedure: "procedure", ID: "1"}, {Caller: "caller", Procedure: "p", ID: "1"}, {ID: "1"}, {},
		} {
			for range 2 {
				_, err := h.apply(user.Change{Op: counting(u.ID), Once: o})
				h.check(err)
			}
		}
		if n := h.get(u.ID).Metadata["n"]; n != "5" {
			h.Fatalf("counted %s", n)
		}
	},
	"failures and validate only are not remembered": func(h *harness) {
		u := h.create("anna")
		o := once("1")
		for _, op := range append(breaking(u.ID), creating("anna"), noting(4711, "k", "v")) {
			if _, err := h.apply(user.Change{Op: op, Once: o}); err == nil {
				h.Fatal("no failure")
			}
		}
		_, err := h.apply(user.Change{Op: creating("berta"), Once: o, ValidateOnly: true})
		h.check(err)
		other := once("1")
		other.Fingerprint[0] = 2
		r, err := h.apply(user.Change{Op: creating("berta"), Once: other})
		if err != nil || r.Outcome != user.OutcomeCreated {
			h.Fatalf("%+v %v", r, err)
		}
	},
	"a success that changed nothing is remembered": func(h *harness) {
		u := h.create("anna")
		same := user.Change{Op: renaming(u.ID, "anna"), Once: once("1")}
		skip := user.Change{Op: creating("anna"), OnConflict: user.ConflictSkip, Once: once("2")}
		for _, c := range []user.Change{same, skip} {
			first, err := h.apply(c)
			h.check(err)
			h.do(noting(u.ID, "k", c.Once.ID))
			again, err := h.apply(c)
			h.check(err)
			if first.Outcome != user.OutcomeUnchanged || first.Position != again.Position || first.User.Version != again.User.Version {
				h.Errorf("first %+v, again %+v", first, again)
			}
		}
	},
	"a request id is forgotten after its lifetime": func(h *harness) {
		u := h.create("anna")
		c := user.Change{Op: counting(u.ID), Once: once("1")}
		count := func(want string) {
			h.Helper()
			_, err := h.apply(c)
			h.check(err)
			if n := h.get(u.ID).Metadata["n"]; n != want {
				h.Fatalf("counted %s, want %s", n, want)
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
	"forget drops what is past its lifetime, and that only": func(h *harness) {
		for i := range 10 {
			_, err := h.apply(user.Change{Op: creating(fmt.Sprintf("user%d", i)), Once: once(fmt.Sprint(i))})
			h.check(err)
			h.clock.Advance(time.Hour)
		}
		h.clock.Advance(user.RequestIDLifetime - 6*time.Hour)
		for _, want := range []int{3, 2, 0} {
			n, err := h.store.ForgetRequests(h.ctx(), 3)
			h.check(err)
			if n != want {
				h.Fatalf("dropped %d, want %d", n, want)
			}
		}
		for i := 5; i < 10; i++ {
			_, err := h.apply(user.Change{Op: creating(fmt.Sprintf("user%d", i)), Once: once(fmt.Sprint(i))})
			h.check(err)
		}
	},
}
