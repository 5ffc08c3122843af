package service_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/user"
)

// reasonOf returns the ErrorInfo reason of a client error.
func reasonOf(t testing.TB, err error) user.Reason {
	t.Helper()
	var failure *connect.Error
	if !errors.As(err, &failure) {
		t.Fatalf("error = %v, want an error of the service", err)
	}
	for _, detail := range failure.Details() {
		if value, err := detail.Value(); err == nil {
			if info, ok := value.(*errdetails.ErrorInfo); ok {
				return user.Reason(info.GetReason())
			}
		}
	}
	t.Fatalf("error = %v, want an ErrorInfo", err)
	return ""
}

// replay reads a stream to its end.
func replay(t testing.TB, r *rig, req *userv1.StreamUserActivitiesRequest) (rows []*userv1.UserActivity, err error) {
	t.Helper()
	stream, err := r.client(t).StreamUserActivities(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }() // it has ended
	for stream.Receive() {
		rows = append(rows, stream.Msg())
	}
	return rows, stream.Err()
}

func positions(rows []*userv1.UserActivity) []int64 {
	var out []int64
	for _, row := range rows {
		out = append(out, row.GetActivityId())
	}
	return out
}

// recorded creates a user with rows 1 (created) to n, one second apart.
func recorded(t testing.TB, r *rig, n int) int64 {
	t.Helper()
	id := r.create(t, "ann").GetUserId()
	for range n - 1 {
		r.clock.move(time.Second)
		if _, err := r.RecordUserActivity(t.Context(), &userv1.RecordUserActivityRequest{UserId: id, Action: "app.seen"}); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func TestStreamStartPoints(t *testing.T) {
	r := newRig(t)
	id := recorded(t, r, 5)
	at := func(seconds float64) *timestamppb.Timestamp {
		return timestamppb.New(started.Add(time.Duration(seconds * float64(time.Second))))
	}
	epoch := r.feed.Head().Epoch
	for name, c := range map[string]struct {
		req  *userv1.StreamUserActivitiesRequest
		want []int64
	}{
		"the first row":             {&userv1.StreamUserActivitiesRequest{}, []int64{1, 2, 3, 4, 5}},
		"after a position":          {&userv1.StreamUserActivitiesRequest{AfterActivityId: 3, Epoch: epoch}, []int64{4, 5}},
		"after the last":            {&userv1.StreamUserActivitiesRequest{AfterActivityId: 5}, nil},
		"since, included":           {&userv1.StreamUserActivitiesRequest{Since: at(2)}, []int64{3, 4, 5}},
		"since, between":            {&userv1.StreamUserActivitiesRequest{Since: at(2.5)}, []int64{4, 5}},
		"since, a nanosecond later": {&userv1.StreamUserActivitiesRequest{Since: timestamppb.New(started.Add(2*time.Second + 1))}, []int64{4, 5}},
		"since the earliest time":   {&userv1.StreamUserActivitiesRequest{Since: &timestamppb.Timestamp{Seconds: -62135596800}}, []int64{1, 2, 3, 4, 5}},
		"since the latest time":     {&userv1.StreamUserActivitiesRequest{Since: &timestamppb.Timestamp{Seconds: 253402300799}}, nil},
		"the head":                  {&userv1.StreamUserActivitiesRequest{FromHead: true}, nil},
		"with one action":           {&userv1.StreamUserActivitiesRequest{Actions: []string{"user.created"}}, []int64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, follows := range []int64{id, 0} {
				c.req.UserId, c.req.ReplayOnly = follows, true
				rows, err := replay(t, r, c.req)
				if err != nil || !slices.Equal(positions(rows), c.want) {
					t.Errorf("user %d: positions %v, %v, want %v", follows, positions(rows), err, c.want)
				}
			}
		})
	}
}

func TestStreamRejectsInvalidStartPoints(t *testing.T) {
	r := newRig(t)
	id := recorded(t, r, 2)
	for name, c := range map[string]struct {
		req    *userv1.StreamUserActivitiesRequest
		reason user.Reason
	}{
		"two starts":            {&userv1.StreamUserActivitiesRequest{UserId: id, AfterActivityId: 1, FromHead: true}, user.InvalidField},
		"ahead of the log":      {&userv1.StreamUserActivitiesRequest{UserId: id, AfterActivityId: 3}, user.PositionOutOfRange},
		"another epoch":         {&userv1.StreamUserActivitiesRequest{UserId: id, AfterActivityId: 1, Epoch: "other"}, user.PositionOutOfRange},
		"an unknown user":       {&userv1.StreamUserActivitiesRequest{UserId: 4711}, user.UserNotFound},
		"a time out of range":   {&userv1.StreamUserActivitiesRequest{UserId: id, Since: &timestamppb.Timestamp{Seconds: 1 << 60}}, user.InvalidField},
		"nanoseconds too large": {&userv1.StreamUserActivitiesRequest{UserId: id, Since: &timestamppb.Timestamp{Nanos: 1 << 30}}, user.InvalidField},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := replay(t, r, c.req)
			if len(rows) != 0 || reasonOf(t, err) != c.reason {
				t.Errorf("stream = %d rows, %v, want %s", len(rows), err, c.reason)
			}
		})
	}
}

