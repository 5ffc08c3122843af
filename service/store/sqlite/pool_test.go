package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// A read on a hanging disk returns when its context ends, and its late result is discarded.
func TestHangingReadIsCanceled(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	resume := make(chan struct{})
	for range pointReaders {
		started := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-started; cancel() }()
		got, err := read(ctx, s.pool, func(*reader) (int, error) { close(started); <-resume; return 1, nil })
		if !errors.Is(err, context.Canceled) || got != 0 {
			t.Fatalf("read = %d, %v, want 0, context.Canceled", got, err)
		}
	}
	// All readers hang. The next read waits in the queue until its context ends.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { _, err := s.Get(ctx, u.ID); ended <- err }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(resume)
	for range 100 { // tasks of canceled reads are not reused
		if got, err := s.Get(t.Context(), u.ID); err != nil || got.ID != u.ID {
			t.Fatal(got, err)
		}
		if _, err := s.Get(t.Context(), 1); !user.HasReason(err, user.UserNotFound) {
			t.Fatal(err)
		}
	}
}

// holdScans blocks all scan readers until resume is called.
func holdScans(t *testing.T, s *Store) (resume func()) {
	t.Helper()
	release := make(chan struct{})
	var held, ended sync.WaitGroup
	for range scanReaders() {
		held.Add(1)
		ended.Go(func() {
			err := scan(t.Context(), s.pool, func(*reader) (bool, error) { held.Done(); <-release; return true, nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	held.Wait()
	return func() { close(release); ended.Wait() }
}

// awaitScans waits until the given number of scans is queued.
func awaitScans(t *testing.T, s *Store, want int) {
	t.Helper()
	for {
		s.pool.scans.mu.Lock()
		n := s.pool.scans.waiting.Len()
		s.pool.scans.mu.Unlock()
		if n == want {
			return
		}
		runtime.Gosched()
	}
}

func TestPointReadsDoNotWaitForScans(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	resume := holdScans(t, s)
	const waiting = 50
	var scans sync.WaitGroup
	for range waiting {
		scans.Go(func() {
			if _, err := s.List(t.Context(), user.ListQuery{MaxUsers: 1, MaxScanned: 1, MaxBytes: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	awaitScans(t, s, waiting)
	if got, err := s.Get(t.Context(), u.ID); err != nil || got.ID != u.ID {
		t.Errorf("Get = %v, %v while all scan readers are busy", got, err)
	}
	if got, err := s.GetMany(t.Context(), []int64{u.ID}); err != nil || len(got) != 1 {
		t.Errorf("GetMany of one = %v, %v while all scan readers are busy", got, err)
	}
	if got, err := s.Log(t.Context(), user.LogQuery{MaxRows: 1}); err != nil || len(got.Rows) != 1 {
		t.Errorf("Log of one row = %v, %v while all scan readers are busy", got, err)
	}
	resume()
	scans.Wait()
}

// turnsOf starts scans in the order of names and returns the name of the scan of each turn. The first
// letter of a name is the caller.
func turnsOf(t *testing.T, s *Store, chunks int, names ...string) (turns []string) {
	t.Helper()
	resume := holdScans(t, s)
	var mu sync.Mutex
	var scans sync.WaitGroup
	for i, name := range names {
		ctx := user.WithCaller(t.Context(), name[:1])
		left := chunks
		scans.Go(func() {
			err := scan(ctx, s.pool, func(*reader) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				turns = append(turns, name)
				left--
				return left == 0, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		awaitScans(t, s, i+1)
	}
	resume()
	scans.Wait()
	return turns
}

func TestScansTakeTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // one scan reader: deterministic order
	for name, test := range map[string]struct {
		chunks      int
		scans, want []string
	}{
		"callers": {2, []string{"a1", "a2", "a3", "b1", "c1"}, []string{
			"a1", "b1", "c1", "a2", "b1", "c1", "a3", "a1", "a2", "a3",
		}},
		"scans of one caller": {2, []string{"a1", "a2", "a3", "a4", "a5", "a6"}, []string{
			"a1", "a2", "a3", "a4", "a1", "a2", "a3", "a4", "a5", "a6", "a5", "a6",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
			if got := turnsOf(t, s, test.chunks, test.scans...); !slices.Equal(got, test.want) {
				t.Errorf("turns = %v, want %v", got, test.want)
			}
		})
	}
}

// A canceled scan takes no further turn, whether running or queued.
func TestCanceledScanEnds(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	ctx, cancel := context.WithCancel(t.Context())
	chunks := 0
	err := scan(ctx, s.pool, func(*reader) (bool, error) { chunks++; cancel(); return false, nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("scan = %v, want canceled", err)
	}
	resume := holdScans(t, s) // the scan above has ended
	if chunks != 1 {
		t.Errorf("%d chunks were read, want 1", chunks)
	}
	ctx, cancel = context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- scan(ctx, s.pool, func(*reader) (bool, error) { t.Error("a chunk of a canceled scan was read"); return true, nil })
	}()
	awaitScans(t, s, 1)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("scan = %v, want canceled", err)
	}
	awaitScans(t, s, 0)
	resume()
}
