package postgres_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/postgres"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// Open normalizes names again that were stored by older rules, with their entries in the index. A user whose new normal form
// is taken keeps its old one.
func TestNamesAreRenormalized(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s, err := openStore(t, url)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"strasse", "first", "second", "third", "plain"} {
		create(t, s, name)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	old := []struct{ name, username, usernameKey, email, emailKey string }{
		{"first", "Straße", "straße", "b@example.org\n", "b@example.org"},
		{"second", " Παππας\u200b", "παππας", "c@exam\u00adple.org", "c@example.org"},
		{"third", "ΠΑΠΠΑΣ", "παππασ", "\u034fd@example.org", "\u034fd@example.org"},
	}
	for _, u := range old {
		stored := &user.User{Username: u.username, Email: u.email, Status: user.StatusActive}
		err := conn.QueryRow(t.Context(), "UPDATE users SET username = $2, username_key = $3, email = $4, email_key = $5 WHERE username = $1 RETURNING user_id",
			u.name, u.username, []byte(u.usernameKey), u.email, []byte(u.emailKey)).Scan(&stored.ID)
		if err == nil {
			_, err = conn.Exec(t.Context(), "DELETE FROM terms WHERE user_id = $1", stored.ID)
		}
		for _, token := range tokens.OfUser(stored, user.Keys{Username: u.usernameKey, Email: u.emailKey}) {
			if err == nil {
				_, err = conn.Exec(t.Context(), "INSERT INTO terms VALUES ($1, $2)", int64(token), stored.ID)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = conn.Exec(t.Context(), "UPDATE meta SET names = 0")
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for range 2 { // the second Open has nothing to do
		s, err = postgres.Open(t.Context(), postgres.Options{URL: url, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		page, err := s.List(t.Context(), user.ListQuery{Order: user.ByUsername, MaxUsers: 10, MaxScanned: 10, MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range page.Users {
			got = append(got, u.Username+" "+u.Email)
		}
		want := []string{"plain plain@example.org", "strasse strasse@example.org", "Straße b@example.org", "Παππας c@example.org", "ΠΑΠΠΑΣ d@example.org"}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("users in the order of their normal forms = %q, want %q", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "no longer unique"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, log.String())
	}
	if findings, err := postgres.Check(t.Context(), url, func(int, int) {}); err != nil || len(findings) > 0 {
		t.Errorf("Check() = %q, %v, want no findings", findings, err)
	}
}
