package sqlite

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// benchUsers returns the number of users in the filled store, by default a million.
func benchUsers() int {
	if n, err := strconv.Atoi(os.Getenv("USERD_BENCH_USERS")); err == nil {
		return n
	}
	return 1_000_000
}

// filled opens a store with many users. The file is kept in the temporary directory for
// later runs.
func filled(b *testing.B) (*Store, []int64) {
	b.Helper()
	n := benchUsers()
	path := filepath.Join(os.TempDir(), fmt.Sprintf("userd-bench-v1-%d.db", n))
	if _, err := os.Stat(path); err != nil {
		fill(b, path, n)
	}
	s := openTest(b, path)
	var ids []int64
	query := user.ListQuery{MaxUsers: 1, MaxScanned: 1 << 30, MaxBytes: 1 << 30, Match: func(u *user.User, _ user.Keys) bool {
		ids = append(ids, u.ID)
		return false
	}}
	if _, err := s.List(b.Context(), query); err != nil {
		b.Fatal(err)
	}
	return s, ids
}

func fill(b *testing.B, path string, n int) {
	start := time.Now()
	partial := path + ".filling"
	_ = removeAll(partial, partial+"-wal", partial+"-shm")
	s, err := Open(b.Context(), Options{Path: partial})
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var pending []*user.Pending
	for done := 0; done < n; {
		var batch user.Batch
		for range min(500, n-done) {
			done++
			// Random names, so that index entries are inserted in random order.
			name := fmt.Sprintf("%c%c%c.%d", 'a'+random.IntN(26), 'a'+random.IntN(26), 'a'+random.IntN(26), done)
			batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(b, name)})
		}
		pending = append(pending, s.Submit(b.Context(), batch))
		if len(pending) > 16 {
			mustWait(b, pending[0])
			pending = pending[1:]
		}
	}
	for _, p := range pending {
		mustWait(b, p)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(partial, path); err != nil {
		b.Fatal(err)
	}
	b.Logf("filled with %d users in %v", n, time.Since(start))
}

func mustCreate(tb testing.TB, name string) *user.Create {
	op, err := user.NewCreate(user.User{Username: name, Email: name + "@example.org", Tags: []string{"staff", "emea"}, Metadata: map[string]string{"team": "platform"}})
	if err != nil {
		tb.Fatal(err)
	}
	return op
}

func mustWait(tb testing.TB, p *user.Pending) []user.Result {
	results, err := p.Wait(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			tb.Fatal(r.Err)
		}
	}
	return results
}

func BenchmarkGet(b *testing.B) {
	s, ids := filled(b)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Get(b.Context(), ids[rand.IntN(len(ids))]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Get(b.Context(), ids[rand.IntN(len(ids))]); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("many=1000", func(b *testing.B) {
		some := make([]int64, 1000)
		for b.Loop() {
			for i := range some {
				some[i] = ids[rand.IntN(len(ids))]
			}
			if _, err := s.GetMany(b.Context(), some); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("statuses=10000", func(b *testing.B) {
		some := make([]int64, 10_000)
		for b.Loop() {
			for i := range some {
				some[i] = ids[rand.IntN(len(ids))]
			}
			if _, err := s.Statuses(b.Context(), some); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkList(b *testing.B) {
	s, ids := filled(b)
	middle, err := s.Get(b.Context(), ids[len(ids)/2])
	if err != nil {
		b.Fatal(err)
	}
	key, _ := user.UsernameKey(middle.Username)
	emea := &user.Condition{Term: user.FieldByName("tags").ElementTerm("emea")}
	for name, q := range map[string]user.ListQuery{
		"tag/first":        {Where: emea},
		"tag/deep":         {Where: emea, After: &user.ListCursor{ID: middle.ID}},
		"id/first":         {},
		"id/deep":          {After: &user.ListCursor{ID: middle.ID}},
		"username/first":   {Order: user.ByUsername},
		"username/deep":    {Order: user.ByUsername, After: &user.ListCursor{Key: key, ID: middle.ID}},
		"username/prefix":  {Order: user.ByUsername, Prefix: key[:2]},
		"updated/first":    {Order: user.ByLastActivity},
		"updated/deep":     {Order: user.ByLastActivity, After: &user.ListCursor{Position: middle.LastActivityID}},
		"updated/backward": {Order: user.ByLastActivity, Desc: true, After: &user.ListCursor{Position: middle.LastActivityID}},
	} {
		q.MaxUsers, q.MaxScanned, q.MaxBytes = 50, 1000, 1<<20
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if page, err := s.List(b.Context(), q); err != nil || len(page.Users) == 0 {
					b.Fatal(len(page.Users), err)
				}
			}
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := openTest(b, filepath.Join(b.TempDir(), "users.db"))
			var n atomic.Int64
			var callersGroup sync.WaitGroup
			b.ResetTimer()
			for range callers {
				callersGroup.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						if _, err := user.ApplyOne(b.Context(), s, user.Change{Op: mustCreate(b, fmt.Sprint("user", i))}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callersGroup.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}

// submitBatches submits b.N changes in batches of 500, with a few batches in flight.
func submitBatches(b *testing.B, s *Store, change func(i int) user.Change) {
	var pending []*user.Pending
	for done := 0; done < b.N; {
		var batch user.Batch
		for range min(500, b.N-done) {
			batch.Changes = append(batch.Changes, change(done))
			done++
		}
		pending = append(pending, s.Submit(b.Context(), batch))
		if len(pending) > 4 {
			mustWait(b, pending[0])
			pending = pending[1:]
		}
	}
	for _, p := range pending {
		mustWait(b, p)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}

func BenchmarkBulkCreate(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "users.db"))
	s.Observe(func(user.Commit) {})
	b.ResetTimer()
	submitBatches(b, s, func(i int) user.Change { return user.Change{Op: mustCreate(b, fmt.Sprint("user", i))} })
}

func BenchmarkBulkUpdate(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "users.db"))
	s.Observe(func(user.Commit) {})
	var ids []int64
	for range 40 {
		var batch user.Batch
		for range 500 {
			batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(b, fmt.Sprint("user", len(ids)+len(batch.Changes)))})
		}
		for _, r := range mustWait(b, s.Submit(b.Context(), batch)) {
			ids = append(ids, r.User.ID)
		}
	}
	b.ResetTimer()
	submitBatches(b, s, func(i int) user.Change {
		tags := []string{"round", strconv.Itoa(i / len(ids))}
		op, err := user.NewUpdate(ids[i%len(ids)], user.NewPatch(user.User{Tags: tags}), "")
		if err != nil {
			b.Fatal(err)
		}
		return user.Change{Op: op}
	})
}

// BenchmarkReplay reads the log of one user and of all users in pages of 1000.
func BenchmarkReplay(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "users.db"))
	id := createUser(b, s, "anna").ID
	const rows = 200_000
	for done := 0; done < rows; {
		var batch user.Batch
		for range 1000 {
			done++
			details := map[string]string{"page": "/start", "n": strconv.Itoa(done), "agent": "browser"}
			batch.Changes = append(batch.Changes, user.Change{Op: &user.Record{ID: id, Action: "app.page_seen", Details: details}})
		}
		mustWait(b, s.Submit(b.Context(), batch))
	}
	for name, userID := range map[string]int64{"user": id, "all": 0} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			query := user.LogQuery{UserID: userID, MaxRows: 1000}
			read := 0
			for b.Loop() {
				page, err := s.Log(b.Context(), query)
				if err != nil {
					b.Fatal(err)
				}
				read += len(page.Rows)
				if query.After = page.Reached; page.Done {
					query.After = 0
				}
			}
			b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
