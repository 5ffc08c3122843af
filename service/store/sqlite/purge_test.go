package sqlite

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// traces returns the values that the files of the directory contain.
func traces(t *testing.T, dir string, values []string) (found []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("files of the store: %v, %v", paths, err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range values {
			if bytes.Contains(content, []byte(value)) {
				found = append(found, filepath.Base(path)+": "+value)
			}
		}
	}
	return found
}

// createCrowd creates users with numbers from from to to, in a scattered order of their names, so
// that pages of the indexes split.
func createCrowd(t *testing.T, s *Store, from, to int) {
	t.Helper()
	var batch user.Batch
	for i := from; i < to; i++ {
		n := i * 7919 % 5003
		op, err := user.NewCreate(user.User{Username: fmt.Sprintf("crowd %04d", n), Email: fmt.Sprintf("crowd.%04d@example.org", n)})
		if err != nil {
			t.Fatal(err)
		}
		batch.Changes = append(batch.Changes, user.Change{Op: op})
	}
	if _, err := user.Apply(t.Context(), s, batch); err != nil {
		t.Fatal(err)
	}
}

// A purge leaves no value of the user in the files of the store: not in rows, indexes and stored
// results, and not in free space. The same test finds values without secure_delete.
func TestPurgeLeavesNoTrace(t *testing.T) {
	for name, keep := range map[string]bool{"secure_delete": false, "planted: no secure_delete": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(t.Context(), Options{Path: filepath.Join(dir, "users.db"), Logger: slog.New(slog.DiscardHandler), keepDeleted: keep})
			if err != nil {
				t.Fatal(err)
			}
			values := writeAndPurge(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if found := traces(t, dir, values); (len(found) > 0) != keep {
				t.Errorf("values left after the purge: %q, want some: %v", found, keep)
			}
		})
	}
}

// writeAndPurge purges a user among many others, and returns its values and their normal forms.
func writeAndPurge(t *testing.T, s *Store) []string {
	t.Helper()
	createCrowd(t, s, 0, 600)
	key := func(id string) *user.IdempotencyKey {
		return &user.IdempotencyKey{Caller: "caller", Procedure: "/p", ID: id}
	}
	apply := func(c user.Change) *user.User {
		t.Helper()
		r, err := user.ApplyOne(t.Context(), s, c)
		if err != nil {
			t.Fatal(err)
		}
		return r.User
	}
	create, err := user.NewCreate(user.User{
		Username: "crowd 25 Zebulon", Email: "crowd.25.Quixote@example.org", Tags: []string{"wombattag"},
		Metadata: map[string]string{"narwhalkey": "oryxvalue"},
	})
	if err != nil {
		t.Fatal(err)
	}
	values := []string{"Zebulon", "zebulon", "Quixote", "quixote", "wombattag", "narwhalkey", "oryxvalue"}
	id := apply(user.Change{Op: create, IdempotencyKey: key("create")}).ID
	for i := range 100 {
		createCrowd(t, s, 600+i, 601+i)
		name, email := fmt.Sprintf("crowd %02d Yolanda%d", i, i), fmt.Sprintf("crowd.%02d.Xanthippe@example.org", i)
		long := fmt.Sprintf("vicunavalue %d %0*d", i, 10*i, 0) // large results are stored in request_users
		op, err := user.NewUpdate(id, user.NewPatch(user.User{
			Username: name, Email: email, Tags: []string{"urubutag"}, Metadata: map[string]string{"tapirkey": long},
		}), "")
		if err != nil {
			t.Fatal(err)
		}
		apply(user.Change{Op: op, IdempotencyKey: key(fmt.Sprint("update", i))})
	}
	values = append(values, "Yolanda", "yolanda", "Xanthippe", "xanthippe", "urubutag", "tapirkey", "vicunavalue")
	apply(user.Change{Op: &user.Delete{ID: id}, IdempotencyKey: key("delete")})
	createCrowd(t, s, 1000, 1600)
	if _, err := user.ApplyPurge(t.Context(), s, &user.StartPurge{ID: id, Now: true}, user.Change{IdempotencyKey: key("purge")}); err != nil {
		t.Fatal(err)
	}
	return values
}

// The write-ahead log of a running store keeps pages of a purged user until it is overwritten. README.md
// names the size.
func TestPurgeLeavesNoTraceInRunningStore(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, filepath.Join(dir, "users.db"))
	values := writeAndPurge(t, s)
	if len(traces(t, dir, values)) == 0 {
		t.Error("no values in the write-ahead log after the purge, want some")
	}
	other, err := s.List(t.Context(), user.ListQuery{MaxUsers: 1, MaxScanned: 1, MaxBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	pages := func() (n int) {
		t.Helper()
		if err := s.queue.Do(t.Context(), func(w *writer) (err error) { n, err = w.pagesWritten(); return err }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const limit = 40 << 20 >> 12 // pages
	for begin := pages(); pages() < begin+limit; {
		record(t, s, other.Users[0].ID, 500, strings.Repeat("x", user.MaxDetails/2))
	}
	if found := traces(t, dir, values); len(found) > 0 {
		t.Errorf("values left after the write-ahead log was overwritten: %q", found)
	}
}
