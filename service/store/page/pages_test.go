package page_test

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// contents are the rows of a store at rest.
type contents struct {
	model       *storetest.Model
	head, first int64
	users       []*user.User
	keys        map[int64]user.Keys
	log         []user.Activity
}

// drawContents draws users, some of which have the same time, are deleted or updated, and a log, possibly pruned.
func drawContents(r *rapid.T) *contents {
	clock := storetest.NewClock()
	c := &contents{model: storetest.NewModel(clock.Now), keys: make(map[int64]user.Keys)}
	apply := func(op user.Op) *user.User {
		result, err := user.ApplyOne(r.Context(), c.model, user.Change{Op: op})
		if err != nil {
			r.Fatal(err)
		}
		return result.User
	}
	var ids []int64
	for i := range rapid.IntRange(0, 10).Draw(r, "users") {
		name := fmt.Sprint(rapid.SampledFrom([]string{"a", "ab", "b", "ä"}).Draw(r, "name"), (i*7)%10)
		op, err := user.NewCreate(user.User{Username: "u" + name, Email: name + "@example.org", Tags: []string{strings.Repeat("x", 20*i)}})
		if err != nil {
			r.Fatal(err)
		}
		ids = append(ids, apply(op).ID) // those that are not deleted
		switch changed := rapid.IntRange(0, len(ids)-1).Draw(r, "changed"); rapid.IntRange(0, 5).Draw(r, "change") {
		case 0:
			apply(&user.Record{ID: ids[changed], Action: "app.seen", Details: map[string]string{"k": name}})
		case 1:
			apply(&user.Record{ID: ids[changed], Action: "app.left"})
		case 2:
			apply(&user.Delete{ID: ids[changed], Retention: time.Hour})
			ids = slices.Delete(ids, changed, changed+1)
		}
		clock.Advance(rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, time.Second}).Draw(r, "advance"))
	}
	if _, err := c.model.Prune(r.Context(), 0, rapid.IntRange(0, 4).Draw(r, "pruned")); err != nil {
		r.Fatal(err)
	}
	c.read(r)
	return c
}

