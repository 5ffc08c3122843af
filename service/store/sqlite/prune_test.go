package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/user"
)

// record writes n rows of a user.
func record(t *testing.T, s *Store, id int64, n int, details string) {
	t.Helper()
	var batch user.Batch
	for range n {
		batch.Changes = append(batch.Changes, user.Change{Op: &user.Record{ID: id, Action: "app.seen", Details: map[string]string{"d": details}}})
	}
	if _, err := user.Apply(t.Context(), s, batch); err != nil {
		t.Fatal(err)
	}
}

func prune(t *testing.T, s *Store, age time.Duration, limit, want int) {
	t.Helper()
	if got, err := s.Prune(t.Context(), age, limit); err != nil || got != want {
		t.Fatalf("Prune(%v, %d) = %d, %v, want %d", age, limit, got, err, want)
	}
}

// A clock that jumped forward prunes nothing until it was steady.
func TestPruneWaitsForConfirmedClock(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now, off := start, time.Duration(0)
	path := filepath.Join(t.TempDir(), "users.db")
	open := func() *Store {
		s, err := Open(t.Context(), Options{Path: path, Logger: slog.New(slog.DiscardHandler), Clock: func() clock.Reading {
			return clock.Reading{Wall: now.Add(off), Elapsed: now.Sub(start), Boot: "boot"}
		}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	createUser(t, s, "anna")
	now = now.Add(clock.Settle)
	prune(t, s, 24*time.Hour, 10, 0)
	for range 2 {
		off = 48 * time.Hour
		prune(t, s, 24*time.Hour, 10, 0)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open()
	}
	now = now.Add(clock.Settle)
	prune(t, s, 24*time.Hour, 10, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Pruned rows free pages that later rows use, and leave no values in the files.
func TestPrunedSpaceIsReused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "users.db")
	s := openTest(t, path)
	u := createUser(t, s, "anna")
	sizes := make([]int64, 6)
	for i := range sizes {
		record(t, s, u.ID, 2000, fmt.Sprintf("wombat %0200d", i))
		for n := 1; n > 0; {
			var err error
			if n, err = s.Prune(t.Context(), 0, 500); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.queue.Do(t.Context(), func(w *writer) error { w.checkpointed = -checkpointPages; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := s.queue.Do(t.Context(), func(*writer) error { return nil }); err != nil { // after the checkpoint
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes[i] = info.Size()
	}
	if sizes[5] > sizes[1]+sizes[1]/10 {
		t.Errorf("sizes after rounds of writing and pruning = %d, want no growth after the second", sizes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if found := traces(t, dir, []string{"wombat"}); len(found) > 0 {
		t.Errorf("values left after pruning: %q", found)
	}
}

func TestCheckOfPrunedStore(t *testing.T) {
	for name, test := range map[string]struct {
		pruned        int
		damage, finds string
	}{
		"some rows":                      {pruned: 3},
		"all rows":                       {pruned: 8},
		"gap after the first row":        {3, "DELETE FROM log WHERE position = 5", "gap, row 6 follows row 4"},
		"gap at the first row":           {3, "DELETE FROM log WHERE position = 4", "gap, row 5 follows row 0"},
		"all retained rows missing":      {3, "DELETE FROM log", "last log row 0"},
		"a pruned row is left":           {3, "UPDATE meta SET first = 7", "row 4 is left"},
		"head time differs":              {3, "UPDATE meta SET time = time + 1", "head time differs"},
		"position of a status":           {1, "UPDATE users SET status_position = 4 WHERE username = 'anna'", "did not set its status"},
		"position of the last change":    {1, "UPDATE users SET last_activity_id = 4 WHERE username = 'anna'", "not its last change"},
		"position 0 of a status":         {3, "UPDATE users SET status_position = 0 WHERE username = 'anna'", "did not set its status"},
		"nothing pruned, first position": {0, "DELETE FROM log WHERE position = 1", "gap, row 2 follows row 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
			for _, name := range []string{"anna", "berta"} {
				record(t, s, createUser(t, s, name).ID, 3, "x")
			}
			if test.pruned > 0 {
				prune(t, s, 0, test.pruned, test.pruned)
			}
			if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) > 0 {
				t.Fatalf("Check before the damage = %q, %v, want none", findings, err)
			}
			if test.damage == "" {
				return
			}
			if err := s.queue.Do(t.Context(), func(w *writer) error { return w.conn.run(test.damage) }); err != nil {
				t.Fatal(err)
			}
			findings, err := s.Check(t.Context(), nil)
			if err != nil || !strings.Contains(strings.Join(findings, "\n"), test.finds) {
				t.Errorf("Check = %q, %v, want %q", findings, err, test.finds)
			}
		})
	}
}

// After a failed transaction, the rows that it deleted count as pruned, and the next one deletes them.
func TestPruneAfterFailedTransaction(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	record(t, s, u.ID, 9, "x")
	failed := errors.New("injected failure")
	err := s.queue.Do(t.Context(), func(w *writer) error {
		if _, err := w.prune(time.Now().Add(time.Hour), 4); err != nil {
			return err
		}
		return failed
	})
	if err == nil {
		t.Fatal("do = nil, want the injected failure")
	}
	for step := range 2 {
		first, err := s.First(t.Context())
		if err != nil || first != 5 {
			t.Fatalf("step %d: First = %d, %v, want 5", step, first, err)
		}
		page, err := s.Log(t.Context(), user.LogQuery{Retained: true, MaxRows: 100})
		if err != nil || len(page.Rows) != 6 || page.Rows[0].Position != 5 {
			t.Fatalf("step %d: Log = %+v, %v, want the rows from 5 to 10", step, page, err)
		}
		if _, err := s.Log(t.Context(), user.LogQuery{After: 3, MaxRows: 100}); !user.HasReason(err, user.PositionOutOfRange) {
			t.Fatalf("step %d: Log(After: 3) = %v, want POSITION_OUT_OF_RANGE", step, err)
		}
		if step == 0 {
			prune(t, s, 0, 4, 4)
		}
	}
	if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) > 0 {
		t.Errorf("Check = %q, %v, want none", findings, err)
	}
}

// A page of several chunks fails if rows between two chunks are pruned.
func TestPruneBetweenChunks(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	record(t, s, u.ID, 3*chunkRows, "x")
	for _, query := range []user.LogQuery{{MaxRows: 2 * chunkRows}, {MaxRows: 2 * chunkRows, Retained: true}} {
		first, err := s.First(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		query.After = first - 1
		l := s.newLogReader(query)
		for chunk := range 2 {
			_, err = read(context.Background(), s.pool, l.chunk)
			if chunk == 0 {
				if err != nil {
					t.Fatal(err)
				}
				prune(t, s, 0, chunkRows+1, chunkRows+1)
			}
		}
		if !user.HasReason(err, user.PositionOutOfRange) {
			t.Errorf("chunk after pruning = %v, want POSITION_OUT_OF_RANGE", err)
		}
	}
}
