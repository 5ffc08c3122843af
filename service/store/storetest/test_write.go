package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/yourorg/userservice/service/user"
)

// incrementOp returns an op that increments the metadata value n.
func incrementOp(id int64) user.Op {
	return opFunc{id, func(cur *user.User, in user.CommitStamp, by user.Author) (user.Decision, error) {
		n, _ := strconv.Atoi(cur.Metadata["n"])
		return metadataOp(id, "n", strconv.Itoa(n+1)).Decide(cur, in, by)
	}}
}

// constantReader returns the same byte again and again, in place of random ones.
type constantReader byte

func (r constantReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r)
	}
	return len(b), nil
}

var writeTests = map[string]func(*harness){
	"acknowledged writes survive a restart": func(h *harness) {
		op, err := user.NewCreate(user.User{Username: "Änne  Müller", Email: "Anne@Example.org", Tags: []string{"a", "b"}, Metadata: map[string]string{"k": "v", "empty": ""}})
		h.check(err)
		u := h.mustApply(op).User
		h.mustApply(&user.SetStatus{ID: u.ID, Status: user.StatusInactive, Time: h.clock.Now().Add(1000)})
		want, rows := h.get(u.ID), h.checkLog()
		h.reopen()
		h.sameUsers([]*user.User{h.get(u.ID)}, []*user.User{want})
		h.sameRows(h.checkLog(), rows)
	},
	"an ID in use is not given to another user": func(h *harness) {
		h.random = constantReader(1)
		h.reopen()
		want := []*user.User{h.create("anna"), h.create("berta")}
		h.reopen() // the IDs start again
		want = append(want, h.create("carla"))
		got, err := h.store.GetMany(h.ctx(), []int64{want[0].ID, want[1].ID, want[2].ID})
		h.check(err)
		h.sameUsers(got, want)
	},
	"each field is stored": func(h *harness) {
		u := h.create("anna")
		for seed := range 2 {
			change := user.Change{Op: fillOp(u.ID, seed), IdempotencyKey: idempotencyKey(strconv.Itoa(seed))}
			result, err := h.apply(change)
			h.check(err)
			want := FilledUser(seed)
			want.ID, want.CreatedAt = u.ID, u.CreatedAt
			page, err := h.store.List(h.ctx(), user.ListQuery{ShowDeleted: true, MaxUsers: 1, MaxScanned: 1, MaxBytes: 1 << 20})
			h.check(err)
			again, err := h.apply(change)
			h.check(err)
			h.sameUsers([]*user.User{result.User, h.get(u.ID), page.Users[0], again.User}, []*user.User{want, want, want, want})
		}
	},
	"a change without memory for its result has no effect": func(h *harness) {
		u := h.create("anna")
		change := user.Change{Op: metadataOp(u.ID, "k", strings.Repeat("v", 500)), IdempotencyKey: idempotencyKey("1")}
		var sizes []int
		refuse := func(bytes int) error { sizes = append(sizes, bytes); return user.NewOverloadedError() }
		change.Reserve = refuse
		if _, err := h.apply(change); !user.HasReason(err, user.Overloaded) {
			h.Fatalf("error without memory = %v, want OVERLOADED", err)
		}
		h.sameUsers([]*user.User{h.get(u.ID)}, []*user.User{u})
		change.Reserve = func(bytes int) error { sizes = append(sizes, bytes); return nil }
		result, err := h.apply(change)
		h.check(err)
		change.Reserve = refuse
		if _, err := h.apply(change); !user.HasReason(err, user.Overloaded) { // the stored result
			h.Fatalf("error of a repeat without memory = %v, want OVERLOADED", err)
		}
		if want := []int{u.Size(), u.Size(), result.User.Size()}; !slices.Equal(sizes, want) {
			h.Fatalf("reserved %v bytes, want %v", sizes, want)
		}
	},
	"concurrent changes of a user are serialized": func(h *harness) {
		u := h.create("anna")
		runConcurrently(20, func(int) {
			for range 5 {
				if _, err := h.apply(user.Change{Op: incrementOp(u.ID)}); err != nil {
					h.Error(err)
				}
			}
		})
		if got := h.get(u.ID); got.Metadata["n"] != "100" || got.Version != 101 {
			h.Fatalf("user after 100 increments = %+v", got)
		}
	},
	"a change is decided after earlier changes of its batch": func(h *harness) {
		u := h.create("anna")
		batch := user.Batch{}
		for range 10 {
			batch.Changes = append(batch.Changes, user.Change{Op: incrementOp(u.ID)})
		}
		results, err := user.Apply(h.ctx(), h.store, batch)
		h.check(err)
		for i, r := range results {
			if r.Err != nil || r.User.Metadata["n"] != fmt.Sprint(i+1) || r.Position != int64(i)+2 {
				h.Fatalf("result %d = %+v", i, r)
			}
		}
	},
	"batches submitted by one goroutine take effect in order": func(h *harness) {
		u := h.create("anna")
		var pending []*user.Pending
		for i := range 200 {
			pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: metadataOp(u.ID, "n", fmt.Sprint(i))}}}))
		}
		for i, p := range pending {
			results, err := p.Wait(h.ctx())
			h.check(err)
			if r := results[0]; r.Err != nil || r.Position != int64(i)+2 {
				h.Fatalf("batch %d: result %+v", i, r)
			}
		}
	},
	"a failed change has no effect on the others of its batch": func(h *harness) {
		u := h.create("anna")
		h.create("berta")
		bad := append(failingOps(u.ID), createOp("berta"), renameOp(u.ID, "BERTA"), metadataOp(4711, "k", "v"), &user.Undelete{ID: u.ID})
		var batch user.Batch
		for i, op := range bad {
			batch.Changes = append(batch.Changes, user.Change{Op: incrementOp(u.ID)}, user.Change{Op: op}, user.Change{Op: createOp(fmt.Sprintf("new%d", i))})
		}
		results, err := user.Apply(h.ctx(), h.store, batch)
		h.check(err)
		for i, r := range results {
			if failed := r.Err != nil; failed != (i%3 == 1) || failed != (r.User == nil) || failed != (r.Outcome == user.OutcomeFailed) {
				h.Errorf("result %d = %+v", i, r)
			}
		}
		if !errors.Is(results[1].Err, errInjected) {
			h.Errorf("results[1].Err = %v, want %v", results[1].Err, errInjected)
		}
		if got := h.get(u.ID); got.Username != "anna" || got.Metadata["n"] != fmt.Sprint(len(bad)) {
			h.Errorf("user after the batch = %+v", got)
		}
		if n := len(h.checkLog()); n != 2+2*len(bad) {
			h.Errorf("log has %d rows, want %d", n, 2+2*len(bad))
		}
	},
	"an unexpected failure has no effect on concurrent batches": func(h *harness) {
		u := h.create("anna")
		var pending []*user.Pending
		for range 20 {
			for _, op := range append(failingOps(u.ID), incrementOp(u.ID)) {
				pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: op}}}))
				pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Atomic: true, Changes: []user.Change{{Op: incrementOp(u.ID)}, {Op: op}}}))
			}
		}
		for i, p := range pending {
			results, err := p.Wait(h.ctx())
			if i%2 == 0 && err == nil {
				err = results[0].Err
			}
			if succeeds := i%6 >= 4; succeeds != (err == nil) {
				h.Errorf("batch %d: error %v, want success %v", i, err, succeeds)
			}
		}
		if n := h.get(u.ID).Metadata["n"]; n != "60" {
			h.Errorf("counter = %s, want 60", n)
		}
		h.checkLog()
	},
	"an atomic batch is applied as a whole or not at all": func(h *harness) {
		u := h.create("anna")
		before := h.get(u.ID)
		for _, op := range append(failingOps(u.ID), createOp("ANNA"), metadataOp(4711, "k", "v")) {
			results, err := user.Apply(h.ctx(), h.store, user.Batch{Atomic: true, Changes: []user.Change{
				{Op: incrementOp(u.ID)}, {Op: createOp("berta")}, {Op: op, IdempotencyKey: idempotencyKey("x")}, {Op: createOp("carla")},
			}})
			var item *user.ItemError
			if !errors.As(err, &item) || item.Index != 2 || results != nil {
				h.Fatalf("Apply = %v, %v, want an ItemError for change 2", results, err)
			}
			h.sameUsers([]*user.User{h.get(u.ID)}, []*user.User{before})
		}
		results, err := user.Apply(h.ctx(), h.store, user.Batch{Atomic: true, Changes: []user.Change{
			{Op: incrementOp(u.ID)}, {Op: createOp("berta")}, {Op: createOp("carla")},
		}})
		h.check(err)
		for i, r := range results {
			if r.Err != nil || r.Position != int64(i)+2 {
				h.Fatalf("result %d = %+v", i, r)
			}
		}
		h.checkLog()
	},
	"an empty batch succeeds": func(h *harness) {
		for _, atomic := range []bool{false, true} {
			results, err := user.Apply(h.ctx(), h.store, user.Batch{Atomic: atomic})
			if err != nil || len(results) != 0 {
				h.Fatalf("Apply(empty, atomic: %v) = %v, %v", atomic, results, err)
			}
		}
	},
	"exactly one of several concurrent creates of one name succeeds": func(h *harness) {
		spellings := []string{"Strasse Nord", "STRASSE NORD", "strasse  nord", "ｓｔｒａｓｓｅ nord", " Strasse Nord "}
		var mu sync.Mutex
		var created []*user.User
		runConcurrently(64, func(i int) {
			op, err := user.NewCreate(user.User{Username: spellings[i%len(spellings)], Email: fmt.Sprintf("u%d@example.org", i)})
			if err != nil {
				h.Error(err)
				return
			}
			result, err := h.apply(user.Change{Op: op})
			if err == nil {
				mu.Lock()
				created = append(created, result.User)
				mu.Unlock()
			} else if !user.HasReason(err, user.UsernameTaken) {
				h.Error(err)
			}
		})
		if len(created) != 1 || len(h.checkLog()) != 1 {
			h.Fatalf("%d creates succeeded, want 1", len(created))
		}
	},
	"names are unique by normal form among users that are not purged": func(h *harness) {
		u, other := h.create("anna"), h.create("berta")
		clash := func(username, email string, reason user.Reason, deleted string) {
			h.Helper()
			op, err := user.NewCreate(user.User{Username: username, Email: email})
			h.check(err)
			_, err = h.apply(user.Change{Op: op})
			_, err2 := h.apply(user.Change{Op: updateOp(other.ID, user.NewPatch(user.User{Username: username, Email: email}))})
			for _, err := range []error{err, err2} {
				h.wantReason(err, reason)
				if e, _ := user.AsError(err); e.Metadata["holder_deleted"] != deleted {
					h.Fatalf("metadata = %v, want holder_deleted=%s", e.Metadata, deleted)
				}
			}
		}
		clash("ＡＮＮＡ", "x@example.org", user.UsernameTaken, "false")
		clash("other", "ANNA@EXAMPLE.ORG", user.EmailTaken, "false")
		clash("Anna", "anna@example.org", user.UsernameTaken, "false")
		h.mustApply(renameOp(u.ID, "ANNA")) // its own name in another spelling
		h.mustApply(&user.Delete{ID: u.ID})
		clash("anna", "x@example.org", user.UsernameTaken, "true")
		clash("other", "anna@example.org", user.EmailTaken, "true")
		h.mustApply(&user.Purge{ID: u.ID})
		h.mustApply(renameOp(other.ID, "anna"))
		h.create("berta2")
		h.checkLog()
	},
	"a name released in a batch is free for later changes of it": func(h *harness) {
		a := h.create("anna")
		results, err := user.Apply(h.ctx(), h.store, user.Batch{Changes: []user.Change{
			{Op: renameOp(a.ID, "berta")}, {Op: renameOp(a.ID, "anna")}, {Op: renameOp(a.ID, "carla")},
			{Op: updateOp(a.ID, user.NewPatch(user.User{Email: "carla@example.org"}))}, {Op: createOp("anna")}, {Op: createOp("carla")},
		}})
		h.check(err)
		for i, r := range results {
			if (r.Err == nil) != (i < 5) {
				h.Errorf("change %d: error %v, want success %v", i, r.Err, i < 5)
			}
		}
	},
	"the conflict policy decides about a taken name": func(h *harness) {
		anna, berta, gone := h.create("anna"), h.create("berta"), h.create("gone")
		h.mustApply(&user.Delete{ID: gone.ID, Retention: user.DefaultRetention})
		try := func(policy user.Conflict, validate bool, username, email string) (user.Result, error) {
			op, err := user.NewCreate(user.User{Username: username, Email: email, Tags: []string{"new"}})
			h.check(err)
			return h.apply(user.Change{Op: op, OnConflict: policy, ValidateOnly: validate})
		}
		for _, validate := range []bool{true, false} {
			want := map[bool][]user.Outcome{
				true:  {user.OutcomeValid, user.OutcomeValid, user.OutcomeValid},
				false: {user.OutcomeUnchanged, user.OutcomeUnchanged, user.OutcomeUpdated},
			}[validate]
			_, err := try(user.ConflictFail, validate, "ANNA", "a@example.org")
			h.wantReason(err, user.UsernameTaken)
			r, err := try(user.ConflictSkip, validate, "ANNA", "a@example.org")
			if err != nil || r.Outcome != want[0] || r.User.ID != anna.ID || r.User.Version != 1 {
				h.Fatalf("ConflictSkip: %+v, %v", r, err)
			}
			r, err = try(user.ConflictSkip, validate, "anna", "berta@example.org")
			if err != nil || r.Outcome != want[1] || r.User.ID != anna.ID {
				h.Fatalf("ConflictSkip with two holders: %+v, %v", r, err)
			}
			_, err = try(user.ConflictUpdate, validate, "anna", "berta@example.org")
			h.wantReason(err, user.UsernameTaken)
			_, err = try(user.ConflictUpdate, validate, "gone", "g@example.org")
			h.wantReason(err, user.UsernameTaken)
			r, err = try(user.ConflictUpdate, validate, "Berta", "berta@example.net")
			if err != nil || r.Outcome != want[2] || r.User.ID != berta.ID || !slices.Equal(r.User.Tags, []string{"new"}) {
				h.Fatalf("ConflictUpdate: %+v, %v", r, err)
			}
		}
		if u := h.get(berta.ID); u.Username != "Berta" || u.Email != "berta@example.net" || u.Version != 2 {
			h.Fatalf("user after ConflictUpdate = %+v", u)
		}
		h.checkLog()
	},
	"ValidateOnly runs all checks and stores nothing": func(h *harness) {
		u := h.create("anna")
		h.create("berta")
		before, head := h.get(u.ID), h.head()
		try := func(op user.Op) (user.Result, error) {
			return h.apply(user.Change{Op: op, ValidateOnly: true, IdempotencyKey: idempotencyKey("v")})
		}
		for range 2 {
			r, err := try(createOp("carla"))
			if err != nil || r.Outcome != user.OutcomeValid || r.User.ID != 0 || r.User.Username != "carla" || len(r.Rows) != 0 {
				h.Fatalf("apply(ValidateOnly) = %+v, %v", r, err)
			}
			r, err = try(renameOp(u.ID, "annabel"))
			if err != nil || r.Outcome != user.OutcomeValid || r.User.Username != "annabel" || len(r.Rows) != 0 {
				h.Fatalf("apply(ValidateOnly) = %+v, %v", r, err)
			}
			_, err = try(createOp("BERTA"))
			h.wantReason(err, user.UsernameTaken)
			_, err = try(renameOp(u.ID, "berta"))
			h.wantReason(err, user.UsernameTaken)
			_, err = try(metadataOp(4711, "k", "v"))
			h.wantReason(err, user.UserNotFound)
			_, err = try(&user.Delete{ID: u.ID})
			h.check(err)
		}
		h.sameUsers([]*user.User{h.get(u.ID)}, []*user.User{before})
		if h.head() != head {
			h.Fatalf("head = %+v, want %+v", h.head(), head)
		}
	},
	"a batch with a canceled context is not applied": func(h *harness) {
		ctx, cancel := context.WithCancel(h.ctx())
		cancel()
		_, err := h.store.Submit(ctx, user.Batch{Changes: []user.Change{{Op: createOp("anna")}}}).Wait(h.ctx())
		if !errors.Is(err, context.Canceled) {
			h.Fatalf("error = %v, want context.Canceled", err)
		}
		if head := h.head(); head.Position != 0 {
			h.Fatalf("head = %+v, want position 0", head)
		}
	},
	"Close waits for submitted batches; later calls fail": func(h *harness) {
		var pending []*user.Pending
		for i := range 50 {
			pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: createOp(fmt.Sprintf("user%d", i))}}}))
		}
		old := h.store
		h.reopen()
		for _, p := range pending {
			results, err := p.Wait(h.ctx())
			h.check(err)
			h.get(results[0].User.ID)
		}
		h.check(old.Close())
		if _, err := user.ApplyOne(h.ctx(), old, user.Change{Op: createOp("late")}); err == nil {
			h.Error("write to a closed store succeeded")
		}
		if _, err := old.Get(h.ctx(), 1); err == nil || user.HasReason(err, user.UserNotFound) {
			h.Errorf("Get on a closed store: error = %v", err)
		}
	},
	"values of maximum size are stored unchanged": func(h *harness) {
		name := strings.Repeat("ü", user.MaxUsername)
		var tags []string
		metadata := map[string]string{}
		for i := range user.MaxTags {
			tags = append(tags, fmt.Sprintf("%02d%s", i, strings.Repeat("語", user.MaxTag-2)))
			metadata[fmt.Sprintf("%02d%s", i, strings.Repeat("語", user.MaxMetadataKey-2))] = strings.Repeat("x", user.MaxMetadataValue)
		}
		op, err := user.NewCreate(user.User{Username: name, Email: strings.Repeat("l", 64) + "@" + strings.Repeat("d", 60) + ".example", Tags: tags, Metadata: metadata})
		h.check(err)
		u := h.get(h.mustApply(op).User.ID)
		if u.Username != name || !slices.Equal(u.Tags, tags) || !maps.Equal(u.Metadata, metadata) {
			h.Fatal("Get returned different values")
		}
	},
}
