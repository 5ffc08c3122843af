package service

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/google/go-cmp/cmp"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// An activityMessage has the fields, and an encoding, of the message of its row, whatever the row before was.
func TestActivityMessage(t *testing.T) {
	m := newActivityMessage()
	rapid.Check(t, func(r *rapid.T) {
		row := user.Activity{
			Position: rapid.Int64Min(0).Draw(r, "position"), UserID: rapid.Int64Min(0).Draw(r, "user"),
			Action: rapid.String().Draw(r, "action"), Details: rapid.MapOf(rapid.String(), rapid.String()).Draw(r, "details"),
		}
		if micros := rapid.Int64Range(-1<<55, 1<<55).Draw(r, "time"); micros != 0 {
			row.Time = time.UnixMicro(micros).UTC()
		}
		want := activityToProto(&row)
		m.set(&row)
		if diff := cmp.Diff(want, m.UserActivity, protocmp.Transform()); diff != "" {
			r.Fatalf("message differs (-want +got):\n%s", diff)
		}
		got := new(userv1.UserActivity)
		if err := proto.Unmarshal(m.AppendProto(nil), got); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			r.Fatalf("decoded message differs (-want +got):\n%s", diff)
		}
	})
}

// A field added to UserActivity is also added to activityMessage.
func TestActivityMessageHasEachField(t *testing.T) {
	if got, want := new(userv1.UserActivity).ProtoReflect().Descriptor().Fields().Len(), 5; got != want {
		t.Errorf("UserActivity has %d fields, want %d: add the others to activityMessage", got, want)
	}
}
