package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// testClock is a clock that a test advances. The writer of the store reads it.
type testClock struct{ nanos atomic.Int64 }

func newTestClock() *testClock {
	c := new(testClock)
	c.nanos.Store(time.Now().UnixNano())
	return c
}

func (c *testClock) now() time.Time { return time.Unix(0, c.nanos.Load()) }

func (c *testClock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// openAt opens a store with the clock.
func openAt(t *testing.T, c *testClock) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{
		Path: filepath.Join(t.TempDir(), "users.db"), Logger: slog.New(slog.DiscardHandler), Clock: clock.FromWallClock(c.now),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const metadataBytes = 60 * 1000

func createLargeUser(t *testing.T, s *Store) *user.User {
	t.Helper()
	metadata := make(map[string]string)
	for i := range 60 {
		metadata[fmt.Sprint("key", i)] = strings.Repeat("v", metadataBytes/60)
	}
	op, err := user.NewCreate(user.User{Username: "anna", Email: "anna@example.org", Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	created, err := user.ApplyOne(t.Context(), s, user.Change{Op: op})
	if err != nil {
		t.Fatal(err)
	}
	return created.User
}

// storedResults returns the number of rows of stored results, and their size.
func storedResults(t *testing.T, s *Store) (rows, bytes int64) {
	t.Helper()
	err := s.queue.Do(t.Context(), func(w *writer) error {
		return w.conn.rows("SELECT count(*), coalesce(sum(length(answer)), 0) FROM "+
			"(SELECT answer FROM request_ids UNION ALL SELECT answer FROM request_users)", func(row []driver.Value) error {
			rows, bytes = asNumber(row[0]), asNumber(row[1])
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows, bytes
}

func withRequestID(op user.Op, id int) user.Change {
	return user.Change{Op: op, IdempotencyKey: &user.IdempotencyKey{Caller: "c", Procedure: "p", ID: fmt.Sprint(id), Fingerprint: [32]byte{1}}}
}

// Small requests to a large user store one copy of it, which expires with them.
func TestStoredResultsShareALargeUser(t *testing.T) {
	t.Parallel()
	const requests = 60
	for name, op := range map[string]func(id int64, i int) user.Op{
		"without effect": func(id int64, _ int) user.Op { return &user.ReadBarrier{ID: id} },
		"status": func(id int64, i int) user.Op {
			return &user.SetStatus{ID: id, Status: []user.Status{user.StatusInactive, user.StatusActive}[i%2]}
		},
		"metadata entry": func(id int64, i int) user.Op {
			value := fmt.Sprint(i)
			return &user.Update{ID: id, Patch: user.Patch{Entries: map[string]*string{"key0": &value}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := newTestClock()
			s := openAt(t, now)
			id := createLargeUser(t, s).ID
			for i := range requests {
				if _, err := user.ApplyOne(t.Context(), s, withRequestID(op(id, i), i)); err != nil {
					t.Fatal(err)
				}
			}
			if rows, bytes := storedResults(t, s); rows > 2*requests || bytes > 2*metadataBytes+requests*150 {
				t.Errorf("%d results: %d rows with %d bytes, want one copy of the user", requests, rows, bytes)
			}
			now.advance(2*user.RequestIDLifetime + time.Second)
			for range 5 {
				if _, err := s.ExpireRequestIDs(t.Context(), requests); err != nil {
					t.Fatal(err)
				}
			}
			if rows, _ := storedResults(t, s); rows != 0 {
				t.Errorf("%d rows left after all results expired, want 0", rows)
			}
		})
	}
}

// The whole user is stored again after maxDifferences, and repeated requests return their first result.
func TestStoredResultsRestoreALargeUser(t *testing.T) {
	t.Parallel()
	now := newTestClock()
	s := openAt(t, now)
	id := createLargeUser(t, s).ID
	var changes []user.Change
	var want []user.Result
	for i := range maxDifferences + 50 {
		change := withRequestID(&user.SetStatus{ID: id, Status: []user.Status{user.StatusInactive, user.StatusActive}[i%2]}, i)
		result, err := user.ApplyOne(t.Context(), s, change)
		if err != nil {
			t.Fatal(err)
		}
		changes, want = append(changes, change), append(want, result)
	}
	if _, bytes := storedResults(t, s); bytes < 2*metadataBytes {
		t.Errorf("%d results have %d bytes, want two copies of the user", len(want), bytes)
	}
	for i, change := range changes {
		got, err := user.ApplyOne(t.Context(), s, change)
		if err != nil || !reflect.DeepEqual(got.User, want[i].User) {
			t.Fatalf("repeated request %d = version %d, %v, want version %d", i, got.User.Version, err, want[i].User.Version)
		}
	}
}

// A stored result whose user is lost is an error, and not a result without the user.
func TestLostUserOfStoredResult(t *testing.T) {
	t.Parallel()
	s := openAt(t, newTestClock())
	id := createLargeUser(t, s).ID
	request := withRequestID(&user.SetStatus{ID: id, Status: user.StatusInactive}, 1)
	if _, err := user.ApplyOne(t.Context(), s, request); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"UPDATE request_users SET version = version - 1", "DELETE FROM request_users"} {
		if err := s.queue.Do(t.Context(), func(w *writer) error { return w.conn.run(statement) }); err != nil {
			t.Fatal(err)
		}
		if got, err := user.ApplyOne(t.Context(), s, request); !errors.Is(err, encoding.ErrEncoding) {
			t.Errorf("%s: repeated request = %+v, %v, want ErrEncoding", statement, got, err)
		}
	}
}

// Random requests, with time that passes, to a large user: a repeated request returns its first result.
func TestRepeatedRequestsToALargeUser(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		now := newTestClock()
		s := openAt(t, now)
		id := createLargeUser(t, s).ID
		type request struct {
			change user.Change
			user   *user.User
			at     time.Time
		}
		var requests []request
		for i := range rapid.IntRange(1, 15).Draw(r, "requests") {
			change := withRequestID(drawOp(r, id), i)
			result, err := user.ApplyOne(t.Context(), s, change)
			if err != nil {
				r.Fatal(err)
			}
			requests = append(requests, request{change, result.User, now.now()})
			if rapid.IntRange(0, 4).Draw(r, "wait") == 0 {
				now.advance(time.Duration(rapid.IntRange(1, 30).Draw(r, "hours")) * time.Hour)
				// A request may join a transaction that has begun before, to clean the index, and has its time.
				if err := s.queue.Do(t.Context(), func(*writer) error { return nil }); err != nil {
					r.Fatal(err)
				}
			}
			if rapid.IntRange(0, 4).Draw(r, "expire") == 0 {
				if _, err := s.ExpireRequestIDs(t.Context(), rapid.IntRange(1, 4).Draw(r, "limit")); err != nil {
					r.Fatal(err)
				}
			}
		}
		for i, request := range requests {
			if now.now().Sub(request.at) >= user.RequestIDLifetime {
				continue
			}
			got, err := user.ApplyOne(t.Context(), s, request.change)
			if err != nil || !got.User.Equal(request.user, ^user.FieldSet(0)) {
				r.Fatalf("repeated request %d = %+v, %v, want %+v", i, got.User, err, request.user)
			}
		}
	})
}

// drawOp draws a small or large change of a user.
func drawOp(r *rapid.T, id int64) user.Op {
	value := strings.Repeat("w", rapid.SampledFrom([]int{1, 1000}).Draw(r, "value"))
	key := fmt.Sprint("key", rapid.IntRange(0, 3).Draw(r, "key"))
	switch rapid.IntRange(0, 6).Draw(r, "op") {
	case 0:
		return &user.ReadBarrier{ID: id}
	case 1:
		return &user.SetStatus{ID: id, Status: user.Status(rapid.IntRange(1, 3).Draw(r, "status"))}
	case 2:
		return &user.Update{ID: id, Patch: user.Patch{Entries: map[string]*string{key: &value}}}
	case 3:
		return &user.Update{ID: id, Patch: user.Patch{Entries: map[string]*string{key: nil}}}
	case 4:
		return &user.Update{ID: id, Patch: user.Patch{Set: user.NewFieldSet("metadata"), Values: user.User{Metadata: map[string]string{key: value, "other": strings.Repeat("x", 1000)}}}}
	case 5:
		return &user.Update{ID: id, Patch: user.Patch{Set: user.NewFieldSet("metadata")}}
	default:
		return &user.Update{ID: id, Patch: user.Patch{Set: user.NewFieldSet("tags"), Values: user.User{Tags: strings.Fields(value + " " + key)}}}
	}
}
