package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// disordered returns a store whose table leaf pages are not in key order, as if pages of two
// states had been mixed.
func disordered(t *testing.T, users int) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	var batch user.Batch
	for i := range users {
		batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprint("user", i))})
	}
	mustWait(t, s.Submit(t.Context(), batch))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	leaves := map[bool][][]byte{} // true: of the log, false: of users
	for page := range slices.Chunk(whole, 4096) {
		if page[0] == 0x0d && binary.BigEndian.Uint16(page[3:]) > 5 && bytes.Contains(page, []byte("@example.org")) {
			inLog := bytes.Contains(page, []byte("user.created"))
			leaves[inLog] = append(leaves[inLog], page)
		}
	}
	for _, pages := range leaves {
		if len(pages) < 4 {
			t.Fatalf("a table has %d leaves, want more", len(pages))
		}
		for i := range len(pages) / 2 { // reverse
			a, b := pages[i], pages[len(pages)-1-i]
			tmp := bytes.Clone(a)
			copy(a, b)
			copy(b, tmp)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), Options{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // fails: it is damaged
	return s
}

func TestListsEndOnCorruptTree(t *testing.T) {
	const users = 600
	s := disordered(t, users)
	if err := s.Integrity(); err == nil {
		t.Error("Integrity() = nil, want damage")
	}
	failed := 0
	for _, order := range user.Orders() {
		for _, desc := range []bool{false, true} {
			n, err := walkUsers(t, s, user.ListQuery{Order: order, Desc: desc, MaxUsers: 50, MaxScanned: 100, MaxBytes: 1 << 20}, users)
			t.Logf("order %v, descending %v: %d users, %v", order, desc, n, err)
			if err != nil {
				failed++
			}
		}
	}
	if failed == 0 {
		t.Error("no list reported the damage")
	}
	for _, desc := range []bool{false, true} {
		walkLog(t, s, desc, users)
	}
}

func walkUsers(t *testing.T, s *Store, query user.ListQuery, users int) (n int, err error) {
	t.Helper()
	ids := map[int64]bool{}
	for range users {
		page, err := s.List(t.Context(), query)
		if err != nil {
			if !errors.As(err, new(disorderError)) && !strings.Contains(err.Error(), "damaged") {
				t.Fatalf("List() = %v, want damage", err)
			}
			return len(ids), err
		}
		for _, u := range page.Users {
			if ids[u.ID] {
				t.Fatalf("user %d was listed twice", u.ID)
			}
			ids[u.ID] = true
		}
		if page.Next == nil {
			return len(ids), nil
		}
		query.After = page.Next
	}
	t.Fatalf("order %v, descending %v: no last page after %d pages", query.Order, query.Desc, users)
	return 0, nil
}

func walkLog(t *testing.T, s *Store, desc bool, rows int) {
	t.Helper()
	query := user.LogQuery{Desc: desc, MaxRows: 20}
	for range rows {
		page, err := s.Log(t.Context(), query)
		if err != nil || page.Done {
			t.Logf("log, descending %v: %v", desc, err)
			return
		}
		if desc {
			query.Before = page.Reached
		} else {
			query.After = page.Reached
		}
	}
	t.Fatalf("log, descending %v: no last page after %d pages", desc, rows)
}

// A stored value that cannot be decoded is damage: writes stop, and the store is not ready.
func TestUndecodableValueIsDamage(t *testing.T) {
	for name, query := range map[string]string{
		"details": "UPDATE log SET details = x'ff00'", "tags": "UPDATE users SET tags = x'ff00'",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			s := openTest(t, path)
			u := createUser(t, s, "anna")
			err := s.queue.Do(t.Context(), func(w *writer) error { return w.conn.run(query) })
			if err == nil {
				err = s.Integrity()
			}
			if err != nil {
				t.Fatal(err)
			}
			_, getErr := s.Get(t.Context(), u.ID)
			_, logErr := s.Log(t.Context(), user.LogQuery{MaxRows: 10})
			if getErr == nil && logErr == nil {
				t.Error("Get and Log succeeded, want an error")
			}
			if s.Integrity() == nil {
				t.Error("Integrity = nil, want an error")
			}
			if err := s.Probe(t.Context()); !user.HasReason(err, user.StoreReadOnly) {
				t.Errorf("Probe = %v, want STORE_READ_ONLY", err)
			}
			if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) == 0 {
				t.Errorf("Check = %v, %v, want findings", findings, err)
			}
		})
	}
}
