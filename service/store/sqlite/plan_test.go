package sqlite

import (
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// A list reads few rows if few users are in its range or meet its condition, in every order.
func TestListsOfFewUsersReadFewRows(t *testing.T) {
	now := newTestClock()
	s := openAt(t, now)
	const crowd = maxSorted + 100
	createUser(t, s, "anna")
	createUser(t, s, "berta")
	now.advance(time.Hour)
	createCrowd(t, s, 0, crowd)
	crowdTime := now.now()
	now.advance(time.Hour)
	createUser(t, s, "carla")
	tag := &user.Condition{Term: user.FieldByName("tags").ElementTerm("tag")}
	for name, test := range map[string]struct {
		query user.ListQuery
		want  int
	}{
		"after a position":  {user.ListQuery{AfterActivity: crowd + 2}, 1},
		"before a position": {user.ListQuery{BeforeActivity: 3}, 2},
		"created from":      {user.ListQuery{Created: user.TimeRange{From: crowdTime.Add(time.Second)}}, 1},
		"created until":     {user.ListQuery{Created: user.TimeRange{Until: crowdTime.Add(-time.Second)}}, 2},
		"condition":         {user.ListQuery{Where: tag}, 3},
	} {
		for _, order := range user.Orders() {
			q := test.query
			q.Order, q.MaxUsers, q.MaxScanned, q.MaxBytes = order, 10, 2*crowd, 1<<20
			q.Match = func(u *user.User, _ user.Keys) bool {
				return len(u.Tags) > 0 && u.LastActivityID > q.AfterActivity && (q.BeforeActivity == 0 || u.LastActivityID < q.BeforeActivity) &&
					u.CreatedAt.After(q.Created.From) && (q.Created.Until.IsZero() || u.CreatedAt.Before(q.Created.Until))
			}
			before := s.RowsRead()
			page, err := s.List(t.Context(), q)
			if read := s.RowsRead() - before; err != nil || len(page.Users) != test.want || read > 20 {
				t.Errorf("%s, order %v: List() = %d users, %v, and read %d rows, want %d users and few rows", name, order, len(page.Users), err, read, test.want)
			}
		}
	}
}

// Of a conjunction the part with the fewest users comes first, by their number or by their distance.
func TestRarestPartIsFirst(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	var batch user.Batch
	for i := range 4 * gapEntries {
		tags := []string{"all"}
		for tag, one := range map[string]int{"half": 2, "third": 3, "few": 100} {
			if i%one == 0 {
				tags = append(tags, tag)
			}
		}
		op, err := user.NewCreate(user.User{Username: fmt.Sprintf("user %03d", i), Email: fmt.Sprintf("%d@example.org", i), Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		batch.Changes = append(batch.Changes, user.Change{Op: op})
	}
	if _, err := user.Apply(t.Context(), s, batch); err != nil {
		t.Fatal(err)
	}
	tag := user.FieldByName("tags")
	var parts []user.Condition
	var want []user.Term
	for _, name := range []string{"half", "all", "few", "third"} {
		parts = append(parts, user.Condition{Term: tag.ElementTerm(name)})
	}
	for _, name := range []string{"few", "third", "half", "all"} {
		want = append(want, tag.ElementTerm(name))
	}
	var got []user.Term
	err := s.queue.Do(t.Context(), func(w *writer) (err error) {
		candidates := newCandidateReader(&err, w.conn)
		if err != nil {
			return err
		}
		sorted, err := candidates.rarestFirst(user.Condition{All: parts})
		for i := range sorted.All {
			got = append(got, sorted.All[i].Term)
		}
		if err := w.conn.run("DROP TABLE terms"); err != nil {
			return err
		}
		if sorted, err := candidates.rarestFirst(user.Condition{All: parts}); err == nil {
			t.Errorf("rarestFirst() without an index = %q, want an error", sorted.All)
		}
		return err
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("parts = %q, %v, want %q", got, err, want)
	}
}

// Queries whose cost must not grow with the store search an index and do not sort.
func TestPlans(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	logUser := "SELECT " + logColumns + " FROM log WHERE user_id = ? AND position > ? AND position < ? ORDER BY position LIMIT ?"
	for query, want := range map[string]string{
		listQueries[byID]:             "SEARCH users USING INTEGER PRIMARY KEY (rowid>?)",
		listQueries[byID+1]:           "SEARCH users USING INTEGER PRIMARY KEY (rowid<?)",
		listQueries[byUsername]:       "SEARCH users USING INDEX users_username (username_key>? AND username_key<?)",
		listQueries[byUsername+1]:     "SEARCH users USING INDEX users_username (username_key>? AND username_key<?)",
		listQueries[byEmail]:          "SEARCH users USING INDEX users_email (email_key>? AND email_key<?)",
		listQueries[byEmail+1]:        "SEARCH users USING INDEX users_email (email_key>? AND email_key<?)",
		listQueries[byCreated]:        "SEARCH users USING INDEX users_created (created_at>? AND created_at<?)",
		listQueries[byCreated+1]:      "SEARCH users USING INDEX users_created (created_at>? AND created_at<?)",
		listQueries[atCreated]:        "SEARCH users USING INDEX users_created (created_at=? AND rowid>?)",
		listQueries[atCreated+1]:      "SEARCH users USING INDEX users_created (created_at=? AND rowid<?)",
		activityCandidates:            "SEARCH users USING COVERING INDEX users_last_activity (last_activity_id>? AND last_activity_id<?)",
		createdCandidates:             "SEARCH users USING COVERING INDEX users_created (created_at>? AND created_at<?)",
		listQueries[byLastActivity]:   "SEARCH users USING INDEX users_last_activity (last_activity_id>? AND last_activity_id<?)",
		listQueries[byLastActivity+1]: "SEARCH users USING INDEX users_last_activity (last_activity_id>? AND last_activity_id<?)",
		logUser:                       "SEARCH log USING INDEX log_user (user_id=? AND rowid>? AND rowid<?)",
		strings.Replace(logUser, "position LIMIT", "position DESC LIMIT", 1): "SEARCH log USING INDEX log_user (user_id=? AND rowid>? AND rowid<?)",
		strings.Replace(logUser, "user_id = ? AND ", "", 1):                  "SEARCH log USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
		dueQuery: "SEARCH users USING COVERING INDEX users_purge (purge_at<?)",
		"SELECT seq FROM request_ids WHERE user_id = ? LIMIT ?":                     "SEARCH request_ids USING COVERING INDEX request_ids_user (user_id=?)",
		"SELECT answer FROM request_ids WHERE id IN (?, ?)":                         "SEARCH request_ids USING INDEX request_ids_key (id=?)",
		"SELECT seq FROM request_ids WHERE id = ? AND procedure = ? AND caller = ?": "SEARCH request_ids USING COVERING INDEX request_ids_key (id=? AND procedure=? AND caller=?)",
	} {
		if got := planOf(t, s, query); len(got) != 1 || got[0] != want {
			t.Errorf("plan of %s = %q, want %q", query, got, want)
		}
	}
}

// Users of many ids are read in the order of the ids.
func TestPlansOfManyIDs(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	for _, query := range []string{usersQuery, statusQuery} {
		want := "SCAN ids VIRTUAL TABLE INDEX 1:, SEARCH users USING INTEGER PRIMARY KEY (rowid=?)"
		if got := strings.Join(planOf(t, s, query), ", "); got != want {
			t.Errorf("plan of %s = %q, want %q", query, got, want)
		}
	}
}

// Queries of the index of terms continue at a user and do not sort.
func TestTermPlans(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	for query, want := range map[string]string{
		listQueries[byTerms]:   "SCAN terms VIRTUAL TABLE INDEX 64:M1>, SEARCH users USING INTEGER PRIMARY KEY (rowid=?)",
		listQueries[byTerms+1]: "SCAN terms VIRTUAL TABLE INDEX 192:M1<, SEARCH users USING INTEGER PRIMARY KEY (rowid=?)",
		termCandidates:         "SCAN terms VIRTUAL TABLE INDEX 64:M1",
	} {
		if got := strings.Join(planOf(t, s, query), ", "); got != want {
			t.Errorf("plan of %s = %q, want %q", query, got, want)
		}
	}
}

// planOf returns the lines of EXPLAIN QUERY PLAN.
func planOf(t *testing.T, s *Store, query string) (plan []string) {
	t.Helper()
	args := make([]driver.Value, strings.Count(query, "?"))
	for i := range args {
		args[i] = int64(1)
	}
	err := s.queue.Do(t.Context(), func(w *writer) error {
		return w.conn.rows("EXPLAIN QUERY PLAN "+query, func(row []driver.Value) error {
			plan = append(plan, asText(row[3]))
			return nil
		}, args...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}
