package storetest

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

// HalveChecks halves the number of random cases, for stores whose cases take long: a database is created for each of
// them. TestMain calls it.
func HalveChecks() {
	flag.Parse()
	checks := flag.Lookup("rapid.checks").Value
	n, err := strconv.Atoi(checks.String())
	if err == nil {
		err = checks.Set(strconv.Itoa((n + 1) / 2))
	}
	if err != nil {
		panic(err)
	}
}

// CompareWithModel applies random batches to the store and to a Model and compares
// results, log and users, except for the user IDs.
func CompareWithModel(t *testing.T, open Open) {
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		clock := NewClock()
		p := &comparison{
			t: r, clock: clock, model: NewModel(clock.Now),
			store: open(t, Options{Dir: dir, Clock: clock.Now}), toStore: map[int64]int64{4711: 4711},
		}
		defer func() {
			if err := p.store.Close(); err != nil {
				r.Error(err)
			}
		}()
		// Most steps are batches; a reopen also compares all data, which is slow.
		steps := []func(*rapid.T){
			p.batch, p.batch, p.batch, p.batch, p.batch, p.time, p.time, p.purge, p.prune,
			func(r *rapid.T) { p.reopen(r, t, open, dir) },
		}
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			rapid.SampledFrom(steps).Draw(r, "step")(r)
		}
		p.compare(r)
	})
}

// comparison runs a store and a model side by side. toStore maps user IDs.
type comparison struct {
	t       *rapid.T
	clock   *Clock
	model   *Model
	store   user.Store
	ids     []int64         // the model's, in the order of creation
	toStore map[int64]int64 // the model's ID -> the store's
}

func (p *comparison) time(r *rapid.T) {
	p.clock.Advance(rapid.SampledFrom([]time.Duration{
		time.Microsecond, time.Second, time.Hour, 25 * time.Hour, -time.Hour,
	}).Draw(r, "step"))
}

func (p *comparison) reopen(r *rapid.T, t *testing.T, open Open, dir string) {
	p.compare(r)
	if err := p.store.Close(); err != nil {
		r.Fatal(err)
	}
	p.store = open(t, Options{Dir: dir, Clock: p.clock.Now})
}

// purge redacts and purges a user that is due.
func (p *comparison) purge(r *rapid.T) {
	ctx := r.Context()
	due, err := p.model.DuePurges(ctx, 1)
	if err != nil {
		r.Fatal(err)
	}
	for _, id := range due {
		for store, id := range map[user.Store]int64{p.model: id, p.store: p.toStore[id]} {
			for more := true; more; {
				if more, err = store.Redact(ctx, id, 2); err != nil {
					r.Fatal(err)
				}
			}
			if _, err := user.ApplyOne(ctx, store, user.Change{Op: &user.Purge{ID: id}}); err != nil && !user.HasReason(err, user.UserNotDeleted) {
				r.Fatal(err)
			}
		}
	}
}

