package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// sameRows compares rows; an empty slice or map equals nil.
func (h *harness) sameRows(got, want []user.Activity) {
	h.Helper()
	if diff := difference(want, got); diff != "" {
		h.Fatalf("rows (-want +got):\n%s", diff)
	}
}

func (h *harness) sameUsers(got, want []*user.User) {
	h.Helper()
	if diff := difference(want, got); diff != "" {
		h.Fatalf("users (-want +got):\n%s", diff)
	}
}

var readTests = map[string]func(*harness){
	"a read returns all changes acknowledged before it": func(h *harness) {
		runConcurrently(8, func(i int) {
			for k := range 20 {
				r, err := h.apply(user.Change{Op: createOp(fmt.Sprintf("user%d-%d", i, k))})
				if err != nil {
					h.Error(err)
					return
				}
				if _, err := h.store.Get(h.ctx(), r.User.ID); err != nil {
					h.Error(err)
				}
				if head := h.head(); head.Position < r.Position {
					h.Errorf("head position = %d after a result at %d", head.Position, r.Position)
				}
				page, err := h.store.Log(h.ctx(), user.LogQuery{After: r.Position - 1, MaxRows: 1})
				if err != nil || len(page.Rows) != 1 || page.Rows[0].UserID != r.User.ID {
					h.Errorf("Log = %+v, %v, want the row of the user", page, err)
				}
			}
		})
	},
	"reads of a user never go back": func(h *harness) {
		id := h.create("ada").ID
		var acknowledged atomic.Int64
		var writes sync.WaitGroup
		var done atomic.Bool
		writes.Go(func() {
			defer done.Store(true)
			for i := range 150 {
				r, err := h.apply(user.Change{Op: &user.SetStatus{ID: id, Status: user.StatusActive + user.Status(1+i)%2}})
				if err != nil {
					h.Error(err)
					return
				}
				acknowledged.Store(r.User.Version)
			}
		})
		runConcurrently(4, func(reader int) {
			for last, i := int64(0), reader; !done.Load(); i++ {
				least := max(last, acknowledged.Load())
				u, err := h.store.Get(h.ctx(), id)
				if i%2 == 0 {
					var users []*user.User
					if users, err = h.store.GetMany(h.ctx(), []int64{id}); err == nil {
						u = users[0]
					}
				}
				if err != nil || u.Version < least {
					h.Errorf("got %+v, %v, want version %d or later", u, err, least)
					return
				}
				last = u.Version
			}
		})
		writes.Wait()
	},
	"callers may modify returned users and rows": func(h *harness) {
		change := user.Change{Op: h.createWithAllFields(), IdempotencyKey: idempotencyKey("1")}
		first, err := h.apply(change)
		h.check(err)
		want, rows := h.get(first.User.ID), h.checkLog()
		modify := func(u *user.User) {
			u.Username, u.Version, u.Tags[0], u.Metadata["k"] = "modified", 99, "modified", "modified"
		}
		modifyRows := func(rows []user.Activity) {
			rows[0].Action, rows[0].Details["new.username"] = "modified", "modified"
		}
		modify(first.User)
		modifyRows(first.Rows)
		modify(h.get(first.User.ID))
		many, err := h.store.GetMany(h.ctx(), []int64{first.User.ID})
		h.check(err)
		modify(many[0])
		page, err := h.store.List(h.ctx(), user.ListQuery{MaxUsers: 1, MaxScanned: 1})
		h.check(err)
		modify(page.Users[0])
		modifyRows(h.log(user.LogQuery{}))
		again, err := h.apply(change)
		h.check(err)
		h.sameUsers([]*user.User{h.get(want.ID), again.User}, []*user.User{want, want})
		h.sameRows(h.checkLog(), rows)
		h.sameRows(again.Rows, rows)
	},
	"Get of an unknown user fails with USER_NOT_FOUND": func(h *harness) {
		for _, id := range []int64{0, -1, 1, 1 << 62} {
			_, err := h.store.Get(h.ctx(), id)
			h.wantReason(err, user.UserNotFound)
		}
	},
	"Get returns deleted users": func(h *harness) {
		u := h.create("anna")
		h.mustApply(&user.Delete{ID: u.ID, Retention: time.Hour})
		got := h.get(u.ID)
		if !got.DeletedAt.Equal(h.clock.Now()) || !got.PurgeAt.Equal(h.clock.Now().Add(time.Hour)) {
			h.Fatalf("%+v", got)
		}
		h.mustApply(&user.Undelete{ID: u.ID})
		if got := h.get(u.ID); got.Deleted() || !got.PurgeAt.IsZero() || got.Version != 3 {
			h.Fatalf("%+v", got)
		}
	},
	"GetMany keeps the order of the ids": func(h *harness) {
		var ids []int64
		for i := range 20 {
			ids = append(ids, h.create(fmt.Sprintf("user%d", i)).ID)
		}
		ask := []int64{ids[3], 4711, ids[19], ids[0], ids[3], -1}
		users, err := h.store.GetMany(h.ctx(), ask)
		h.check(err)
		var got []int64
		for _, u := range users {
			got = append(got, u.ID)
		}
		if !slices.Equal(got, []int64{ids[3], ids[19], ids[0], ids[3]}) {
			h.Fatalf("GetMany = %v of %v", got, ids)
		}
	},
	"Statuses agrees with GetMany": func(h *harness) {
		h.check(h.matchStatuses(nil))
		var batch user.Batch
		for i := range 600 { // more than one chunk
			batch.Changes = append(batch.Changes, user.Change{Op: createOp(fmt.Sprintf("user%d", i))})
		}
		created, err := user.Apply(h.ctx(), h.store, batch)
		h.check(err)
		var ids []int64
		for _, r := range created {
			ids = append(ids, r.User.ID)
		}
		h.clock.Advance(time.Second)
		h.mustApply(&user.SetStatus{ID: ids[1], Status: user.StatusInactive, Time: h.clock.Now().Add(-time.Millisecond)})
		h.mustApply(&user.Delete{ID: ids[2], Retention: time.Hour})
		h.mustApply(&user.Delete{ID: ids[4], Retention: time.Hour})
		h.mustApply(&user.Undelete{ID: ids[4]})
		h.mustApply(&user.Delete{ID: ids[5]})
		h.mustApply(&user.Purge{ID: ids[5]})
		h.check(h.matchStatuses(append([]int64{ids[300], 4711, ids[1], ids[300], -1}, ids...)))
	},
	"pages of users add up to a full sort in every order and direction": func(h *harness) {
		short := func(u *user.User, k user.Keys) bool { return len(k.Username) < 7 && u.Username != "" && k.Email != "" }
		start := h.clock.Now()
		reference := h.fillUsers(120)
		at := func(share int) time.Time { return start.Add(h.clock.Now().Sub(start) * time.Duration(share) / 10) }
		for _, order := range user.Orders() {
			for _, desc := range []bool{false, true} {
				for _, q := range []user.ListQuery{
					{MaxUsers: 1000, MaxScanned: 1000, MaxBytes: 1 << 20},
					{MaxUsers: 7, MaxScanned: 1000, MaxBytes: 1 << 20, ShowDeleted: true},
					{MaxUsers: 7, MaxScanned: 5, MaxBytes: 1 << 20, Match: short},
					{MaxUsers: 50, MaxScanned: 50, MaxBytes: 400, ShowDeleted: true},
					{MaxUsers: 1, MaxScanned: 1, MaxBytes: 1},
					{MaxUsers: 3, MaxScanned: 9, MaxBytes: 1 << 20, Prefix: "a"},
					{MaxUsers: 3, MaxScanned: 9, MaxBytes: 1 << 20, Prefix: "äb"},
					{MaxUsers: 3, MaxScanned: 9, MaxBytes: 1 << 20, Prefix: "zzzz"},
					{MaxUsers: 7, MaxScanned: 9, MaxBytes: 1 << 20, AfterActivity: 20, BeforeActivity: 70},
					{MaxUsers: 7, MaxScanned: 9, MaxBytes: 1 << 20, AfterActivity: 100},
					{MaxUsers: 7, MaxScanned: 9, MaxBytes: 1 << 20, AfterActivity: 1000},
					{MaxUsers: 7, MaxScanned: 9, MaxBytes: 1 << 20, BeforeActivity: 1},
					{MaxUsers: 3, MaxScanned: 9, MaxBytes: 1 << 20, Created: user.TimeRange{From: at(3), Until: at(8)}},
					{MaxUsers: 7, MaxScanned: 5, MaxBytes: 1 << 20, Created: user.TimeRange{From: at(5)}, Match: short},
					{MaxUsers: 7, MaxScanned: 9, MaxBytes: 1 << 20, Created: user.TimeRange{Until: at(4).Add(time.Nanosecond)}},
					{MaxUsers: 7, MaxScanned: 9, MaxBytes: 1 << 20, Created: user.TimeRange{From: at(11)}},
				} {
					if q.Prefix != "" && order != user.ByUsername && order != user.ByEmail {
						continue
					}
					if q.AfterActivity+q.BeforeActivity > 0 && order != user.ByLastActivity ||
						q.Created != (user.TimeRange{}) && order != user.ByCreated {
						continue
					}
					q.Order, q.Desc = order, desc
					h.comparePages(reference, q)
				}
				if order == user.ByUsername || order == user.ByEmail {
					whole := reference.sorted(user.ListQuery{Order: order})[60].mark.Key
					h.comparePages(reference, user.ListQuery{
						Order: order, Desc: desc, Prefix: whole, MaxUsers: 3, MaxScanned: 9, MaxBytes: 1 << 20, ShowDeleted: true,
					})
				}
			}
		}
	},
	"a list by last activity has the head of its instant": func(h *harness) {
		const users = 100
		written := make(chan error, 1)
		go func() {
			for i := range users {
				op, err := user.NewCreate(user.User{Username: fmt.Sprintf("user %d", i), Email: fmt.Sprintf("u%d@example.org", i)})
				if err == nil {
					_, err = h.apply(user.Change{Op: op}) // one row each
				}
				if err != nil {
					written <- err
					return
				}
			}
			written <- nil
		}()
		for head := int64(0); head < users; {
			select {
			case err := <-written:
				h.check(err)
			default:
			}
			page, err := h.store.List(h.ctx(), user.ListQuery{Order: user.ByLastActivity, MaxUsers: 1000, MaxScanned: 1000, MaxBytes: 1 << 20})
			h.check(err)
			if head = page.Head; head != int64(len(page.Users)) {
				h.Fatalf("List() = %d users with the head %d, want the head after one row for each", len(page.Users), head)
			}
		}
	},
}

