package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// entries returns the tokens of a user in the index, and those that are to be removed from it.
func entries(t *testing.T, s *Store, id int64) (stored, unused []tokens.Token) {
	t.Helper()
	err := s.queue.Do(t.Context(), func(w *writer) error {
		if err := w.conn.run("CREATE VIRTUAL TABLE IF NOT EXISTS temp.entries USING fts5vocab(main, terms, instance)"); err != nil {
			return err
		}
		err := w.conn.rows("SELECT term FROM temp.entries WHERE doc = ? ORDER BY term", func(row []driver.Value) error {
			found, err := splitTokens(asText(row[0]))
			stored = append(stored, found...)
			return err
		}, id)
		if err != nil {
			return err
		}
		unused, err = w.index.unusedOf(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(stored)
	return stored, unused
}

func update(t *testing.T, s *Store, id int64, values user.User) *user.User {
	t.Helper()
	op, err := user.NewUpdate(id, user.NewPatch(values), "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := user.ApplyOne(t.Context(), s, user.Change{Op: op})
	if err != nil {
		t.Fatal(err)
	}
	return r.User
}

func openPlanted(t *testing.T, path string, opts Options) *Store {
	t.Helper()
	opts.Path, opts.Logger = path, slog.New(slog.DiscardHandler)
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// tokensOf returns the tokens that a user is to have in the index.
func tokensOf(u *user.User) []tokens.Token {
	username, _ := user.UsernameKey(u.Username)
	email, _ := user.EmailKey(u.Email)
	return tokens.OfUser(u, user.Keys{Username: username, Email: email})
}

// Tokens that are no longer used are cleaned. A check finds entries that were not removed.
func TestCleanIndex(t *testing.T) {
	for name, keep := range map[string]bool{"cleaned": false, "planted: entries are kept": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			s := openPlanted(t, path, Options{keepEntries: keep})
			id := createUser(t, s, "anna").ID
			s.cleaning.Store(true) // no cleaning in the background
			var u *user.User
			for i, tag := range []string{"one", "two", "one", "three"} {
				u = update(t, s, id, user.User{Username: fmt.Sprint("berta", i), Tags: []string{tag}, Status: user.StatusInactive})
			}
			stored, unused := entries(t, s, id)
			if got, want := tokens.Without(stored, unused), tokensOf(u); !slices.Equal(got, want) {
				t.Errorf("used entries = %v, want %v", got, want)
			}
			if !slices.Contains(unused, tokens.OfTerm(user.FieldByName("tags").ElementTerm("two"))) {
				t.Errorf("unused entries = %v, want that of the tag two", unused)
			}
			steps, wantSteps := 0, len(unused)/3+1
			for more := true; more; steps++ {
				err := s.queue.Do(t.Context(), func(w *writer) (err error) {
					more, err = w.cleanIndex(3)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if steps != wantSteps {
				t.Errorf("cleaned in %d steps, want %d: three entries in each", steps, wantSteps)
			}
			stored, unused = entries(t, s, id)
			if want := tokensOf(u); slices.Equal(stored, want) == keep || len(unused) > 0 {
				t.Errorf("entries after cleaning = %v, %v unused, want %v: %t", stored, unused, want, !keep)
			}
			if found := checkFindings(t, path); strings.Contains(found, "its entries in the index") != keep {
				t.Errorf("Check() = %q, want findings: %t", found, keep)
			}
		})
	}
}

// After an update, and after a start, unused tokens are cleaned in the background, in several steps.
func TestIndexIsCleanedInBackground(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	id := createUser(t, s, "anna").ID
	tags := func(prefix string) (list []string) {
		for i := range user.MaxTags {
			list = append(list, fmt.Sprint(prefix, i))
		}
		return list
	}
	wait := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for unused := true; unused; {
			err := s.queue.Do(ctx, func(w *writer) (err error) {
				_, unused, err = w.firstUnused.number()
				return err
			})
			if err != nil {
				t.Fatalf("wait until there are no unused tokens: %v", err)
			}
		}
	}
	for _, prefix := range []string{"one", "two"} {
		s.cleaning.Store(true) // not before the second update
		update(t, s, id, user.User{Username: prefix, Tags: tags(prefix)})
		s.cleaning.Store(false)
		update(t, s, id, user.User{Username: "anna", Tags: tags("other " + prefix)})
		wait()
	}
	s.cleaning.Store(true) // not before the start
	update(t, s, id, user.User{Username: "berta", Tags: []string{"tag"}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, path)
	wait()
}

// A purge in the transaction of earlier changes of the user leaves no entry either.
func TestPurgeInTransactionOfUpdate(t *testing.T) {
	s := openPlanted(t, filepath.Join(t.TempDir(), "users.db"), Options{Clock: clock.FromWallClock(time.Now)})
	s.cleaning.Store(true) // no cleaning in the background
	id := createUser(t, s, "anna").ID
	op, err := user.NewUpdate(id, user.NewPatch(user.User{Username: "berta", Tags: []string{"one"}}), "")
	if err != nil {
		t.Fatal(err)
	}
	batch := user.Batch{Atomic: true, Changes: []user.Change{{Op: op}, {Op: &user.Delete{ID: id}}, {Op: &user.Purge{ID: id}}}}
	if _, err := user.Apply(t.Context(), s, batch); err != nil {
		t.Fatal(err)
	}
	if stored, unused := entries(t, s, id); len(stored)+len(unused) > 0 {
		t.Errorf("entries after the purge = %v, %v unused, want none", stored, unused)
	}
}

// A purge leaves no entry of the index in the files of the store: not of the user, and not of its former
// values. The same test finds entries without secure-delete.
func TestPurgeLeavesNoEntry(t *testing.T) {
	for name, mode := range map[string]int64{"secure-delete": 1, "planted: no secure-delete": 0} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openPlanted(t, filepath.Join(dir, "users.db"), Options{})
			err := s.queue.Do(t.Context(), func(w *writer) error {
				return w.conn.run("INSERT INTO terms(terms, rank) VALUES ('secure-delete', ?)", mode)
			})
			if err != nil {
				t.Fatal(err)
			}
			createCrowd(t, s, 0, 600)
			u := createUser(t, s, "zebulon")
			var texts []string
			for i := range 20 {
				createCrowd(t, s, 600+10*i, 610+10*i)
				tag := fmt.Sprint("wombat", i)
				u = update(t, s, u.ID, user.User{Username: fmt.Sprint("zebulon quixote", i), Tags: []string{tag}})
				removed := joinTokens([]tokens.Token{tokens.OfTerm(user.FieldByName("tags").ElementTerm(tag))})
				texts = append(texts, removed[len(removed)-9:]) // a page omits the common prefix of neighbors
			}
			for _, op := range []user.Op{&user.Delete{ID: u.ID}, &user.Purge{ID: u.ID}} {
				if _, err := user.ApplyOne(t.Context(), s, user.Change{Op: op}); err != nil {
					t.Fatal(err)
				}
			}
			if stored, unused := entries(t, s, u.ID); len(stored)+len(unused) > 0 {
				t.Errorf("entries after the purge = %v, %v, want none", stored, unused)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if found := traces(t, dir, texts); (len(found) > 0) != (mode == 0) {
				t.Errorf("entries left after the purge: %q, want some: %t", found, mode == 0)
			}
		})
	}
}
