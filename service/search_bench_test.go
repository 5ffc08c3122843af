package service_test

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/filter"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/user"
)

// searches are filters of each kind. The terms are of randomUser.
var searches = []struct{ name, filter string }{
	{"none", ``},
	{"name=prefix", `username = "an*"`},
	{"name=exact", `username = "%s"`},
	{"name=end", `email = "*@corp7.example.org"`},
	{"name=part", `username = "*lena*"`},
	{"search", `search = "marko"`},
	{"tag=half", `tags:"half1"`},
	{"tag=rare", `tags:"team7"`},
	{"metadata=value", `metadata.site = "s7"`},
	{"metadata=key", `metadata:"badge"`},
	{"status", `status = SUSPENDED`},
	{"status!=", `status != ACTIVE`},
	{"created", `created_at > "2020-01-01T00:00:00Z"`},
	{"changed", `last_activity_id > 100`},
	{"and=frequent,rare", `tags:"half1" AND tags:"team7"`},
	{"and=frequent,together rare", `tags:"half1" AND tags:"half0"`},
	{"or", `tags:"team7" OR search = "marko"`},
	{"and=not", `tags:"half1" AND NOT metadata:"badge"`},
	{"not", `NOT tags:"half1"`},
}

// BenchmarkSearch reads a page of 50 users with each kind of filter, the first one and one in the middle. It reports
// the rows read for a page. Stores are kept in the folder USERD_BENCH_DIR, by default the temporary one; USERD_BENCH_SIZES
// are their numbers of users.
func BenchmarkSearch(b *testing.B) {
	for size := range strings.SplitSeq(cmp.Or(os.Getenv("USERD_BENCH_SIZES"), "1000,1000000"), ",") {
		n, err := strconv.Atoi(size)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("users="+size, func(b *testing.B) { benchmarkSearches(b, n) })
	}
}

func benchmarkSearches(b *testing.B, n int) {
	s := searchStore(b, n)
	ctx := b.Context()
	middle := middleUser(b, s, n)
	for _, search := range searches {
		text := search.filter
		if strings.Contains(text, "%s") {
			text = fmt.Sprintf(text, middle.Username)
		}
		f, err := filter.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		q := user.ListQuery{Match: f.Match, Order: f.Order(), MaxUsers: 50, MaxScanned: 10_000, MaxBytes: 1 << 20}
		f.Narrow(&q)
		for _, deep := range []bool{false, true} {
			name := "first"
			if deep {
				name, q.After = "deep", cursorAt(q.Order, middle)
			}
			b.Run(search.name+"/"+name, func(b *testing.B) {
				before, users := s.RowsRead(), 0
				for b.Loop() {
					page, err := s.List(ctx, q)
					if err != nil {
						b.Fatal(err)
					}
					users = len(page.Users)
				}
				b.ReportMetric(float64(s.RowsRead()-before)/float64(b.N), "rows/op")
				b.ReportMetric(float64(users), "users/op")
			})
		}
	}
}

// cursorAt returns the cursor of a user.
func cursorAt(order user.Order, u *user.User) *user.ListCursor {
	c := &user.ListCursor{ID: u.ID}
	switch order {
	case user.ByUsername:
		c.Key, _ = user.UsernameKey("anm")
	case user.ByEmail:
		c.Key, _ = user.EmailKey(u.Email)
	case user.ByLastActivity:
		c.Position = u.LastActivityID
	case user.ByCreated:
		c.Position = u.CreatedAt.UnixMicro()
	case user.ByID:
	}
	return c
}

// middleUser returns the user in the middle of the order of creation.
func middleUser(b *testing.B, s *sqlite.Store, n int) *user.User {
	b.Helper()
	page, err := s.List(b.Context(), user.ListQuery{Order: user.ByLastActivity, AfterActivity: int64(n / 2), MaxUsers: 1, MaxScanned: 1, MaxBytes: 1})
	if err != nil || len(page.Users) != 1 {
		b.Fatal(page, err)
	}
	return page.Users[0]
}