// prune prunes some rows, and compares the log after each position.
func (p *comparison) prune(r *rapid.T) {
	age := rapid.SampledFrom([]time.Duration{0, time.Hour, user.RequestIDLifetime}).Draw(r, "age")
	limit := rapid.IntRange(1, 4).Draw(r, "limit")
	want, wantErr := p.model.Prune(r.Context(), age, limit)
	got, gotErr := p.store.Prune(r.Context(), age, limit)
	if wantErr != nil || gotErr != nil || want != got {
		r.Fatalf("Prune(%v, %d) = %d, %v on the model, %d, %v on the store", age, limit, want, wantErr, got, gotErr)
	}
	head, err := p.model.Head(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for after := range head.Position + 2 {
		for _, desc := range []bool{false, true} {
			p.compareLog(r, user.LogQuery{After: after, Desc: desc, MaxRows: 3})
		}
	}
}

func (p *comparison) batch(r *rapid.T) {
	ofModel := user.Batch{
		Atomic: rapid.IntRange(0, 3).Draw(r, "atomic") == 0,
		// The size of one or two users.
		MaxUserBytes: rapid.SampledFrom([]int{0, 0, 1, 300}).Draw(r, "max user bytes"),
	}
	ofStore := ofModel
	for range rapid.IntRange(1, 6).Draw(r, "changes") {
		op := p.op(r)
		c := user.Change{
			By:           user.Author{Actor: "actor"},
			OnConflict:   user.Conflict(rapid.IntRange(0, 2).Draw(r, "policy")),
			ValidateOnly: rapid.IntRange(0, 5).Draw(r, "validate") == 0,
		}
		if rapid.Bool().Draw(r, "once") {
			c.IdempotencyKey = idempotencyKey(rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(r, "request"))
			c.IdempotencyKey.Fingerprint[0] = byte(rapid.IntRange(0, 1).Draw(r, "fingerprint"))
		}
		c.Op = op(func(id int64) int64 { return id })
		ofModel.Changes = append(ofModel.Changes, c)
		c.Op = op(func(id int64) int64 { return p.toStore[id] })
		ofStore.Changes = append(ofStore.Changes, c)
	}
	want, wantErr := user.Apply(r.Context(), p.model, ofModel)
	got, gotErr := user.Apply(r.Context(), p.store, ofStore)
	if errorText(wantErr) != errorText(gotErr) || len(want) != len(got) {
		r.Fatalf("Apply: error %v on the model, %v on the store", wantErr, gotErr)
	}
	for i := range want {
		p.recordID(want[i], got[i])
		p.same(r, fmt.Sprintf("result %d", i), p.normalizeResult(want[i], true), p.normalizeResult(got[i], false))
	}
}

// recordID maps the ID of a user created on the model to that on the store.
func (p *comparison) recordID(want, got user.Result) {
	if want.Outcome == user.OutcomeCreated && got.Outcome == user.OutcomeCreated && p.toStore[want.User.ID] == 0 {
		p.ids = append(p.ids, want.User.ID)
		p.toStore[want.User.ID] = got.User.ID
	}
}

var names = []string{"anna", "ANNA", "berta", "Ｂｅｒｔａ", "carla", "dora emil", "Dora  Emil", "straße", "STRASSE"}

// op draws an op. The returned function builds it; its argument maps a user ID of the model.
func (p *comparison) op(r *rapid.T) func(func(int64) int64) user.Op {
	name := rapid.SampledFrom(names).Draw(r, "name")
	mail := rapid.SampledFrom([]string{"a@example.org", "A@EXAMPLE.ORG", "b@example.org", "c@example.org", "d@example.org"}).Draw(r, "mail")
	tags := rapid.SampledFrom([][]string{nil, {"x"}, {"x", "y"}}).Draw(r, "tags")
	id := rapid.SampledFrom(append(slices.Clone(p.ids), 4711)).Draw(r, "user")
	kind := rapid.IntRange(0, 9).Draw(r, "kind")
	status := user.Status(rapid.IntRange(1, 3).Draw(r, "status"))
	at := time.Time{}
	if kind == 6 {
		at = p.clock.Now().Add(time.Duration(rapid.IntRange(-90, 90).Draw(r, "at")) * time.Second)
	}
	return func(of func(int64) int64) user.Op {
		switch id := of(id); kind {
		case 0, 1, 2:
			op, err := user.NewCreate(user.User{Username: name, Email: mail, Tags: tags, Metadata: map[string]string{"k": name}})
			if err != nil {
				r.Fatal(err)
			}
			return op
		case 3:
			return updateOp(id, user.Patch{Values: user.User{Username: name, Tags: tags}, Set: user.NewFieldSet("username", "tags")})
		case 4:
			return updateOp(id, user.NewPatch(user.User{Email: mail, Status: status}))
		case 5:
			return metadataOp(id, "k", name)
		case 6, 7:
			return &user.SetStatus{ID: id, Status: status, Time: at}
		case 8:
			if tags == nil {
				return &user.Undelete{ID: id}
			}
			return &user.Delete{ID: id, Retention: time.Hour}
		default:
			if tags == nil {
				return failingOps(id)[len(name)%2]
			}
			return &user.Record{ID: id, Action: "app.seen", Details: map[string]string{"name": name}}
		}
	}
}

func (p *comparison) compare(r *rapid.T) {
	ctx := r.Context()
	p.compareLog(r, user.LogQuery{Retained: true, MaxRows: 1000})
	for order := user.ByUsername; order <= user.ByEmail; order++ {
		q := user.ListQuery{Order: order, MaxUsers: 1000, MaxScanned: 1000, MaxBytes: 1 << 20, ShowDeleted: true}
		want, wantErr := p.model.List(ctx, q)
		got, gotErr := p.store.List(ctx, q)
		if wantErr != nil || gotErr != nil {
			r.Fatal(wantErr, gotErr)
		}
		p.same(r, "users", p.normalizeUsers(want.Users, true), p.normalizeUsers(got.Users, false))
	}
	p.compareTerms(r)
}

func (p *comparison) compareLog(r *rapid.T, query user.LogQuery) {
	want, wantErr := p.model.Log(r.Context(), query)
	got, gotErr := p.store.Log(r.Context(), query)
	if errorText(wantErr) != errorText(gotErr) || want.Reached != got.Reached || want.Done != got.Done {
		r.Fatalf("Log(%+v) = %+v, %v on the model, %+v, %v on the store", query, want, wantErr, got, gotErr)
	}
	p.same(r, "log", p.normalizeRows(want.Rows, true), p.normalizeRows(got.Rows, false))
}

// compareTerms compares the users with some terms.
func (p *comparison) compareTerms(r *rapid.T) {
	status, tags, metadata := user.FieldByName("status"), user.FieldByName("tags"), user.FieldByName("metadata")
	orders := []user.Order{user.ByUsername, user.ByEmail, user.ByLastActivity} // the IDs of the model differ
	for i, where := range []user.Condition{
		{Term: status.StatusTerm(user.StatusActive)}, {Term: tags.ElementTerm("y")}, {Term: tags.PresentTerm()},
		{Term: metadata.KeyTerm("k")}, {Term: metadata.PairTerm("k", "anna")}, {Contains: "ann"}, {Contains: "@example"},
	} {
		q := user.ListQuery{
			Order: orders[i%len(orders)], Desc: i%2 == 1, Where: &where, Match: where.Meets, ShowDeleted: true,
			MaxUsers: 2, MaxScanned: 1000, MaxBytes: 1 << 20,
		}
		want, got := p.pages(r, p.model, q), p.pages(r, p.store, q)
		p.same(r, fmt.Sprintf("users with %+v", where), p.normalizeUsers(want, true), p.normalizeUsers(got, false))
	}
}

// pages returns the users of all pages.
func (p *comparison) pages(r *rapid.T, store user.Store, q user.ListQuery) (users []*user.User) {
	for {
		page, err := store.List(r.Context(), q)
		if err != nil {
			r.Fatal(err)
		}
		users = append(users, page.Users...)
		if q.After = page.Next; q.After == nil {
			return users
		}
	}
}

func (p *comparison) same(r *rapid.T, name string, want, got any) {
	if diff := difference(want, got); diff != "" {
		r.Fatalf("%s (-model +store):\n%s", name, diff)
	}
}

// normalizeID replaces an ID of the model with the store's.
func (p *comparison) normalizeID(id int64, ofModel bool) int64 {
	if ofModel {
		return cmp.Or(p.toStore[id], id)
	}
	return id
}

func (p *comparison) normalizeRows(rows []user.Activity, ofModel bool) []user.Activity {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].UserID = p.normalizeID(rows[i].UserID, ofModel)
		if len(rows[i].Details) == 0 {
			rows[i].Details = nil
		}
	}
	return rows
}

func (p *comparison) normalizeUsers(users []*user.User, ofModel bool) []*user.User {
	users = slices.Clone(users)
	for i, u := range users {
		if u != nil {
			users[i] = u.Clone()
			users[i].ID = p.normalizeID(u.ID, ofModel)
		}
	}
	return users
}

// comparableResult is a user.Result with the text of the error.
type comparableResult struct {
	Outcome  user.Outcome
	Users    []*user.User
	Rows     []user.Activity
	Position int64
	Err      string
}

func (p *comparison) normalizeResult(r user.Result, ofModel bool) comparableResult {
	return comparableResult{r.Outcome, p.normalizeUsers([]*user.User{r.User}, ofModel), p.normalizeRows(r.Rows, ofModel), r.Position, errorText(r.Err)}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