// matchStatuses compares the results of Statuses and GetMany.
func (h *harness) matchStatuses(ids []int64) error {
	users, err := h.store.GetMany(h.ctx(), ids)
	if err != nil {
		return err
	}
	var want []user.CurrentStatus
	for _, u := range users {
		want = append(want, user.CurrentStatus{
			UserID: u.ID, Status: u.Status, Time: u.StatusTime, Position: u.StatusPosition, Deleted: u.Deleted(),
		})
	}
	got, err := h.store.Statuses(h.ctx(), ids)
	if err != nil {
		return err
	}
	if diff := difference(want, got); diff != "" {
		return fmt.Errorf("Statuses(%d ids) (-want +got):\n%s", len(ids), diff)
	}
	return nil
}

// fillUsers creates users with random names and returns the same users as model data.
func (h *harness) fillUsers(n int) *modelData {
	h.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	d := NewModel(nil).data
	word := func() string {
		letters := []rune("abABäöÄz")
		b := make([]rune, 3+random.IntN(8))
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b)
	}
	for len(d.users) < n {
		if random.IntN(3) == 0 {
			h.clock.Advance(time.Duration(random.IntN(3)) * time.Millisecond)
		}
		op, err := user.NewCreate(user.User{Username: word(), Email: word() + "@example.org", Metadata: map[string]string{"k": strings.Repeat("x", random.IntN(300))}})
		h.check(err)
		r, err := h.apply(user.Change{Op: op})
		if err != nil {
			continue // taken
		}
		u := r.User
		if random.IntN(5) == 0 {
			u = h.mustApply(&user.Delete{ID: u.ID, Retention: time.Hour}).User
		}
		d.users[u.ID], d.keys[u.ID] = u, op.Keys
	}
	d.end = h.head()
	return d
}

// comparePages compares all pages of q with the model's, and the number of users.
func (h *harness) comparePages(reference *modelData, q user.ListQuery) {
	h.Helper()
	m := NewModel(nil)
	m.data = reference
	for range 1000 {
		want, err := m.List(h.ctx(), q)
		h.check(err)
		got, err := h.store.List(h.ctx(), q)
		h.check(err)
		if diff := difference(want, got); diff != "" {
			h.Fatalf("List(%+v) (-want +got):\n%s", q, diff)
		}
		if got.Next == nil {
			h.compareCount(m, q)
			return
		}
		q.After = got.Next
	}
	h.Fatalf("List(%+v): no last page after 1000 pages", q)
}

// compareCount compares the number of users of all pages with the model's.
func (h *harness) compareCount(m *Model, q user.ListQuery) {
	h.Helper()
	q.MaxScanned = 1000
	want, err := m.Count(h.ctx(), q)
	h.check(err)
	got, err := h.store.Count(h.ctx(), q)
	h.check(err)
	if got != want {
		h.Fatalf("Count(%+v) = %+v, want %+v", q, got, want)
	}
}
