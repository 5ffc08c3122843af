package service_test

import (
	"encoding/json"
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// No response contains a google.protobuf.Any, which a JSON client cannot decode without a type
// registry. UserStatusUpdate.error, whose type is fixed, is sent without details.
func TestNoResponseHasAny(t *testing.T) {
	var found []string
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		seen := make(map[protoreflect.FullName]bool)
		var walk func(m protoreflect.MessageDescriptor)
		walk = func(m protoreflect.MessageDescriptor) {
			if seen[m.FullName()] {
				return
			}
			seen[m.FullName()] = true
			for j := range m.Fields().Len() {
				field := m.Fields().Get(j)
				switch {
				case field.Message() == nil, field.FullName() == "user.v1.UserStatusUpdate.error":
				case field.Message().FullName() == "google.protobuf.Any":
					found = append(found, string(field.FullName()))
				default:
					walk(field.Message())
				}
			}
		}
		walk(methods.Get(i).Output())
		if len(seen) == 0 {
			t.Errorf("%s: no message visited", methods.Get(i).Name())
		}
	}
	if len(found) > 0 {
		t.Errorf("fields of responses with google.protobuf.Any: %v, want none", found)
	}
}

// Item failures of status streams are typed, so a JSON client without a type registry can
// decode them.
func TestStatusFailures(t *testing.T) {
	r := newRig(t)
	id := r.create(t, "ann").GetUserId()
	s := r.sync(t)
	defer s.end()
	failures := map[string]*userv1.UserStatusUpdate{}
	s.send(&userv1.UserStatusUpdate{UserId: id, ClientSeq: 1, Status: 77})
	failures["bad status"] = s.receive()
	s.send(&userv1.UserStatusUpdate{UserId: 4711, ClientSeq: 2})
	failures["unknown user"] = s.receive()
	s.send(&userv1.UserStatusUpdate{UserId: id, ClientSeq: 3, ActivityId: 1000})
	failures["position ahead"] = s.receive()
	s.send(&userv1.UserStatusUpdate{UserId: id, ClientSeq: 4})
	s.receive()
	r.remove(t, id)
	failures["deleted while followed"] = s.receive()

	for name, want := range map[string]struct {
		reason   userv1.ErrorReason
		code     user.Code
		field    string
		metadata string
	}{
		"bad status":             {userv1.ErrorReason_INVALID_FIELD, user.InvalidArgument, "status", ""},
		"unknown user":           {userv1.ErrorReason_USER_NOT_FOUND, user.NotFound, "", "user_id"},
		"position ahead":         {userv1.ErrorReason_POSITION_OUT_OF_RANGE, user.OutOfRange, "", "last_position"},
		"deleted while followed": {userv1.ErrorReason_USER_DELETED, user.FailedPrecondition, "", "user_id"},
	} {
		update := failures[name]
		got := update.GetFailure()
		if got.GetReason() != want.reason || int32(got.GetCode()) != int32(want.code) || got.GetMessage() == "" || got.GetUserId() != update.GetUserId() {
			t.Errorf("%s: failure = %v, want %v with code %v", name, got, want.reason, want.code)
		}
		if e := update.GetError(); e.GetCode() != int32(want.code) || e.GetMessage() != got.GetMessage() || len(e.GetDetails()) != 0 {
			t.Errorf("%s: error = %v, want code and message of the failure, and no details", name, e)
		}
		named := slices.ContainsFunc(got.GetFieldViolations(), func(v *errdetails.BadRequest_FieldViolation) bool { return v.GetField() == want.field })
		if _, ok := got.GetMetadata()[want.metadata]; want.metadata != "" && !ok || want.field != "" && !named {
			t.Errorf("%s: failure = %v, want field %q and metadata %q", name, got, want.field, want.metadata)
		}
		encoded, err := protojson.MarshalOptions{Resolver: new(protoregistry.Types)}.Marshal(update)
		if err != nil || !json.Valid(encoded) {
			t.Errorf("%s: Marshal without types = %s, %v", name, encoded, err)
		}
	}
}
