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

// counting is an op that adds one to a number in the user's metadata.
func counting(id int64) user.Op {
	return opFunc{id, func(cur *user.User, in user.Moment, by user.Author) (user.Decision, error) {
		n, _ := strconv.Atoi(cur.Metadata["n"])
		return noting(id, "n", strconv.Itoa(n+1)).Decide(cur, in, by)
	}}
}

var writeTests = map[string]func(*harness){
	"what was acknowledged is there after a restart": func(h *harness) {
		op, err := user.NewCreate("Änne  Müller", "Anne@Example.org", []string{"a", "b"}, map[string]string{"k": "v", "empty": ""})
		h.check(err)
		u := h.do(op).User
		h.do(&user.SetStatus{ID: u.ID, Status: user.StatusInactive, Time: h.clock.Now().Add(1000)})
		want, rows := h.get(u.ID), h.checkLog()
		h.reopen()
		h.sameUsers([]*user.User{h.get(u.ID)}, []*user.User{want})
		h.sameRows(h.checkLog(), rows)
	},
	"changes are decided one after the other": func(h *harness) {
		u := h.create("anna")
		together(20, func(int) {
			for range 5 {
				if _, err := h.apply(user.Change{Op: counting(u.ID)}); err != nil {
					h.Error(err)
				}
			}
		})
		if got := h.get(u.ID); got.Metadata["n"] != "100" || got.Version != 101 {
			h.Fatalf("100 changes gave %+v", got)
		}
	},
	"changes of one batch see each other": func(h *harness) {
		u := h.create("anna")
		batch := user.Batch{}
		for range 10 {
			batch.Changes = append(batch.Changes, user.Change{Op: counting(u.ID)})
		}
		results, err := user.Apply(h.ctx(), h.store, batch)
		h.check(err)
		for i, r := range results {
			if r.Err != nil || r.User.Metadata["n"] != fmt.Sprint(i+1) || r.Position != int64(i)+2 {
				h.Fatalf("change %d gave %+v", i, r)
			}
		}
	},
	"batches of one goroutine take effect in their order": func(h *harness) {
		u := h.create("anna")
		var pending []*user.Pending
		for i := range 200 {
			pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: noting(u.ID, "n", fmt.Sprint(i))}}}))
		}
		for i, p := range pending {
			results, err := p.Wait(h.ctx())
			h.check(err)
			if r := results[0]; r.Err != nil || r.Position != int64(i)+2 {
				h.Fatalf("batch %d: %+v", i, r)
			}
		}
	},
	"a change that fails leaves nothing behind and harms no other": func(h *harness) {
		u := h.create("anna")
		h.create("berta")
		bad := append(breaking(u.ID), creating("berta"), renaming(u.ID, "BERTA"), noting(4711, "k", "v"), &user.Undelete{ID: u.ID})
		var batch user.Batch
		for i, op := range bad {
			batch.Changes = append(batch.Changes, user.Change{Op: counting(u.ID)}, user.Change{Op: op}, user.Change{Op: creating(fmt.Sprintf("new%d", i))})
		}
		results, err := user.Apply(h.ctx(), h.store, batch)
		h.check(err)
		for i, r := range results {
			if failed := r.Err != nil; failed != (i%3 == 1) || failed != (r.User == nil) || failed != (r.Outcome == user.OutcomeFailed) {
				h.Errorf("change %d gave %+v", i, r)
			}
		}
		if !errors.Is(results[1].Err, errPlanned) {
			h.Errorf("the error of a change that failed: %v", results[1].Err)
		}
		if got := h.get(u.ID); got.Username != "anna" || got.Metadata["n"] != fmt.Sprint(len(bad)) {
			h.Errorf("the user has become %+v", got)
		}
		if n := len(h.checkLog()); n != 2+2*len(bad) {
			h.Errorf("%d rows", n)
		}
	},
	"a change that fails unexpectedly harms no batch beside it": func(h *harness) {
		u := h.create("anna")
		var pending []*user.Pending
		for range 20 {
			for _, op := range append(breaking(u.ID), counting(u.ID)) {
				pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: op}}}))
				pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Atomic: true, Changes: []user.Change{{Op: counting(u.ID)}, {Op: op}}}))
			}
		}
		for i, p := range pending {
			results, err := p.Wait(h.ctx())
			if i%2 == 0 && err == nil {
				err = results[0].Err
			}
			if good := i%6 >= 4; good != (err == nil) {
				h.Errorf("batch %d: %v", i, err)
			}
		}
		if n := h.get(u.ID).Metadata["n"]; n != "60" {
			h.Errorf("counted %s, want 60", n)
		}
		h.checkLog()
	},
	"an atomic batch is carried out as a whole or not at all": func(h *harness) {
		u := h.create("anna")
		before := h.get(u.ID)
		for _, op := range append(breaking(u.ID), creating("ANNA"), noting(4711, "k", "v")) {
			results, err := user.Apply(h.ctx(), h.store, user.Batch{Atomic: true, Changes: []user.Change{
				{Op: counting(u.ID)}, {Op: creating("berta")}, {Op: op, Once: once("x")}, {Op: creating("carla")},
			}})
			var item *user.ItemError
			if !errors.As(err, &item) || item.Index != 2 || results != nil {
				h.Fatalf("a batch whose third change fails: %v, %v", results, err)
			}
			h.sameUsers([]*user.User{h.get(u.ID)}, []*user.User{before})
		}
		results, err := user.Apply(h.ctx(), h.store, user.Batch{Atomic: true, Changes: []user.Change{
			{Op: counting(u.ID)}, {Op: creating("berta")}, {Op: creating("carla")},
		}})
		h.check(err)
		for i, r := range results {
			if r.Err != nil || r.Position != int64(i)+2 {
				h.Fatalf("change %d: %+v", i, r)
			}
		}
		h.checkLog()
	},
	"an empty batch has an empty result": func(h *harness) {
		for _, atomic := range []bool{false, true} {
			results, err := user.Apply(h.ctx(), h.store, user.Batch{Atomic: atomic})
			if err != nil || len(results) != 0 {
				h.Fatal(results, err)
			}
		}
	},
	"of simultaneous creates of one name exactly one succeeds": func(h *harness) {
		spellings := []string{"Strasse Nord", "STRASSE NORD", "strasse  nord", "ｓｔｒａｓｓｅ nord", " Strasse Nord "}
		var mu sync.Mutex
		var made []*user.User
		together(64, func(i int) {
			op, err := user.NewCreate(spellings[i%len(spellings)], fmt.Sprintf("u%d@example.org", i), nil, nil)
			if err != nil {
				h.Error(err)
				return
			}
			result, err := h.apply(user.Change{Op: op})
			if err == nil {
				mu.Lock()
				made = append(made, result.User)
				mu.Unlock()
			} else if !user.HasReason(err, user.UsernameTaken) {
				h.Error(err)
			}
		})
		if len(made) != 1 || len(h.checkLog()) != 1 {
			h.Fatalf("%d were made", len(made))
		}
	},
	"names are unique by their keys among all that are not purged": func(h *harness) {
		u, other := h.create("anna"), h.create("berta")
		clash := func(username, email string, reason user.Reason, deleted string) {
			h.Helper()
			op, err := user.NewCreate(username, email, nil, nil)
			h.check(err)
			_, err = h.apply(user.Change{Op: op})
			_, err2 := h.apply(user.Change{Op: updating(other.ID, user.Patch{Username: &username, Email: &email})})
			for _, err := range []error{err, err2} {
				h.wantReason(err, reason)
				if e, _ := user.AsError(err); e.Metadata["holder_deleted"] != deleted {
					h.Fatalf("metadata %v", e.Metadata)
				}
			}
		}
		clash("ＡＮＮＡ", "x@example.org", user.UsernameTaken, "false")
		clash("other", "ANNA@EXAMPLE.ORG", user.EmailTaken, "false")
		clash("Anna", "anna@example.org", user.UsernameTaken, "false")
		h.do(renaming(u.ID, "ANNA")) // her own name in another spelling
		h.do(&user.Delete{ID: u.ID})
		clash("anna", "x@example.org", user.UsernameTaken, "true")
		clash("other", "anna@example.org", user.EmailTaken, "true")
		h.do(&user.Purge{ID: u.ID})
		h.do(renaming(other.ID, "anna"))
		h.create("berta2")
		h.checkLog()
	},
	"names can be handed on within one batch": func(h *harness) {
		a := h.create("anna")
		results, err := user.Apply(h.ctx(), h.store, user.Batch{Changes: []user.Change{
			{Op: renaming(a.ID, "berta")}, {Op: renaming(a.ID, "anna")}, {Op: renaming(a.ID, "carla")},
			{Op: updating(a.ID, user.Patch{Email: new("carla@example.org")})}, {Op: creating("anna")}, {Op: creating("carla")},
		}})
		h.check(err)
		for i, r := range results {
			if (r.Err == nil) != (i < 5) {
				h.Errorf("change %d: %v", i, r.Err)
			}
		}
	},
	"a taken name is treated by the conflict policy": func(h *harness) {
		anna, berta, gone := h.create("anna"), h.create("berta"), h.create("gone")
		h.do(&user.Delete{ID: gone.ID, Retention: user.DefaultRetention})
		try := func(policy user.Conflict, validate bool, username, email string) (user.Result, error) {
			op, err := user.NewCreate(username, email, []string{"new"}, nil)
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
				h.Fatalf("skip: %+v %v", r, err)
			}
			r, err = try(user.ConflictSkip, validate, "anna", "berta@example.org")
			if err != nil || r.Outcome != want[1] || r.User.ID != anna.ID {
				h.Fatalf("skip with two holders: %+v %v", r, err)
			}
			_, err = try(user.ConflictUpdate, validate, "anna", "berta@example.org")
			h.wantReason(err, user.UsernameTaken)
			_, err = try(user.ConflictUpdate, validate, "gone", "g@example.org")
			h.wantReason(err, user.UsernameTaken)
			r, err = try(user.ConflictUpdate, validate, "Berta", "berta@example.net")
			if err != nil || r.Outcome != want[2] || r.User.ID != berta.ID || !slices.Equal(r.User.Tags, []string{"new"}) {
				h.Fatalf("update: %+v %v", r, err)
			}
		}
		if u := h.get(berta.ID); u.Username != "Berta" || u.Email != "berta@example.net" || u.Version != 2 {
			h.Fatalf("updated to %+v", u)
		}
		h.checkLog()
	},
	"validate only runs every check and stores nothing": func(h *harness) {
		u := h.create("anna")
		h.create("berta")
		before, head := h.get(u.ID), h.head()
		try := func(op user.Op) (user.Result, error) {
			return h.apply(user.Change{Op: op, ValidateOnly: true, Once: once("v")})
		}
		for range 2 {
			r, err := try(creating("carla"))
			if err != nil || r.Outcome != user.OutcomeValid || r.User.ID != 0 || r.User.Username != "carla" || len(r.Rows) != 0 {
				h.Fatalf("%+v %v", r, err)
			}
			r, err = try(renaming(u.ID, "annabel"))
			if err != nil || r.Outcome != user.OutcomeValid || r.User.Username != "annabel" || len(r.Rows) != 0 {
				h.Fatalf("%+v %v", r, err)
			}
			_, err = try(creating("BERTA"))
			h.wantReason(err, user.UsernameTaken)
			_, err = try(renaming(u.ID, "berta"))
			h.wantReason(err, user.UsernameTaken)
			_, err = try(noting(4711, "k", "v"))
			h.wantReason(err, user.UserNotFound)
			_, err = try(&user.Delete{ID: u.ID})
			h.check(err)
		}
		h.sameUsers([]*user.User{h.get(u.ID)}, []*user.User{before})
		if h.head() != head {
			h.Fatalf("the head has moved to %+v", h.head())
		}
	},
	"a batch whose context has ended is not carried out": func(h *harness) {
		ctx, cancel := context.WithCancel(h.ctx())
		cancel()
		_, err := h.store.Submit(ctx, user.Batch{Changes: []user.Change{{Op: creating("anna")}}}).Wait(h.ctx())
		if !errors.Is(err, context.Canceled) {
			h.Fatalf("error %v", err)
		}
		if head := h.head(); head.Position != 0 {
			h.Fatalf("head %+v", head)
		}
	},
	"close waits for what was handed in, and ends the store": func(h *harness) {
		var pending []*user.Pending
		for i := range 50 {
			pending = append(pending, h.store.Submit(h.ctx(), user.Batch{Changes: []user.Change{{Op: creating(fmt.Sprintf("user%d", i))}}}))
		}
		old := h.store
		h.reopen()
		for _, p := range pending {
			results, err := p.Wait(h.ctx())
			h.check(err)
			h.get(results[0].User.ID)
		}
		h.check(old.Close())
		if _, err := user.ApplyOne(h.ctx(), old, user.Change{Op: creating("late")}); err == nil {
			h.Error("a closed store took a write")
		}
		if _, err := old.Get(h.ctx(), 1); err == nil || user.HasReason(err, user.UserNotFound) {
			h.Errorf("a closed store answered: %v", err)
		}
	},
	"the greatest values that there may be are kept": func(h *harness) {
		name := strings.Repeat("ü", user.MaxUsername)
		var tags []string
		metadata := map[string]string{}
		for i := range user.MaxTags {
			tags = append(tags, fmt.Sprintf("%02d%s", i, strings.Repeat("語", user.MaxTag-2)))
			metadata[fmt.Sprintf("%02d%s", i, strings.Repeat("語", user.MaxMetadataKey-2))] = strings.Repeat("x", user.MaxMetadataValue)
		}
		op, err := user.NewCreate(name, strings.Repeat("l", 64)+"@"+strings.Repeat("d", 60)+".example", tags, metadata)
		h.check(err)
		u := h.get(h.do(op).User.ID)
		if u.Username != name || !slices.Equal(u.Tags, tags) || !maps.Equal(u.Metadata, metadata) {
			h.Fatal("they have changed")
		}
	},
}
