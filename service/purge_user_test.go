package service_test

import (
	"fmt"
	"strings"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

func TestPurgeUser(t *testing.T) {
	r := newRig(t)
	u := r.create(t, "Ann")
	id := u.GetUserId()
	for range 1200 { // several steps of redaction
		if _, err := r.RecordUserActivity(t.Context(), &userv1.RecordUserActivityRequest{
			UserId: id, Action: "app.login", Details: map[string]string{"note": "secret"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.PurgeUser(t.Context(), &userv1.PurgeUserRequest{UserId: id})
	wantReason(t, err, user.UserNotDeleted)
	deleted, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.PurgeUser(t.Context(), &userv1.PurgeUserRequest{UserId: id, Etag: u.GetEtag()})
	wantReason(t, err, user.EtagMismatch)
	req := &userv1.PurgeUserRequest{UserId: id, Etag: deleted.GetUser().GetEtag(), RequestId: someID}
	alice := as(t.Context(), "alice")
	first, err := r.PurgeUser(alice, req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.PurgeUser(alice, req)
	if head := r.feed.Head().Position; err != nil || again.GetActivityId() != first.GetActivityId() || first.GetActivityId() != head {
		t.Errorf("repeated PurgeUser() = %v, %v, want %v at position %d", again, err, first, head)
	}
	_, err = r.PurgeUser(as(t.Context(), "bob"), req)
	wantReason(t, err, user.UserNotFound)

	page, err := r.store.Log(t.Context(), user.LogQuery{UserID: id, MaxRows: 2000})
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range page.Rows {
		if text := fmt.Sprint(row.Details); strings.Contains(text, "secret") || strings.Contains(text, "Ann") {
			t.Fatalf("row %d has details %s, want them redacted", i, text)
		}
	}
	last := page.Rows[len(page.Rows)-1]
	if last.Action != user.ActionPurged || last.Position != first.GetActivityId() || last.Details[user.DetailActor] != "alice" {
		t.Errorf("last row = %+v, want the purge by alice at %d", last, first.GetActivityId())
	}
	if again := r.create(t, "ann"); again.GetUserId() == id {
		t.Errorf("the new user has the id %d of the purged one", id)
	}
}