func TestStreamContinuesLiveAndEndsWithUser(t *testing.T) {
	r := newRig(t)
	id := recorded(t, r, 2)
	stream, err := r.client(t).StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{
		UserId: id, Progress: true, Actions: []string{"app.seen", "app.left"},
	})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *userv1.UserActivity {
		t.Helper()
		if !stream.Receive() {
			t.Fatalf("the stream ended: %v", stream.Err())
		}
		return stream.Msg()
	}
	if row := next(); row.GetActivityId() != 2 || row.GetAction() != "app.seen" {
		t.Fatalf("row = %v", row)
	}
	if row := next(); row.GetActivityId() != 2 || row.GetAction() != "" || row.GetTimestamp() != nil {
		t.Fatalf("row = %v, want the progress row at the end of the replay", row)
	}
	if _, err := r.RecordUserActivity(t.Context(), &userv1.RecordUserActivityRequest{UserId: id, Action: "app.left"}); err != nil {
		t.Fatal(err)
	}
	if row := next(); row.GetActivityId() != 3 || row.GetAction() != "app.left" {
		t.Fatalf("row = %v", row)
	}
	if _, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id}); err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
		if stream.Msg().GetAction() != "" {
			t.Errorf("row = %v after the deletion, want none", stream.Msg())
		}
	}
	if err := stream.Err(); err != nil {
		t.Errorf("stream error = %v after the deletion, want OK", err)
	}
}

func TestIdleStreamSendsProgress(t *testing.T) {
	r := newRig(t, func(o *service.Options) { o.Heartbeat = time.Millisecond })
	id := recorded(t, r, 1)
	other := r.create(t, "other").GetUserId()
	stream, err := r.client(t).StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: id, FromHead: true, Progress: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()    // how it ends does not matter here
	for want := int64(2); want < 5; want++ { // rows of others move the progress too
		for stream.Receive() && stream.Msg().GetActivityId() < want {
			if stream.Msg().GetAction() != "" {
				t.Fatalf("response = %v", stream.Msg())
			}
		}
		if _, err := r.RecordUserActivity(t.Context(), &userv1.RecordUserActivityRequest{UserId: other, Action: "app.seen"}); err != nil {
			t.Fatal(err)
		}
	}
}

// With progress requested, a status stream sends its position when it has caught up and while
// idle, after all changes up to it.
func TestStatusStreamsSendProgress(t *testing.T) {
	r := newRig(t, func(o *service.Options) { o.Heartbeat = time.Millisecond })
	id, other := r.create(t, "ann").GetUserId(), r.create(t, "bob").GetUserId()
	epoch := r.feed.Head().Epoch
	watch := func(req *userv1.WatchUserStatusRequest) func() *userv1.UserStatusUpdate {
		stream, err := r.client(t).WatchUserStatus(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stream.Close() }) // how it ends does not matter here
		return func() *userv1.UserStatusUpdate {
			if !stream.Receive() {
				t.Fatal(stream.Err())
			}
			return stream.Msg()
		}
	}
	s := r.sync(t)
	defer s.end()
	s.send(&userv1.UserStatusUpdate{UserId: id, Progress: true, ClientSeq: 7})
	streams := map[string]func() *userv1.UserStatusUpdate{
		"one user":           watch(&userv1.WatchUserStatusRequest{UserIds: []int64{id}, Progress: true}),
		"everybody":          watch(&userv1.WatchUserStatusRequest{All: true, Progress: true}),
		"everybody, resumed": watch(&userv1.WatchUserStatusRequest{All: true, AfterActivityId: 1, Progress: true}),
		"SyncUserStatus":     s.receive,
	}
	for _, set := range []int64{id, other, id} {
		changed := r.setStatus(t, set, suspended, nil).GetActivityId()
		if set == other { // whom not all follow
			changed = r.feed.Head().Position
		}
		for name, next := range streams {
			last := int64(0)
			for reached := false; !reached; {
				switch got := next(); {
				case !got.GetProgress():
					last = got.GetActivityId()
				case got.GetUserId() != 0 || got.GetStatus() != none || got.GetEpoch() != epoch || got.GetClientSeq() != 0 || got.GetActivityId() < last:
					t.Fatalf("%s: received %v after position %d", name, got, last)
				default:
					reached = got.GetActivityId() >= changed
				}
			}
		}
	}
}

