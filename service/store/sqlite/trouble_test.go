package sqlite

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// damagedStore returns a store with damaged pages, a user that cannot be changed and
// one that can.
func damagedStore(t *testing.T, log *bytes.Buffer) (s *Store, bad, good int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.db")
	s = openTest(t, path)
	var batch user.Batch
	for i := range 500 {
		batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprint("user", i))})
	}
	results := mustEnd(t, s.Submit(t.Context(), batch))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := range slices.Chunk(whole, 4096) { // a leaf of the table of users, not of the log
		if page[0] == 0x0d && bytes.Contains(page, []byte("@example.org")) && !bytes.Contains(page, []byte("user.created")) {
			copy(page, bytes.Repeat([]byte{0xa5}, len(page)))
			break
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), Options{Path: path, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the file is damaged
	for _, r := range results {
		if err := touch(t, s, r.User.ID); err != nil {
			bad = r.User.ID
		} else {
			good = r.User.ID
		}
	}
	if bad == 0 || good == 0 {
		t.Fatal("the damage was to hit some users and to leave some")
	}
	return s, bad, good
}

// touch changes a user.
func touch(t *testing.T, s *Store, id int64) error {
	t.Helper()
	_, err := user.ApplyOne(t.Context(), s, user.Change{Op: &user.Record{ID: id, Action: "app.seen"}})
	return err
}

// Damage that a change has met is what the probe tells of until it is some time ago and
// a change has been carried out. Who meets it and who does not take turns: the log is
// told once that it began, and once that it ended.
func TestDamageIsToldOfUntilWritesSucceed(t *testing.T) {
	var log bytes.Buffer
	s, bad, good := damagedStore(t, &log)
	probe := func() bool {
		t.Helper()
		err := s.Probe(t.Context())
		if err != nil && !user.HasReason(err, user.StoreReadOnly) {
			t.Fatal(err)
		}
		return err == nil
	}
	for range 10 {
		if err := touch(t, s, bad); !user.HasReason(err, user.StoreReadOnly) {
			t.Fatalf("a change that meets the damage: %v", err)
		}
		if err := touch(t, s, good); err != nil {
			t.Fatalf("a change that does not: %v", err)
		}
		if probe() {
			t.Fatal("the probe has forgotten the damage")
		}
	}
	err := s.do(t.Context(), func(w *writer) error {
		w.store.trouble.met = w.store.trouble.met.Add(-troubleMemory)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if probe() {
		t.Fatal("a probe that succeeds was taken for writes that do")
	}
	if err := touch(t, s, good); err != nil {
		t.Fatal(err)
	}
	if !probe() {
		t.Fatal("the probe tells of damage that is gone")
	}
	if err := s.Close(); err != nil {
		t.Log(err)
	}
	for text, want := range map[string]int{"a transaction failed": 1, "transactions succeed again": 1} {
		if got := strings.Count(log.String(), text); got != want {
			t.Errorf("the log says %d times %q, want %d:\n%s", got, text, want, &log)
		}
	}
}
