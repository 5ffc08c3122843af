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
		ids := h.fillTerms(random, 1500)
		for range 2 {
			ids = h.changeTerms(random, ids)
		}
		h.compareTerms(h.allUsers())
		h.reopen()
		h.compareTerms(h.allUsers())
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

// hasTerms returns the predicate of clauses of terms.
func hasTerms(clauses [][]user.Term) func(*user.User, user.Keys) bool {
	return func(u *user.User, _ user.Keys) bool {
		terms := u.Terms()
		for _, clause := range clauses {
			if !slices.ContainsFunc(clause, func(t user.Term) bool { return slices.Contains(terms, t) }) {
				return false
			}
		}
		return true
	}
}

// compareTerms compares the lists of several clauses of terms with the model's.
func (h *harness) compareTerms(reference *modelData) {
	h.Helper()
	m := NewModel(nil)
	m.data = reference
	status, tags, metadata := user.FieldByName("status"), user.FieldByName("tags"), user.FieldByName("metadata")
	all, third, rare, team := tags.ElementTerm("all"), tags.ElementTerm("third"), tags.ElementTerm("rare"), metadata.KeyTerm("team")
	for _, clauses := range [][][]user.Term{
		{{all}},
		{{rare}},
		{{third}, {rare}},
		{{all}, {third}, {team}},
		{{team}},
		{{metadata.PairTerm("team", "red"), metadata.PairTerm("team", "")}},
		{{tags.PresentTerm(), metadata.PresentTerm()}},
		{{third, rare, team, tags.ElementTerm("nobody")}},
		{{tags.ElementTerm("nobody")}},
		{{status.StatusTerm(user.StatusSuspended), status.StatusTerm(user.StatusInactive)}},
	} {
		for order := user.ByID; order <= user.ByLastActivity; order++ {
			for n := range 4 {
				q := user.ListQuery{
					Order: order, Desc: n%2 == 1, ShowDeleted: n/2 == 1, Terms: clauses, Match: hasTerms(clauses),
					MaxUsers: 150, MaxScanned: 300, MaxBytes: 1 << 20,
				}
				if n == 3 && order == user.ByUsername {
					q.Prefix = "b"
				}
				want := h.listAll(m, q)
				if got := h.listAll(h.store, q); !slices.Equal(got, want) {
					h.Fatalf("List(%+v) = %d users %v, want %d users %v", q, len(got), got, len(want), want)
				}
			}
		}
	}
}

// listAll returns the ids of all pages.
func (h *harness) listAll(store user.Store, q user.ListQuery) (ids []int64) {
	h.Helper()
	if _, isModel := store.(*Model); isModel {
		q.MaxUsers, q.MaxScanned, q.MaxBytes = 1<<20, 1<<20, 1<<30
	}
	for range 1000 {
		page, err := store.List(h.ctx(), q)
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
