package janitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

func TestJanitorPurgesDueUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log := slog.New(slog.DiscardHandler)
		store, err := sqlite.Open(ctx, sqlite.Options{Path: path, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		create, err := user.NewCreate(user.User{Username: "ada", Email: "ada@example.com"})
		if err != nil {
			t.Fatal(err)
		}
		created, err := user.ApplyOne(ctx, store, user.Change{Op: create})
		if err != nil {
			t.Fatal(err)
		}
		id := created.User.ID
		if _, err := user.ApplyOne(ctx, store, user.Change{Op: &user.Delete{ID: id, Retention: time.Hour}}); err != nil {
			t.Fatal(err)
		}

		var ended = make(chan struct{})
		j := &Janitor{Store: store, Clock: time.Now, Log: log, Metrics: telemetry.NewMetrics(telemetry.Build{})}
		go func() { defer close(ended); j.Run(ctx) }()
		time.Sleep(time.Hour - time.Second)
		if _, err := store.Get(ctx, id); err != nil {
			t.Fatalf("user before its retention ended: %v", err)
		}
		time.Sleep(interval + 2*time.Second)
		if _, err := store.Get(ctx, id); !user.HasReason(err, user.UserNotFound) {
			t.Errorf("user after its retention: %v, want USER_NOT_FOUND", err)
		}
		page, err := store.Log(ctx, user.LogQuery{UserID: id, MaxRows: 10})
		if err != nil || len(page.Rows) != 3 {
			t.Fatalf("got %v, %v", page.Rows, err)
		}
		if got := page.Rows[0].Details["new.username"]; got != user.RedactedMark {
			t.Errorf("got username %q in the log", got)
		}
		if last := page.Rows[2]; last.Action != user.ActionPurged || last.Details[user.DetailActor] != actor {
			t.Errorf("got %v", last)
		}
		cancel()
		<-ended
	})
}

// stuckStore has due users, one of which cannot be purged.
type stuckStore struct {
	user.Store

	redacted []int64
}

func (s *stuckStore) DuePurges(context.Context, int) ([]int64, error) {
	return []int64{1, 2, 3}, nil
}

func (s *stuckStore) Redact(_ context.Context, id int64, _ int) (bool, error) {
	if id == 1 {
		return false, errors.New("stuck")
	}
	s.redacted = append(s.redacted, id)
	return false, nil
}

func (s *stuckStore) Submit(_ context.Context, batch user.Batch) *user.Pending {
	p, end := user.NewPending()
	end([]user.Result{{Outcome: user.OutcomeUpdated, User: &user.User{ID: batch.Changes[0].Op.Target()}}}, nil)
	return p
}

func TestJanitorContinuesAfterFailure(t *testing.T) {
	store := &stuckStore{}
	j := &Janitor{Store: store, Clock: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.NewMetrics(telemetry.Build{})}
	purged, err := j.purgeAll(t.Context())
	if purged != 2 || err == nil || len(store.redacted) != 2 {
		t.Errorf("got %d, %v, redacted %v", purged, err, store.redacted)
	}
}

// panickingStore panics in the first searches for due users.
type panickingStore struct {
	user.Store

	panics, searches int
}

func (s *panickingStore) DuePurges(context.Context, int) ([]int64, error) {
	if s.searches++; s.searches <= s.panics {
		panic("planted")
	}
	return nil, nil
}

func (s *panickingStore) ExpireRequestIDs(context.Context, int) (int, error) { return 0, nil }

// A panic ends one round only.
func TestPanicInJanitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*interval)
		defer cancel()
		store := &panickingStore{panics: 2}
		(&Janitor{Store: store, Clock: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.NewMetrics(telemetry.Build{})}).Run(ctx)
		if store.searches < 4 {
			t.Errorf("%d rounds, want at least 4", store.searches)
		}
	})
}

// Rows are pruned within a round after their retention, and a stream can still read the others.
func TestJanitorPrunesLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var lines bytes.Buffer
		store, err := sqlite.Open(ctx, sqlite.Options{Path: path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		create := func(from, to int) {
			t.Helper()
			var batch user.Batch
			for i := from; i < to; i++ {
				op, err := user.NewCreate(user.User{Username: fmt.Sprint("user", i), Email: fmt.Sprintf("u%d@example.com", i)})
				if err != nil {
					t.Fatal(err)
				}
				batch.Changes = append(batch.Changes, user.Change{Op: op})
			}
			if _, err := user.Apply(ctx, store, batch); err != nil {
				t.Fatal(err)
			}
		}
		first := func() int64 {
			t.Helper()
			first, err := store.First(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return first
		}
		const old = 2*pruneBatch + 7
		create(0, old)
		time.Sleep(time.Hour)
		create(old, old+5)
		time.Sleep(23*time.Hour - 2*interval)
		ended := make(chan struct{})
		j := &Janitor{
			Store: store, Clock: time.Now, Log: slog.New(slog.NewTextHandler(&lines, nil)),
			Metrics: telemetry.NewMetrics(telemetry.Build{}), LogRetention: 24 * time.Hour,
		}
		go func() { defer close(ended); j.Run(ctx) }()
		time.Sleep(2*interval - time.Second)
		if got := first(); got != 1 {
			t.Errorf("oldest row before the retention ended = %d, want 1", got)
		}
		time.Sleep(interval + 2*time.Second)
		if got := first(); got != old+1 {
			t.Errorf("oldest row after the retention = %d, want %d", got, old+1)
		}
		cancel()
		<-ended
		if want := fmt.Sprintf("msg=\"pruned log rows\" count=%d", old); !strings.Contains(lines.String(), want) {
			t.Errorf("log = %s, want %s", lines.String(), want)
		}
	})
}

// backlogStore always has rows to prune. A batch takes a second.
type backlogStore struct {
	user.Store

	searches int
	ages     map[time.Duration]int
}

func (s *backlogStore) DuePurges(context.Context, int) ([]int64, error) {
	s.searches++
	return nil, nil
}

func (s *backlogStore) ExpireRequestIDs(context.Context, int) (int, error) { return 0, nil }

func (s *backlogStore) Prune(_ context.Context, age time.Duration, limit int) (int, error) {
	time.Sleep(time.Second)
	s.ages[age]++
	return limit, nil
}

// A large number of rows to prune does not delay the other steps, and takes half of the time. Without a
// retention nothing is pruned.
func TestJanitorBoundsPruning(t *testing.T) {
	for retention, want := range map[time.Duration]int{0: 0, 48 * time.Hour: 300} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*interval-500*time.Millisecond)
			defer cancel()
			store := &backlogStore{ages: make(map[time.Duration]int)}
			(&Janitor{
				Store: store, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
				Metrics: telemetry.NewMetrics(telemetry.Build{}), LogRetention: retention,
			}).Run(ctx)
			if got := store.ages[retention]; got != want || store.searches < 10 {
				t.Errorf("retention %v: %d batches in 10 min, want %d; %d rounds, want at least 10", retention, got, want, store.searches)
			}
		})
	}
}
