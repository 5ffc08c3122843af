package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/yourorg/userservice/service/user"
)

var termTests = map[string]func(*harness){
	"lists with terms have the same users as a full evaluation, in every order and direction": func(h *harness) {
		random := rand.New(rand.NewPCG(3, 4))
		ids := h.fillTerms(random, 900)
		for range 2 {
			ids = h.changeTerms(random, ids)
		}
		h.compareTerms(h.allUsers(), user.Orders()...)
		h.reopen()
		h.compareTerms(h.allUsers(), user.ByID) // the matches are those of the index in every order
	},
}

// randomTerms returns tags, metadata and a status of different frequencies.
func randomTerms(random *rand.Rand) user.User {
	u := user.User{Status: user.StatusActive, Tags: []string{"all"}, Metadata: map[string]string{}}
	if random.IntN(3) == 0 {
		u.Tags = append(u.Tags, "third")
	}
	if random.IntN(100) == 0 {
		u.Tags, u.Status = append(u.Tags, "rare"), user.StatusSuspended
	}
	if random.IntN(20) == 0 {
		u.Metadata["team"] = []string{"red", "blue", ""}[random.IntN(3)]
	}
	if random.IntN(4) == 0 {
		u.Tags = nil
	}
	return u
}

func (h *harness) fillTerms(random *rand.Rand, n int) (ids []int64) {
	var batch user.Batch
	for i := range n {
		u := randomTerms(random)
		u.Username = fmt.Sprintf("%c%c.%d", 'a'+random.IntN(3), 'a'+random.IntN(26), i)
		u.Email = fmt.Sprintf("%c.%d@example.org", 'a'+random.IntN(26), i)
		op, err := user.NewCreate(u)
		h.check(err)
		batch.Changes = append(batch.Changes, user.Change{Op: op})
	}
	results, err := user.Apply(h.ctx(), h.store, batch)
	h.check(err)
	for _, r := range results {
		h.check(r.Err)
		ids = append(ids, r.User.ID)
	}
	return ids
}

// changeTerms updates, deletes and purges users, and returns the ids of the others.
func (h *harness) changeTerms(random *rand.Rand, ids []int64) (rest []int64) {
	var batch user.Batch
	for _, id := range ids {
		switch random.IntN(8) {
		case 0, 1:
			set := user.NewFieldSet("tags", "metadata", "status")
			batch.Changes = append(batch.Changes, user.Change{Op: updateOp(id, user.Patch{Values: randomTerms(random), Set: set})})
		case 2:
			batch.Changes = append(batch.Changes, user.Change{Op: &user.SetStatus{ID: id, Status: user.StatusInactive}})
		case 3:
			batch.Changes = append(batch.Changes, user.Change{Op: &user.Delete{ID: id, Retention: time.Hour}}, user.Change{Op: &user.Undelete{ID: id}})
		case 4:
			batch.Changes = append(batch.Changes, user.Change{Op: &user.Delete{ID: id}})
			if random.IntN(2) == 0 {
				batch.Changes = append(batch.Changes, user.Change{Op: &user.Purge{ID: id}})
			}
			continue
		}
		rest = append(rest, id)
	}
	results, err := user.Apply(h.ctx(), h.store, batch)
	h.check(err)
	for _, r := range results {
		h.check(r.Err)
	}
	return rest
}

// allUsers returns the users of the store as model data.
func (h *harness) allUsers() *modelData {
	d := NewModel(nil).data
	page, err := h.store.List(h.ctx(), user.ListQuery{
		MaxUsers: 1 << 20, MaxScanned: 1 << 20, MaxBytes: 1 << 30, ShowDeleted: true,
		Match: func(u *user.User, k user.Keys) bool { d.keys[u.ID] = k; return true },
	})
	h.check(err)
	for _, u := range page.Users {
		d.users[u.ID] = u
	}
	return d
}

// termConditions returns conditions that many, some, few and none of the users of fillTerms meet.
func termConditions() []user.Condition {
	status, tags, metadata := user.FieldByName("status"), user.FieldByName("tags"), user.FieldByName("metadata")
	term := func(t user.Term) user.Condition { return user.Condition{Term: t} }
	contains := func(text string) user.Condition { return user.Condition{Contains: text} }
	both := func(parts ...user.Condition) user.Condition { return user.Condition{All: parts} }
	either := func(parts ...user.Condition) user.Condition { return user.Condition{Any: parts} }
	all, third, rare, team := term(tags.ElementTerm("all")), term(tags.ElementTerm("third")), term(tags.ElementTerm("rare")), term(metadata.KeyTerm("team"))
	none := term(tags.ElementTerm("nobody"))
	return []user.Condition{
		all, rare, team, none,
		both(third, rare), both(all, third, team), both(rare, none), both(none, rare),
		either(term(metadata.PairTerm("team", "red")), term(metadata.PairTerm("team", ""))),
		either(term(tags.PresentTerm()), term(metadata.PresentTerm())),
		either(third, rare, team, none),
		either(term(status.StatusTerm(user.StatusSuspended)), term(status.StatusTerm(user.StatusInactive))),
		contains("example.org"), contains(".12"), contains("ab."), contains("@example.orgs"), contains(".7@example.or"), contains("äöü"),
		both(contains("a.1"), either(third, contains("99@"))), either(both(rare, team), both(third, contains("b.1"))),
	}
}

// compareTerms compares the lists of several conditions, in some orders, with the model's. Half of the conditions are read
// ascending without and descending with deleted users, the other half the other way round.
func (h *harness) compareTerms(reference *modelData, orders ...user.Order) {
	h.Helper()
	sorted := make(map[string][]entry) // by order and prefix
	for i, where := range termConditions() {
		meets := make(map[int64]bool)
		for id, u := range reference.users {
			meets[id] = where.Meets(u, reference.keys[id])
		}
		for j, order := range orders {
			for _, n := range [2][2]int{{0, 3}, {1, 2}}[(i+j)%2] {
				q := user.ListQuery{
					Order: order, Desc: n%2 == 1, ShowDeleted: n/2 == 1, Where: &where, Match: where.Meets,
					MaxUsers: 240, MaxScanned: 420, MaxBytes: 1 << 20,
				}
				if n == 3 && order == user.ByUsername {
					q.Prefix = "b"
				}
				key := fmt.Sprint(q.Order, q.Desc, q.Prefix)
				if sorted[key] == nil {
					sorted[key] = reference.sorted(q)
				}
				var want []int64
				for _, e := range sorted[key] {
					if meets[e.user.ID] && (q.ShowDeleted || !e.user.Deleted()) {
						want = append(want, e.user.ID)
					}
				}
				q.MaxScanned = 10_000
				count, err := h.store.Count(h.ctx(), q)
				if h.check(err); count != (user.Count{Users: int64(len(want))}) {
					h.Fatalf("Count(%+v) where %+v = %+v, want %d users", q, where, count, len(want))
				}
				q.MaxScanned = 420
				if got := h.listAll(q); !slices.Equal(got, want) {
					h.Fatalf("List(%+v) where %+v = %d users %v, want %d users %v", q, where, len(got), got, len(want), want)
				}
			}
		}
	}
}

// listAll returns the ids of all pages.
func (h *harness) listAll(q user.ListQuery) (ids []int64) {
	h.Helper()
	for range 1000 {
		page, err := h.store.List(h.ctx(), q)
		h.check(err)
		for _, u := range page.Users {
			ids = append(ids, u.ID)
		}
		if page.Next == nil {
			return ids
		}
		q.After = page.Next
	}
	h.Fatalf("List(%+v): no last page after 1000 pages", q)
	return nil
}
