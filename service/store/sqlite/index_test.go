package sqlite

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// checkFindings returns the findings of a check of a store.
func checkFindings(t *testing.T, path string) string {
	t.Helper()
	f, err := OpenFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := f.Check(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(findings, "\n")
}

// A check finds an entry of the index that was not written or not removed.
func TestCheckFindsWrongEntries(t *testing.T) {
	text := func(tag string) string {
		return joinTokens([]token{termToken(user.FieldByName("tags").ElementTerm(tag))})
	}
	const finding = "its entries in the index are not those of its fields"
	for _, test := range []struct{ name, statement, token, want string }{
		{"correct", "INSERT INTO terms(rowid, tokens) VALUES (?, substr(?, 0, 0))", text("tag"), ""},
		{"missing", "INSERT INTO terms(terms, rowid, tokens) VALUES ('delete', ?, ?)", text("tag"), finding},
		{"not removed", "INSERT INTO terms(rowid, tokens) VALUES (?, ?)", text("other"), finding},
		{"unused, but not in the index", "INSERT INTO unused_terms(user_id, tokens) VALUES (?, ?)", text("other"), finding},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			s := openTest(t, path)
			createUser(t, s, "anna")
			id := createUser(t, s, "berta").ID
			if err := s.do(t.Context(), func(w *writer) error { return w.conn.run(test.statement, id, test.token) }); err != nil {
				t.Fatal(err)
			}
			if test.want != "" {
				test.want = fmt.Sprintf("user %d: %s", id, test.want)
			}
			if got := checkFindings(t, path); got != test.want {
				t.Errorf("Check() = %q, want %q", got, test.want)
			}
		})
	}
}

// Open writes the index of users stored before there was one, and continues an interrupted build.
func TestOpenBuildsIndex(t *testing.T) {
	interrupt := func(t *testing.T, path string) {
		t.Helper()
		c, err := connect(t.Context(), dsn(path, readerCacheKiB))
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{
			"INSERT INTO terms(terms) VALUES ('delete-all')",
			"UPDATE meta SET indexed = 0",
		} {
			if err := c.run(statement); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, prepare := range map[string]func(*testing.T, string){"version 1": makeVersion1, "interrupted": interrupt} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			s := openTest(t, path)
			for _, name := range []string{"anna", "berta", "carla"} {
				createUser(t, s, name)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			prepare(t, path)
			s = openTest(t, path)
			page, err := s.List(t.Context(), user.ListQuery{
				Where: &user.Condition{Term: user.FieldByName("tags").ElementTerm("tag")}, MaxUsers: 10, MaxScanned: 10, MaxBytes: 1 << 20,
			})
			if err != nil || len(page.Users) != 3 {
				t.Errorf("List() = %d users, %v, want 3 users", len(page.Users), err)
			}
			if got := checkFindings(t, path); got != "" {
				t.Errorf("Check() = %q, want no findings", got)
			}
		})
	}
}