func TestStatusStreamsSendNoProgressByDefault(t *testing.T) {
	r := newRig(t, func(o *service.Options) { o.Heartbeat = time.Millisecond })
	id := r.create(t, "ann").GetUserId()
	s := r.sync(t)
	defer s.end()
	s.send(&userv1.UserStatusUpdate{UserId: id})
	s.receive()
	for range 20 {
		changed := r.setStatus(t, id, suspended, nil)
		r.setStatus(t, id, active, nil)
		for got := s.receive(); got.GetActivityId() <= changed.GetActivityId(); got = s.receive() {
			if got.GetProgress() {
				t.Fatalf("received %v, want no progress", got)
			}
		}
	}
}

func TestDrainEndsServerStreams(t *testing.T) {
	r := newRig(t)
	id := recorded(t, r, 1)
	client := r.client(t)
	activities, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: id})
	if err != nil || !activities.Receive() {
		t.Fatal(err, activities.Err())
	}
	statuses, err := client.WatchUserStatus(t.Context(), &userv1.WatchUserStatusRequest{UserIds: []int64{id}})
	if err != nil || !statuses.Receive() {
		t.Fatal(err, statuses.Err())
	}
	r.feed.Drain()
	if activities.Receive() || reasonOf(t, activities.Err()) != user.ServerDraining {
		t.Errorf("error = %v", activities.Err())
	}
	if statuses.Receive() || reasonOf(t, statuses.Err()) != user.ServerDraining {
		t.Errorf("error = %v", statuses.Err())
	}
}

func TestListUserActivitiesPagesBothWays(t *testing.T) {
	r := newRig(t)
	id := recorded(t, r, 7)
	for _, order := range []userv1.ActivityOrder{1, 2} {
		var got []int64
		req := &userv1.ListUserActivitiesRequest{UserId: id, PageSize: 3, Order: order}
		for pages := 0; ; pages++ {
			res, err := r.ListUserActivities(t.Context(), req)
			if err != nil || pages > 3 {
				t.Fatal(pages, err)
			}
			got = append(got, positions(res.GetActivities())...)
			if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		want := []int64{1, 2, 3, 4, 5, 6, 7}
		if order == userv1.ActivityOrder_ACTIVITY_ORDER_NEWEST_FIRST {
			slices.Reverse(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("order %v: positions = %v, want %v", order, got, want)
		}
	}
	page, err := r.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{UserId: id, PageSize: 3})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{PageToken: page.GetNextPageToken()})
	wantInvalid(t, err, "page_token")
	_, err = r.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{UserId: 4711})
	wantReason(t, err, user.UserNotFound)
}

func TestListUserActivitiesFitsMessageLimit(t *testing.T) {
	const limit = 16 << 10
	r := newRig(t, func(o *service.Options) { o.MaxMessageBytes = limit })
	id := r.create(t, "ann").GetUserId()
	for range 20 {
		if _, err := r.RecordUserActivity(t.Context(), &userv1.RecordUserActivityRequest{
			UserId: id, Action: "app.seen", Details: map[string]string{"a": strings.Repeat("x", 1000), "b": strings.Repeat("y", 1000)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	var got []int64
	req := &userv1.ListUserActivitiesRequest{UserId: id, PageSize: 1000, Order: userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST}
	for {
		res, err := r.ListUserActivities(t.Context(), req)
		if err != nil || len(res.GetActivities()) == 0 {
			t.Fatal(res, err)
		}
		got = append(got, positions(res.GetActivities())...)
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if len(got) != 21 || !slices.IsSorted(got) {
		t.Errorf("response = %v", got)
	}
}

func TestRecordUserActivity(t *testing.T) {
	r := newRig(t)
	id := r.create(t, "ann").GetUserId()
	ctx := as(t.Context(), "shop")
	req := &userv1.RecordUserActivityRequest{
		UserId: id, Action: "shop.bought", Details: map[string]string{"what": "a book"},
		RequestId: "0b9c2e4e-6d43-4a4e-9b6e-0f8a6f0f3a11",
	}
	first, err := r.RecordUserActivity(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	row := first.GetActivity()
	if row.GetActivityId() != 2 || row.GetDetails()["actor"] != "shop" || row.GetDetails()["what"] != "a book" ||
		row.GetDetails()["request_id"] != req.GetRequestId() {
		t.Errorf("row = %v", row)
	}
	again, err := r.RecordUserActivity(ctx, req)
	if err != nil || again.GetActivity().GetActivityId() != 2 {
		t.Errorf("repeated request = %v, %v, want the first result", again, err)
	}
	_, err = r.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{
		UserId: id, Action: "user.created", Details: map[string]string{"actor": "me"},
	})
	wantInvalid(t, err, "action", `details["actor"]`)
	if _, err := r.DeleteUser(context.Background(), &userv1.DeleteUserRequest{UserId: id}); err != nil {
		t.Fatal(err)
	}
	_, err = r.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{UserId: id, Action: "shop.left"})
	wantReason(t, err, user.UserDeleted)
}