func (c *contents) read(r *rapid.T) {
	list, err := c.model.List(r.Context(), user.ListQuery{
		ShowDeleted: true, MaxUsers: 1000, MaxScanned: 1000, MaxBytes: 1 << 20,
		Match: func(u *user.User, keys user.Keys) bool { c.keys[u.ID] = keys; return true },
	})
	if err != nil {
		r.Fatal(err)
	}
	log, err := c.model.Log(r.Context(), user.LogQuery{Retained: true, MaxRows: 1000})
	if err != nil {
		r.Fatal(err)
	}
	head, err := c.model.Head(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	if c.first, err = c.model.First(r.Context()); err != nil {
		r.Fatal(err)
	}
	c.users, c.log, c.head = list.Users, log.Rows, head.Position
}

// key returns what an order sorts by, before the ID.
func (c *contents) key(order user.Order, u *user.User) (text string, number int64) {
	switch order {
	case user.ByUsername:
		return c.keys[u.ID].Username, 0
	case user.ByEmail:
		return c.keys[u.ID].Email, 0
	case user.ByLastActivity:
		return "", u.LastActivityID
	case user.ByCreated:
		return "", u.CreatedAt.UnixMicro()
	case user.ByID:
	}
	return "", 0
}

// remaining returns the users within the bounds of the rest of a list, in its order, as an index of a store does.
func (c *contents) remaining(l *page.List) (rest []*user.User) {
	order, desc := l.Query.Order, l.Query.Desc
	for _, u := range c.users {
		text, number := c.key(order, u)
		in := false
		switch order {
		case user.ByUsername, user.ByEmail:
			lower, upper := l.Keys()
			in = text >= lower && text < upper
		case user.ByLastActivity:
			after, before := l.Positions()
			in = number > after && number < before
		case user.ByCreated:
			at, id, end := l.Created()
			position := cmp.Or(cmp.Compare(number, at), cmp.Compare(u.ID, id))
			in = !desc && position > 0 && number < end || desc && position < 0 && number >= end
		case user.ByID:
			in = !desc && u.ID > l.ID() || desc && u.ID < l.ID()
		}
		if in {
			rest = append(rest, u)
		}
	}
	slices.SortFunc(rest, func(a, b *user.User) int {
		aText, aNumber := c.key(order, a)
		bText, bNumber := c.key(order, b)
		by := cmp.Or(cmp.Compare(aText, bText), cmp.Compare(aNumber, bNumber), cmp.Compare(a.ID, b.ID))
		if desc {
			return -by
		}
		return by
	})
	return rest
}

// list reads a page in chunks.
func (c *contents) list(r *rapid.T, q user.ListQuery, chunk int) user.ListPage {
	l := page.NewList(q)
	for !l.Done {
		rest := c.remaining(&l)
		c.checkOrder(r, &l, rest)
		for _, u := range rest[:min(chunk, len(rest))] {
			full, keys := l.Full(), c.keys[u.ID]
			if cursor := l.CursorOf(u, keys); !full && l.Cursor != nil && l.Compare(l.Cursor, cursor) >= 0 {
				r.Fatalf("Compare(%+v, %+v) >= 0 for the next user", l.Cursor, cursor)
			}
			if !l.Add(u, keys) || full && !l.Done {
				r.Fatalf("Add of the next user: %+v, want it to succeed, and to end a full page", l)
			}
			if l.Done {
				break
			}
			if !l.Full() && l.Add(u, keys) {
				r.Fatalf("Add of the same user succeeded: %+v", l)
			}
		}
		if len(rest) < chunk {
			l.End()
		}
	}
	if l.Page.Next == nil && l.HasHead() {
		l.Page.Head = c.head
	}
	return l.Page
}

// checkOrder checks that Rest has the users of the rest that match, and Compare their order.
func (c *contents) checkOrder(r *rapid.T, l *page.List, rest []*user.User) {
	var want, got []*user.ListCursor
	for _, u := range rest {
		if l.Query.Match(u, c.keys[u.ID]) && (l.Query.ShowDeleted || !u.Deleted()) {
			want = append(want, l.CursorOf(u, c.keys[u.ID]))
		}
	}
	for _, u := range c.users {
		if cursor := l.Rest(u, c.keys[u.ID]); cursor != nil {
			got = append(got, cursor)
		}
	}
	slices.SortFunc(got, l.Compare)
	if !reflect.DeepEqual(got, want) {
		r.Fatalf("the rest of %+v is %+v, want %+v", l, got, want)
	}
}

func drawListQuery(r *rapid.T, c *contents) user.ListQuery {
	q := user.ListQuery{
		Order: rapid.SampledFrom(user.Orders()).Draw(r, "order"), Desc: rapid.Bool().Draw(r, "desc"), ShowDeleted: rapid.Bool().Draw(r, "deleted"),
		MaxUsers: rapid.IntRange(1, 4).Draw(r, "max users"), MaxScanned: rapid.IntRange(1, 6).Draw(r, "max scanned"),
		MaxBytes: rapid.SampledFrom([]int{1, 500, 1000, 1 << 20}).Draw(r, "max bytes"),
	}
	if len(c.users) > 1 && rapid.Bool().Draw(r, "exact bytes") { // of two users
		first := rapid.IntRange(0, len(c.users)-2).Draw(r, "first")
		q.MaxBytes = c.users[first].Size() + c.users[first+1].Size()
	}
	if rapid.IntRange(0, 3).Draw(r, "where") == 0 {
		q.Where = new(user.Condition)
	}
	bounded := rapid.Bool().Draw(r, "bounded")
	switch {
	case !bounded:
	case q.Order == user.ByUsername || q.Order == user.ByEmail:
		q.Prefix = rapid.SampledFrom([]string{"u", "ua", "uä", "a", "ab", "ä", "ub", "z"}).Draw(r, "prefix")
	case q.Order == user.ByLastActivity:
		q.AfterActivity, q.BeforeActivity = rapid.Int64Range(0, c.head+1).Draw(r, "after"), rapid.Int64Range(0, c.head+2).Draw(r, "before")
	case q.Order == user.ByCreated && len(c.users) > 0:
		bound := func(name string) time.Time {
			if rapid.IntRange(0, 3).Draw(r, "no "+name) == 0 {
				return time.Time{}
			}
			offset := rapid.SampledFrom([]time.Duration{0, 1, -1, time.Microsecond}).Draw(r, name)
			return rapid.SampledFrom(c.users).Draw(r, "time").CreatedAt.Add(offset)
		}
		q.Created = user.TimeRange{From: bound("from"), Until: bound("until")}
	}
	least := rapid.Int64Range(0, 2).Draw(r, "least version")
	q.Match = func(u *user.User, _ user.Keys) bool {
		return u.Version >= least && u.LastActivityID > q.AfterActivity && (q.BeforeActivity == 0 || u.LastActivityID < q.BeforeActivity) &&
			!u.CreatedAt.Before(q.Created.From) && (q.Created.Until.IsZero() || u.CreatedAt.Before(q.Created.Until))
	}
	return q
}

// Pages of users, read in chunks from an index, are those of the model, in every order and within all bounds.
func TestList(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := drawContents(r)
		q := drawListQuery(r, c)
		for {
			want, err := c.model.List(r.Context(), q)
			if err != nil {
				r.Fatal(err)
			}
			if got := c.list(r, q, rapid.IntRange(1, 5).Draw(r, "chunk")); !reflect.DeepEqual(got, want) {
				r.Fatalf("page of %+v = %+v, want %+v", q, got, want)
			}
			if want.Next == nil {
				return
			}
			q.After = want.Next
		}
	})
}

