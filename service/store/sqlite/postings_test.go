package sqlite

import (
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

// A check finds a posting that was not written or not removed.
func TestCheckFindsWrongPostings(t *testing.T) {
	tags := user.FieldByName("tags")
	for _, test := range []struct {
		name, statement string
		args            []any
		want            string
	}{
		{"correct", "DELETE FROM postings WHERE term = ? AND user_id = -1", []any{termHash(tags.ElementTerm("tag"))}, ""},
		{"missing", "DELETE FROM postings WHERE term = ?", []any{termHash(tags.ElementTerm("tag"))}, "not in the postings of each of its terms"},
		{"not removed", "INSERT INTO postings VALUES (?, 1)", []any{termHash(tags.ElementTerm("other"))}, "postings: 4 entries, the users have 3 terms"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			s := openTest(t, path)
			createUser(t, s, "anna")
			if err := s.do(t.Context(), func(w *writer) error { return w.conn.run(test.statement, test.args[0]) }); err != nil {
				t.Fatal(err)
			}
			if got := checkFindings(t, path); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("Check() = %q, want %q", got, test.want)
			}
		})
	}
}

// Open writes the postings of users stored before there were any, and continues an interrupted build.
func TestOpenBuildsPostings(t *testing.T) {
	interrupt := func(t *testing.T, path string) {
		t.Helper()
		c, err := connect(t.Context(), dsn(path, readerCacheKiB))
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{
			"UPDATE meta SET indexed = (SELECT min(user_id) FROM users)",
			"DELETE FROM postings WHERE user_id > (SELECT min(user_id) FROM users)",
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
				Terms: [][]user.Term{{user.FieldByName("tags").ElementTerm("tag")}}, MaxUsers: 10, MaxScanned: 10, MaxBytes: 1 << 20,
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
