package user_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now   = start.Add(time.Hour)
	stamp = user.CommitStamp{LogTime: now, Clock: now, Earliest: now, NextPosition: 70}
	by    = user.Author{Actor: "alice", RequestID: "r1"}
)

// ann returns a user created by row 5 and changed twice since.
func ann(change ...func(*user.User)) *user.User {
	u := &user.User{
		ID: 7, Username: "Ann", Email: "ann@example.org",
		Status: user.StatusActive, StatusTime: start, StatusPosition: 5,
		CreatedAt: start, UpdatedAt: start, Version: 3,
		Tags: []string{"vip"}, Metadata: map[string]string{"team": "red"},
	}
	for _, f := range change {
		f(u)
	}
	return u
}

func deleted(u *user.User) {
	u.DeletedAt, u.PurgeAt = start, now.Add(time.Hour)
}

// step is a call of Decide and its expected result.
type step struct {
	name string
	op   user.Op
	cur  *user.User

	reason  user.Reason             // the failure; empty: none
	store   bool                    // whether the user is to be written
	version int64                   // of the user after it
	actions []string                // of the rows
	details []map[string]string     // of the rows, actor and request id aside
	check   func(u *user.User) bool // of the user after it; nil: not checked
}

func (s step) run(t *testing.T) {
	var before *user.User
	if s.cur != nil {
		before = s.cur.Clone()
	}
	d, err := s.op.Decide(s.cur, stamp, by)
	if !reflect.DeepEqual(before, s.cur) {
		t.Errorf("Decide() modified the current user: %+v", s.cur)
	}
	if s.reason != "" {
		if !user.HasReason(err, s.reason) {
			t.Fatalf("Decide() error = %v, want reason %s", err, s.reason)
		}
		if d.Store || d.Changed() {
			t.Errorf("Decide() = %+v with an error, want a zero Decision", d)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if d.Store != s.store || d.Changed() != (len(s.actions) > 0) {
		t.Errorf("Decide() Store = %v, Changed() = %v", d.Store, d.Changed())
	}
	if d.User != nil && d.User.Version != s.version {
		t.Errorf("Decide() version = %d, want %d", d.User.Version, s.version)
	}
	if s.check != nil && !s.check(d.User) {
		t.Errorf("Decide() user = %+v", d.User)
	}
	s.checkRows(t, d.Rows)
}

func (s step) checkRows(t *testing.T, rows []user.Activity) {
	t.Helper()
	var actions []string
	for i, row := range rows {
		actions = append(actions, row.Action)
		if row.Position != stamp.NextPosition+int64(i) || row.UserID != 7 || !row.Time.Equal(now) {
			t.Errorf("Rows[%d] = %+v", i, row)
		}
		if row.Details["actor"] != "alice" || row.Details["request_id"] != "r1" {
			t.Errorf("Rows[%d].Details = %v, want actor and request id", i, row.Details)
		}
		rest := maps.Clone(row.Details)
		delete(rest, "actor")
		delete(rest, "request_id")
		if i < len(s.details) && !maps.Equal(rest, s.details[i]) {
			t.Errorf("Rows[%d].Details = %v, want %v", i, rest, s.details[i])
		}
	}
	if !slices.Equal(actions, s.actions) {
		t.Errorf("actions of Rows = %v, want %v", actions, s.actions)
	}
}

func runAll(t *testing.T, steps []step) {
	for _, s := range steps {
		t.Run(s.name, s.run)
	}
}

func newUpdate(t *testing.T, patch user.Patch, etag string) *user.Update {
	t.Helper()
	op, err := user.NewUpdate(7, patch, etag)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func TestCreate(t *testing.T) {
	op, err := user.NewCreate(user.User{
		Username: "Ann", Email: "Ann@example.org", Tags: []string{"a", "b"}, Metadata: map[string]string{"k": "v"},
		Status: user.StatusSuspended, // ignored
	})
	if err != nil {
		t.Fatal(err)
	}
	op.ID = 7
	if op.Keys != (user.Keys{Username: "ann", Email: "ann@example.org"}) || op.Target() != 0 {
		t.Errorf("NewCreate() keys = %+v, target %d", op.Keys, op.Target())
	}
	step{
		op: op, store: true, version: 1, actions: []string{"user.created"},
		details: []map[string]string{{
			"new.username": "Ann", "new.email": "Ann@example.org", "new.status": "USER_STATUS_ACTIVE",
			"new.tags": `["a","b"]`, "new.metadata.k": "v",
		}},
		check: func(u *user.User) bool {
			return u.ID == 7 && u.Status == user.StatusActive && u.StatusTime.Equal(now) && u.StatusPosition == 70 &&
				u.CreatedAt.Equal(now) && u.UpdatedAt.Equal(now) && !u.Deleted()
		},
	}.run(t)
}

func TestNewCreateReportsAllViolations(t *testing.T) {
	_, err := user.NewCreate(user.User{Username: "a\x00b", Email: "unknown user"})
	e, ok := user.AsError(err)
	if !ok || len(e.Violations) != 2 || e.Violations[0].Field != "username" || e.Violations[1].Field != "email" {
		t.Errorf("NewCreate() error = %v, want two violations", err)
	}
}

func TestUpdate(t *testing.T) {
	etag := ann().Etag()
	many := make(map[string]*string)
	for i := range user.MaxMetadata {
		many[strings.Repeat("k", i+1)] = new("v")
	}
	runAll(t, []step{
		{
			name: "empty patch", cur: ann(), op: newUpdate(t, user.Patch{}, ""), version: 3,
		},
		{
			name: "unchanged values", cur: ann(), version: 3,
			op: newUpdate(t, user.NewPatch(user.User{Username: "Ann", Tags: []string{"vip"}, Metadata: map[string]string{"team": "red"}}), ""),
		},
		{
			name: "username and e-mail", cur: ann(), store: true, version: 4,
			op:      newUpdate(t, user.NewPatch(user.User{Username: "Anna", Email: "anna@example.org"}), etag),
			actions: []string{"user.updated"},
			details: []map[string]string{{
				"old.username": "Ann", "new.username": "Anna", "old.email": "ann@example.org", "new.email": "anna@example.org",
			}},
			check: func(u *user.User) bool { return u.UpdatedAt.Equal(now) && u.StatusTime.Equal(start) },
		},
		{
			name: "only the case of the username", cur: ann(), store: true, version: 4,
			op: newUpdate(t, user.NewPatch(user.User{Username: "ANN"}), ""), actions: []string{"user.updated"},
		},
		{
			name: "status", cur: ann(), store: true, version: 4,
			op: newUpdate(t, user.NewPatch(user.User{Status: user.StatusSuspended}), ""), actions: []string{"user.status_changed"},
			details: []map[string]string{{"old.status": "USER_STATUS_ACTIVE", "new.status": "USER_STATUS_SUSPENDED"}},
			check: func(u *user.User) bool {
				return u.Status == user.StatusSuspended && u.StatusPosition == 70 && u.StatusTime.Equal(now)
			},
		},
		{
			name: "status and tags are two rows and one version", cur: ann(), store: true, version: 4,
			op:      newUpdate(t, user.Patch{Values: user.User{Status: user.StatusInactive, Tags: []string{}}, Set: user.NewFieldSet("status", "tags")}, ""),
			actions: []string{"user.updated", "user.status_changed"},
			details: []map[string]string{
				{"old.tags": `["vip"]`},
				{"old.status": "USER_STATUS_ACTIVE", "new.status": "USER_STATUS_INACTIVE"},
			},
			check: func(u *user.User) bool { return len(u.Tags) == 0 && u.StatusPosition == 71 },
		},
		{
			name: "same status updates only its time", cur: ann(), store: true, version: 3,
			op: newUpdate(t, user.NewPatch(user.User{Status: user.StatusActive}), ""),
			check: func(u *user.User) bool {
				return u.StatusTime.Equal(now) && u.UpdatedAt.Equal(start) && u.StatusPosition == 5
			},
		},
		{
			name: "later status time is kept", version: 4, store: true,
			cur:     ann(func(u *user.User) { u.StatusTime = now.Add(time.Second) }),
			op:      newUpdate(t, user.NewPatch(user.User{Status: user.StatusInactive}), ""),
			actions: []string{"user.status_changed"},
			check:   func(u *user.User) bool { return u.StatusTime.Equal(now.Add(time.Second)) },
		},
		{
			name: "metadata as a whole", cur: ann(), store: true, version: 4,
			op:      newUpdate(t, user.NewPatch(user.User{Metadata: map[string]string{"desk": "4"}}), ""),
			actions: []string{"user.updated"},
			details: []map[string]string{{"old.metadata.team": "red", "new.metadata.desk": "4"}},
		},
		{
			name: "another value of a metadata key", cur: ann(func(u *user.User) { u.Metadata["desk"] = "4" }), store: true, version: 4,
			op:      newUpdate(t, user.NewPatch(user.User{Metadata: map[string]string{"team": "blue", "desk": "4"}}), ""),
			actions: []string{"user.updated"},
			details: []map[string]string{{"old.metadata.team": "red", "new.metadata.team": "blue"}},
		},
		{
			name: "maximum metadata", cur: ann(func(u *user.User) { u.Metadata = nil }), store: true, version: 4,
			op: newUpdate(t, user.Patch{Entries: many}, ""), actions: []string{"user.updated"},
			check: func(u *user.User) bool { return len(u.Metadata) == user.MaxMetadata },
		},
		{
			name: "names are sanitized", cur: ann(), store: true, version: 4,
			op:      newUpdate(t, user.NewPatch(user.User{Username: " An\u200bna\n", Email: "\ufeffanna@example.org "}), ""),
			actions: []string{"user.updated"},
			check:   func(u *user.User) bool { return u.Username == "Anna" && u.Email == "anna@example.org" },
		},
		{
			name: "metadata entries", cur: ann(), store: true, version: 4,
			op:      newUpdate(t, user.Patch{Entries: map[string]*string{"team": nil, "desk": new("4"), "none": nil}}, ""),
			actions: []string{"user.updated"},
			details: []map[string]string{{"old.metadata.team": "red", "new.metadata.desk": "4"}},
			check:   func(u *user.User) bool { return maps.Equal(u.Metadata, map[string]string{"desk": "4"}) },
		},
		{
			name: "entry without previous metadata", store: true, version: 4,
			cur:     ann(func(u *user.User) { u.Metadata = nil }),
			op:      newUpdate(t, user.Patch{Entries: map[string]*string{"desk": new("4")}}, ""),
			actions: []string{"user.updated"},
		},
		{
			name: "too much metadata", cur: ann(), reason: user.InvalidField,
			op: newUpdate(t, user.Patch{Entries: many}, ""),
		},
		{
			name: "too much metadata and another etag", cur: ann(), reason: user.EtagMismatch,
			op: newUpdate(t, user.Patch{Entries: many}, "1-x"),
		},
		{
			name: "another etag", cur: ann(), reason: user.EtagMismatch,
			op: newUpdate(t, user.NewPatch(user.User{Username: "Anna"}), "2-abc"),
		},
		{
			name: "another etag and empty patch", cur: ann(), reason: user.EtagMismatch,
			op: newUpdate(t, user.Patch{}, "2-abc"),
		},
		{name: "unknown user", reason: user.UserNotFound, op: newUpdate(t, user.Patch{}, "")},
		{name: "a deleted user", cur: ann(deleted), reason: user.UserDeleted, op: newUpdate(t, user.Patch{}, "")},
	})
}

func TestNewUpdateReportsAllViolations(t *testing.T) {
	_, err := user.NewUpdate(7, user.Patch{Values: user.User{Username: "a", Email: "b", Status: user.StatusNone}, Set: user.NewFieldSet("username", "email", "status")}, "")
	e, ok := user.AsError(err)
	if !ok {
		t.Fatalf("NewUpdate() error = %v, want violations", err)
	}
	var fields []string
	for _, v := range e.Violations {
		fields = append(fields, v.Field)
	}
	if want := []string{"user.username", "user.email", "user.status"}; !slices.Equal(fields, want) {
		t.Errorf("NewUpdate() violations = %v, want %v", fields, want)
	}
}

func TestSetStatus(t *testing.T) {
	set := func(status user.Status, at time.Time) *user.SetStatus {
		return &user.SetStatus{ID: 7, Status: status, Time: at}
	}
	changed := []string{"user.status_changed"}
	runAll(t, []step{
		{
			name: "without a time", cur: ann(), op: set(user.StatusInactive, time.Time{}), store: true, version: 4, actions: changed,
			check: func(u *user.User) bool { return u.StatusTime.Equal(now) && u.StatusPosition == 70 },
		},
		{
			name: "without a time, current time is later", version: 4, store: true, actions: changed,
			cur:   ann(func(u *user.User) { u.StatusTime = now.Add(time.Minute) }),
			op:    set(user.StatusInactive, time.Time{}),
			check: func(u *user.User) bool { return u.StatusTime.Equal(now.Add(time.Minute)) },
		},
		{
			name: "older", cur: ann(), op: set(user.StatusInactive, start.Add(-time.Microsecond)), version: 3,
			check: func(u *user.User) bool { return u.Status == user.StatusActive },
		},
		{
			name: "equal", cur: ann(), op: set(user.StatusInactive, start), store: true, version: 4, actions: changed,
		},
		{
			name: "equal once truncated", cur: ann(), op: set(user.StatusInactive, start.Add(time.Nanosecond)),
			store: true, version: 4, actions: changed,
			check: func(u *user.User) bool { return u.StatusTime.Equal(start) },
		},
		{
			name: "the same status, newer", cur: ann(), op: set(user.StatusActive, start.Add(time.Second)), store: true, version: 3,
			check: func(u *user.User) bool { return u.StatusTime.Equal(start.Add(time.Second)) && u.StatusPosition == 5 },
		},
		{name: "the same status at the same time", cur: ann(), op: set(user.StatusActive, start), version: 3},
		{
			name: "a minute ahead", cur: ann(), op: set(user.StatusInactive, now.Add(time.Minute)), store: true, version: 4, actions: changed,
		},
		{
			name: "more than a minute ahead", cur: ann(), op: set(user.StatusInactive, now.Add(time.Minute+time.Microsecond)),
			reason: user.InvalidField,
		},
		{name: "unknown user", op: set(user.StatusInactive, time.Time{}), reason: user.UserNotFound},
		{name: "a deleted user", cur: ann(deleted), op: set(user.StatusInactive, time.Time{}), reason: user.UserDeleted},
	})
}

func TestDeleteUndeletePurge(t *testing.T) {
	del := func(etag string) *user.Delete { return &user.Delete{ID: 7, Etag: etag, Retention: time.Hour} }
	due := func(u *user.User) { u.DeletedAt, u.PurgeAt = start, now }
	purging := func(u *user.User) { u.DeletedAt, u.PurgeAt = start, time.UnixMicro(1).UTC() }
	runAll(t, []step{
		{
			name: "delete", cur: ann(), op: del(ann().Etag()), store: true, version: 4, actions: []string{"user.deleted"},
			details: []map[string]string{{
				"new.deleted_at": now.Format(time.RFC3339Nano), "new.purge_at": now.Add(time.Hour).Format(time.RFC3339Nano),
			}},
			check: func(u *user.User) bool {
				return u.DeletedAt.Equal(now) && u.PurgeAt.Equal(now.Add(time.Hour)) && u.StatusPosition == 70
			},
		},
		{name: "delete with another etag", cur: ann(), op: del("2-abc"), reason: user.EtagMismatch},
		{name: "delete twice", cur: ann(deleted), op: del(""), reason: user.UserDeleted},
		{name: "delete unknown user", op: del(""), reason: user.UserNotFound},
		{
			name: "undelete", cur: ann(deleted), op: &user.Undelete{ID: 7}, store: true, version: 4, actions: []string{"user.undeleted"},
			check: func(u *user.User) bool { return !u.Deleted() && u.PurgeAt.IsZero() && u.StatusPosition == 70 },
		},
		{name: "undelete with another etag", cur: ann(deleted), op: &user.Undelete{ID: 7, Etag: "2-abc"}, reason: user.EtagMismatch},
		{name: "undelete after the purge time", cur: ann(due), op: &user.Undelete{ID: 7}, reason: user.UserNotFound},
		{name: "undelete a live user", cur: ann(), op: &user.Undelete{ID: 7}, reason: user.UserNotDeleted},
		{name: "undelete unknown user", op: &user.Undelete{ID: 7}, reason: user.UserNotFound},
		{
			name: "start a purge now", cur: ann(deleted), op: &user.StartPurge{ID: 7, Etag: ann().Etag(), Now: true}, store: true, version: 3,
			check: func(u *user.User) bool { return u.Deleted() && u.PurgeAt.Before(now.AddDate(-50, 0, 0)) },
		},
		{
			name: "start a purge that is due", cur: ann(due), op: &user.StartPurge{ID: 7}, store: true, version: 3,
			check: func(u *user.User) bool { return u.PurgeAt.Before(now.AddDate(-50, 0, 0)) },
		},
		{name: "start a purge twice", cur: ann(purging), op: &user.StartPurge{ID: 7}, version: 3},
		{name: "start a purge before the purge time", cur: ann(deleted), op: &user.StartPurge{ID: 7}, reason: user.UserNotDeleted},
		{name: "start a purge with another etag", cur: ann(deleted), op: &user.StartPurge{ID: 7, Etag: "2-abc", Now: true}, reason: user.EtagMismatch},
		{name: "start the purge of a live user", cur: ann(), op: &user.StartPurge{ID: 7, Now: true}, reason: user.UserNotDeleted},
		{name: "start the purge of an unknown user", op: &user.StartPurge{ID: 7, Now: true}, reason: user.UserNotFound},
		{name: "undelete after the start of a purge", cur: ann(purging), op: &user.Undelete{ID: 7}, reason: user.UserNotFound},
		{
			name: "purge", cur: ann(due), op: &user.Purge{ID: 7}, store: true, actions: []string{"user.purged"},
			check: func(u *user.User) bool { return u == nil },
		},
		{name: "purge before the purge time", cur: ann(deleted), op: &user.Purge{ID: 7}, reason: user.UserNotDeleted},
		{name: "purge a live user", cur: ann(), op: &user.Purge{ID: 7}, reason: user.UserNotDeleted},
		{name: "purge unknown user", op: &user.Purge{ID: 7}, reason: user.UserNotFound},
	})
}

func TestRecord(t *testing.T) {
	op, err := user.NewRecord(7, "app.login", map[string]string{"ip": "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	runAll(t, []step{
		{
			name: "a live user", cur: ann(), op: op, version: 3, actions: []string{"app.login"},
			details: []map[string]string{{"ip": "192.0.2.1"}},
		},
		{name: "a deleted user", cur: ann(deleted), op: op, reason: user.UserDeleted},
		{name: "unknown user", op: op, reason: user.UserNotFound},
	})
	for name, record := range map[string]func() (*user.Record, error){
		"a reserved action": func() (*user.Record, error) { return user.NewRecord(7, "user.updated", nil) },
		"an actor":          func() (*user.Record, error) { return user.NewRecord(7, "a", map[string]string{"actor": "x"}) },
		"a request id":      func() (*user.Record, error) { return user.NewRecord(7, "a", map[string]string{"request_id": "x"}) },
	} {
		if _, err := record(); !user.HasReason(err, user.InvalidField) {
			t.Errorf("%s: NewRecord() error = %v", name, err)
		}
	}
}