// rows returns the rows of the log within the bounds of a query.
func (c *contents) rows(q user.LogQuery) (rows []user.Activity) {
	for _, row := range c.log {
		if row.Position > q.After && row.Position < q.Before && (q.UserID == 0 || row.UserID == q.UserID) {
			rows = append(rows, row)
		}
	}
	if q.Desc {
		slices.Reverse(rows)
	}
	return rows
}

// logPage reads a page of the log in chunks.
func (c *contents) logPage(r *rapid.T, q user.LogQuery, chunk int) user.LogPage {
	l := page.NewLog(q, c.first, c.head)
	if !q.Desc && l.InOrder(l.Query.After) || q.Desc && l.InOrder(l.Query.Before) {
		r.Fatalf("the bounds of %+v are in order, want them to be exclusive", l)
	}
	for {
		want := min(l.Left+1, chunk)
		rows := c.rows(l.Query)
		for _, row := range rows[:min(want, len(rows))] {
			if l.Full() {
				return l.Page
			}
			if !l.InOrder(row.Position) {
				r.Fatalf("InOrder(%d) = false for the next row of %+v", row.Position, l)
			}
			if l.Selects(row.Action) {
				l.Append(row, row.DetailBytes())
			}
			l.Reach(row.Position)
			if l.InOrder(row.Position) || l.Query.Retained && !q.Desc {
				r.Fatalf("after row %d: %+v, want it not to be in order, and After to be set", row.Position, l)
			}
		}
		if len(rows) < want {
			l.End()
			return l.Page
		}
	}
}

// Pages of the log, read in chunks, are those of the model, in both directions and within all bounds.
func TestLog(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := drawContents(r)
		q := user.LogQuery{
			After: rapid.Int64Range(c.first-1, c.head+1).Draw(r, "after"), Before: rapid.Int64Range(0, c.head+3).Draw(r, "before"),
			Retained: rapid.Bool().Draw(r, "retained"), Desc: rapid.Bool().Draw(r, "desc"),
			MaxRows: rapid.IntRange(1, 5).Draw(r, "max rows"), MaxScanned: rapid.IntRange(0, 5).Draw(r, "max scanned"),
			MaxBytes: rapid.SampledFrom([]int{0, 0, 1, 300}).Draw(r, "max bytes"),
			Actions:  rapid.SampledFrom([][]string{nil, {"app.seen"}, {user.ActionCreated, "app.left"}}).Draw(r, "actions"),
		}
		if len(c.log) > 0 && rapid.Bool().Draw(r, "exact bytes") {
			q.MaxBytes = c.log[rapid.IntRange(0, len(c.log)-1).Draw(r, "row")].DetailBytes()
		}
		if len(c.users) > 0 && rapid.Bool().Draw(r, "of one") {
			q.UserID = rapid.SampledFrom(c.users).Draw(r, "user").ID
		}
		for {
			want, err := c.model.Log(r.Context(), q)
			if err != nil {
				r.Fatal(err)
			}
			got := c.logPage(r, q, rapid.IntRange(1, 5).Draw(r, "chunk"))
			if !reflect.DeepEqual(got, want) {
				r.Fatalf("page of %+v = %+v, want %+v", q, got, want)
			}
			if want.Done {
				return
			}
			if q.Desc {
				q.Before = want.Reached
			} else {
				q.After, q.Retained = want.Reached, false
			}
		}
	})
}

// A page of some actions scans a bounded number of rows, whatever the caller allows.
func TestLogScanIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		query user.LogQuery
		want  int
	}{
		"some actions":         {user.LogQuery{Actions: []string{"a"}, MaxRows: 20_000, MaxScanned: 20_000}, 10_000},
		"some actions, few":    {user.LogQuery{Actions: []string{"a"}, MaxRows: 5, MaxScanned: 300}, 300},
		"no bound by caller":   {user.LogQuery{Actions: []string{"a"}, MaxRows: 5}, 10_000},
		"all actions":          {user.LogQuery{MaxRows: 5, MaxScanned: 300}, 5},
		"all actions, bounded": {user.LogQuery{MaxRows: 300, MaxScanned: 5}, 5},
	} {
		if l := page.NewLog(test.query, 1, 0); l.Limit != test.want || l.Left != test.want {
			t.Errorf("%s: limit = %d, left = %d, want %d", name, l.Limit, l.Left, test.want)
		}
	}
}
