package user_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

func TestResolve(t *testing.T) {
	op, err := user.NewCreate(user.User{Username: "Ann", Email: "ann@example.org", Metadata: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	bob := ann(func(u *user.User) { u.ID = 8 })
	for _, test := range []struct {
		name            string
		policy          user.Conflict
		byName, byEmail *user.User
		skip            *user.User
		reason          user.Reason
		holderDeleted   string
	}{
		{name: "fail by name", byName: ann(), byEmail: bob, reason: user.UsernameTaken, holderDeleted: "false"},
		{name: "fail by e-mail", byEmail: bob, reason: user.EmailTaken, holderDeleted: "false"},
		{name: "fail by a deleted user", byName: ann(deleted), reason: user.UsernameTaken, holderDeleted: "true"},
		{name: "skip", policy: user.ConflictSkip, byEmail: bob, skip: bob},
		{name: "update", policy: user.ConflictUpdate, byName: bob},
		{name: "update the holder of both", policy: user.ConflictUpdate, byName: bob, byEmail: bob},
		{name: "update two holders", policy: user.ConflictUpdate, byName: ann(), byEmail: bob, reason: user.UsernameTaken, holderDeleted: "false"},
		{name: "update a deleted user", policy: user.ConflictUpdate, byEmail: ann(deleted), reason: user.EmailTaken, holderDeleted: "true"},
	} {
		t.Run(test.name, func(t *testing.T) {
			skip, instead, err := op.Resolve(test.policy, test.byName, test.byEmail)
			if test.reason != "" {
				e, ok := user.AsError(err)
				if !ok || e.Reason != test.reason || e.Metadata["holder_deleted"] != test.holderDeleted {
					t.Errorf("Resolve() error = %v, want reason %s, holder_deleted=%s", err, test.reason, test.holderDeleted)
				}
				return
			}
			if err != nil || skip != test.skip || (instead == nil) != (skip != nil) {
				t.Fatalf("Resolve() = %v, %v, %v, want skip %v", skip, instead, err, test.skip)
			}
			if update, ok := instead.(*user.Update); ok {
				if update.ID != 8 || update.Keys != op.Keys || update.Patch.Set != user.NewFieldSet("username", "email", "metadata") {
					t.Errorf("Resolve() op = %+v, want an update of user 8 without tags", update)
				}
			}
		})
	}
}

func TestRedactDetails(t *testing.T) {
	got := user.RedactDetails(map[string]string{
		"old.status": "USER_STATUS_ACTIVE", "new.purge_at": "2026-01-01T00:00:00Z",
		"old.username": "Ann", "new.email": "ann@example.org", "new.tags": `["vip"]`,
		"new.metadata.phone": "+49", "actor": "ann", "ip": "192.0.2.1",
	})
	want := map[string]string{
		"old.status": "USER_STATUS_ACTIVE", "new.purge_at": "2026-01-01T00:00:00Z",
		"old.username": user.RedactedMark, "new.email": user.RedactedMark, "new.tags": user.RedactedMark,
	}
	if !maps.Equal(got, want) {
		t.Errorf("RedactDetails() = %v, want %v", got, want)
	}
}

// An import that updates the existing user keeps tags and metadata that the item does not set.
func TestConflictUpdateKeepsUnsetFields(t *testing.T) {
	holder := func() *user.User {
		return ann(func(u *user.User) { u.Tags, u.Metadata = []string{"vip"}, map[string]string{"team": "red"} })
	}
	for _, test := range []struct {
		name         string
		tags         []string
		metadata     map[string]string
		wantTags     []string
		wantMetadata map[string]string
	}{
		{"neither", nil, nil, []string{"vip"}, map[string]string{"team": "red"}},
		{"empty ones", []string{}, map[string]string{}, []string{"vip"}, map[string]string{"team": "red"}},
		{"tags", []string{"new"}, nil, []string{"new"}, map[string]string{"team": "red"}},
		{"metadata", nil, map[string]string{"desk": "4"}, []string{"vip"}, map[string]string{"desk": "4"}},
		{"both", []string{"new"}, map[string]string{"desk": "4"}, []string{"new"}, map[string]string{"desk": "4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			op, err := user.NewCreate(user.User{
				Username: "ANN", Email: "ann@example.net", Tags: test.tags, Metadata: test.metadata, Status: user.StatusSuspended,
			})
			if err != nil {
				t.Fatal(err)
			}
			_, instead, resolveErr := op.Resolve(user.ConflictUpdate, holder(), nil)
			if resolveErr != nil {
				t.Fatal(resolveErr)
			}
			d, decideErr := instead.Decide(holder(), user.CommitStamp{LogTime: now, NextPosition: 70}, user.Author{})
			if decideErr != nil {
				t.Fatal(decideErr)
			}
			u := d.User
			if u.Status != user.StatusActive {
				t.Errorf("Decide() = status %v, want that of the user, because creates have none", u.Status)
			}
			if u.Username != "ANN" || u.Email != "ann@example.net" {
				t.Errorf("Decide() = %q, %q, want the names of the import", u.Username, u.Email)
			}
			if !slices.Equal(u.Tags, test.wantTags) || !maps.Equal(u.Metadata, test.wantMetadata) {
				t.Errorf("Decide() = tags %v, metadata %v, want %v, %v", u.Tags, u.Metadata, test.wantTags, test.wantMetadata)
			}
		})
	}
}
