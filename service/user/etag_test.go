package user_test

import (
	"slices"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

func TestEtag(t *testing.T) {
	u := ann()
	same := ann(func(u *user.User) { u.StatusTime = now })
	if u.Etag() != same.Etag() {
		t.Error("Etag() depends on the status time, want it independent")
	}
	seen := map[string]bool{u.Etag(): true}
	for _, other := range []*user.User{
		ann(func(u *user.User) { u.Version++ }),
		ann(func(u *user.User) { u.UpdatedAt = u.UpdatedAt.Add(time.Microsecond) }),
	} {
		if seen[other.Etag()] {
			t.Errorf("Etag() = %s for two versions", other.Etag())
		}
		seen[other.Etag()] = true
	}
	if version, ok := user.EtagVersion(u.Etag()); !ok || version != 3 {
		t.Errorf("EtagVersion() = %d, %v", version, ok)
	}
	for _, text := range []string{"", "3", "-x", "0-x", "!-x", "-3-x", "zzzzzzzzzzzzzzzz-x"} {
		if version, ok := user.EtagVersion(text); ok {
			t.Errorf("EtagVersion(%q) = %d, want none", text, version)
		}
	}
}

func TestChangedSince(t *testing.T) {
	// One update of status and name (rows 10 and 11), a row of an application,
	// then a change of the status only, then metadata.
	newestFirst := []user.Activity{
		{Position: 20, Time: now, Action: "user.updated", Details: map[string]string{"old.metadata.a": "1", "new.metadata.b.c": "2", "actor": "x"}},
		{Position: 15, Time: now, Action: "user.status_changed", Details: map[string]string{"old.status": "a", "new.status": "b"}},
		{Position: 13, Time: start, Action: "app.noted", Details: map[string]string{"old.username": "not a field"}},
		{Position: 11, Time: start, Action: "user.status_changed", Details: map[string]string{"old.status": "b", "new.status": "a"}},
		{Position: 10, Time: start, Action: "user.updated", Details: map[string]string{"old.username": "A", "new.username": "B"}},
		{Position: 5, Time: start, Action: "user.created", Details: map[string]string{"new.email": "e"}},
	}
	for steps, want := range [][]string{
		nil,
		{"metadata"},
		{"metadata", "status"},
		{"metadata", "status", "username"},
		{"email", "metadata", "status", "username"},
		{"email", "metadata", "status", "username"},
	} {
		if got := user.ChangedSince(newestFirst, int64(steps)); !slices.Equal(got, want) {
			t.Errorf("ChangedSince(rows, %d) = %v, want %v", steps, got, want)
		}
	}
	if got := user.ChangedSince(nil, 3); got != nil {
		t.Errorf("ChangedSince(nil, 1) = %v, want none", got)
	}
}

// A status change and an update are one step only if they are adjacent and have the same time.
func TestChangedSinceSeparatesSteps(t *testing.T) {
	status := user.Activity{Position: 11, Time: now, Action: user.ActionStatusChanged, Details: map[string]string{"new.status": "b"}}
	for name, older := range map[string]user.Activity{
		"another position":    {Position: 9, Time: now, Action: user.ActionUpdated},
		"another time":        {Position: 10, Time: start, Action: user.ActionUpdated},
		"no update":           {Position: 10, Time: now, Action: user.ActionCreated},
		"no change of status": {Position: 10, Time: now, Action: user.ActionUpdated},
	} {
		t.Run(name, func(t *testing.T) {
			newer := status
			if name == "no change of status" {
				newer.Action = user.ActionUpdated
			}
			older.Details = map[string]string{"new.email": "e"}
			if got := user.ChangedSince([]user.Activity{newer, older}, 1); !slices.Equal(got, []string{"status"}) {
				t.Errorf("ChangedSince(…, 1) = %v, want only the newer row", got)
			}
		})
	}
}

func TestEtagMismatchHasCurrentEtag(t *testing.T) {
	_, err := newUpdate(t, user.Patch{}, "1-x").Decide(ann(), stamp, by)
	if e, ok := user.AsError(err); !ok || e.Metadata["etag"] != ann().Etag() || e.Metadata["user_id"] != "7" {
		t.Errorf("Decide() error = %+v, want etag %s", err, ann().Etag())
	}
}