// searchStore opens a store with n random users, which is filled if it does not exist.
func searchStore(b *testing.B, n int) *sqlite.Store {
	b.Helper()
	path := filepath.Join(cmp.Or(os.Getenv("USERD_BENCH_DIR"), os.TempDir()), fmt.Sprintf("userd-search-v1-%d.db", n))
	if _, err := os.Stat(path); err != nil {
		fillSearchStore(b, path, n)
	}
	return openSearchStore(b, path)
}

func openSearchStore(b *testing.B, path string) *sqlite.Store {
	b.Helper()
	s, err := sqlite.Open(b.Context(), sqlite.Options{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func fillSearchStore(b *testing.B, path string, n int) {
	b.Helper()
	partial := path + ".filling"
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(partial + suffix)
	}
	s, err := sqlite.Open(b.Context(), sqlite.Options{Path: partial, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	type submitted struct {
		batch   user.Batch
		pending *user.Pending
	}
	var inFlight []submitted
	submit := func(batch user.Batch) { inFlight = append(inFlight, submitted{batch, s.Submit(b.Context(), batch)}) }
	wait := func(keep int) {
		for len(inFlight) > keep {
			first := inFlight[0]
			inFlight = inFlight[1:]
			results, err := first.pending.Wait(b.Context())
			if user.HasReason(err, user.Overloaded) { // the disk has hung; a probe waits for it
				if err = s.Probe(b.Context()); err == nil {
					submit(first.batch)
				}
			}
			if err != nil {
				b.Fatal(err)
			}
			if suspend := suspensions(results); len(suspend.Changes) > 0 {
				submit(suspend)
			}
		}
	}
	for done := 0; done < n; {
		var batch user.Batch
		for range min(500, n-done) {
			op, err := user.NewCreate(randomUser(random, done))
			if err != nil {
				b.Fatal(err)
			}
			batch.Changes = append(batch.Changes, user.Change{Op: op})
			done++
		}
		submit(batch)
		wait(8)
	}
	wait(0)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(partial, path); err != nil {
		b.Fatal(err)
	}
}

// suspensions returns changes that suspend the new users with a badge.
func suspensions(results []user.Result) (batch user.Batch) {
	for _, r := range results {
		if r.Outcome == user.OutcomeCreated && r.User.Metadata["badge"] != "" {
			batch.Changes = append(batch.Changes, user.Change{Op: &user.SetStatus{ID: r.User.ID, Status: user.StatusSuspended}})
		}
	}
	return batch
}

var syllables = strings.Fields("an na be ra mar ko lu ci ste fan ka rin jo da vid mi chel el sa to bi as pe ter ju li us vik tor ol ga le na hei di wal ri ke gre ta max im ian")

// randomUser returns the user number i: half1 and half0 are the tags of each half of the users, and both of one in
// 10,000; team7 is the tag of one in 1,000, the site s7 that of one in 100. One in 100
// has a badge, and is suspended.
func randomUser(random *rand.Rand, i int) user.User {
	word := func(n int) (s string) {
		for range n {
			s += syllables[random.IntN(len(syllables))]
		}
		return s
	}
	first, last := word(2), word(3)
	u := user.User{
		Username: fmt.Sprintf("%s %s %d", first, last, i),
		Email:    fmt.Sprintf("%s.%s%d@corp%d.example.org", first, last, i, random.IntN(100)),
		Tags:     []string{fmt.Sprint("half", i%2), fmt.Sprint("team", random.IntN(1000))},
		Metadata: map[string]string{"site": fmt.Sprint("s", random.IntN(100))},
	}
	if random.IntN(100) == 0 {
		u.Metadata["badge"] = strconv.Itoa(i)
	}
	if i%10_000 == 500 {
		u.Tags = append(u.Tags, "half1")
	}
	return u
}
