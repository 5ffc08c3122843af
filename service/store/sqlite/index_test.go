package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/store/tokens"
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

// A check ends at the next chunk after its context is canceled, with the cause.
func TestCanceledCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	createCrowd(t, s, 0, checkChunk+1)
	f, err := OpenFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	calls, cause := 0, errors.New("enough")
	if _, err := f.Check(t.Context(), func(int, int) { calls++ }); err != nil || calls < 5 {
		t.Fatalf("Check() = %v with %d calls of progress, want at least 5", err, calls)
	}
	for last := 1; last <= calls; last++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		n := 0
		_, err := f.Check(ctx, func(int, int) {
			if n++; n == last {
				cancel(cause)
			}
		})
		cancel(nil)
		if !errors.Is(err, cause) || n > last+1 {
			t.Errorf("Check() canceled in call %d of progress = %v after %d calls, want %v", last, err, n, cause)
		}
	}
}

// A check finds an entry of the index that was not written or not removed.
func TestCheckFindsWrongEntries(t *testing.T) {
	text := func(tag string) string {
		return joinTokens([]tokens.Token{tokens.OfTerm(user.FieldByName("tags").ElementTerm(tag))})
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
			if err := s.queue.Do(t.Context(), func(w *writer) error { return w.conn.run(test.statement, id, test.token) }); err != nil {
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
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	const users = 2*buildChunk + 100
	for from := 0; from < users; from += 1000 {
		var batch user.Batch
		for i := from; i < min(users, from+1000); i++ {
			batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprint("user", i))})
		}
		mustWait(t, s.Submit(t.Context(), batch))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	makeVersion1(t, path)
	ctx, interrupt := context.WithCancel(t.Context())
	opts := Options{Path: path, Logger: slog.New(slog.DiscardHandler), OnIndexing: func(int, int) { interrupt() }}
	if _, err := Open(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("Open() error = %v, want that of its context", err)
	}
	if got := checkFindings(t, path); got != "" {
		t.Errorf("Check() of an interrupted build = %q, want no findings", got)
	}
	var progress [][2]int
	opts.OnIndexing = func(done, total int) { progress = append(progress, [2]int{done, total}) }
	s = openPlanted(t, path, opts)
	if want := [][2]int{{2 * buildChunk, users}, {users, users}, {users, users}}; !slices.Equal(progress, want) {
		t.Errorf("progress of the continued build = %v, want %v", progress, want)
	}
	emea := &user.Condition{Term: user.FieldByName("tags").ElementTerm("emea")}
	count, err := s.Count(t.Context(), user.ListQuery{Where: emea, Match: emea.Meets, MaxScanned: 2 * users})
	if err != nil || count.Users != users {
		t.Errorf("Count() = %+v, %v, want %d users", count, err, users)
	}
	if got := checkFindings(t, path); got != "" {
		t.Errorf("Check() = %q, want no findings", got)
	}
}
