package service_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/user"
)

func (r *rig) prune(t testing.TB, age time.Duration, limit int) {
	t.Helper()
	if _, err := r.store.Prune(t.Context(), age, limit); err != nil {
		t.Fatal(err)
	}
}

// outOfRange checks for a POSITION_OUT_OF_RANGE error with the bounds of the log.
func outOfRange(t testing.TB, err error, first, last string) {
	t.Helper()
	var failure *connect.Error
	if !errors.As(err, &failure) {
		t.Fatalf("error = %v, want an error of the service", err)
	}
	for _, detail := range failure.Details() {
		value, err := detail.Value()
		if info, ok := value.(*errdetails.ErrorInfo); err == nil && ok {
			if m := info.GetMetadata(); m["first_position"] != first || m["last_position"] != last || m["epoch"] == "" {
				t.Errorf("metadata = %v, want first position %s and last position %s", m, first, last)
			}
		}
	}
	if reason := reasonOf(t, err); reason != user.PositionOutOfRange {
		t.Errorf("reason = %s, want POSITION_OUT_OF_RANGE", reason)
	}
}

func TestStreamStartPointsOfPrunedLog(t *testing.T) {
	r := newRig(t)
	id := recorded(t, r, 6) // a second apart
	r.prune(t, 0, 3)        // rows 4, 5 and 6 are left
	epoch := r.feed.Head().Epoch
	at := func(seconds int) *timestamppb.Timestamp {
		return timestamppb.New(started.Add(time.Duration(seconds) * time.Second))
	}
	for name, c := range map[string]struct {
		req  *userv1.StreamUserActivitiesRequest
		want []int64 // nil: out of range
	}{
		"no start point":                 {&userv1.StreamUserActivitiesRequest{}, []int64{4, 5, 6}},
		"the edge":                       {&userv1.StreamUserActivitiesRequest{AfterActivityId: 3}, []int64{4, 5, 6}},
		"the edge with epoch":            {&userv1.StreamUserActivitiesRequest{AfterActivityId: 3, Epoch: epoch}, []int64{4, 5, 6}},
		"before the edge":                {&userv1.StreamUserActivitiesRequest{AfterActivityId: 2, Epoch: epoch}, nil},
		"before the edge, no epoch":      {&userv1.StreamUserActivitiesRequest{AfterActivityId: 1}, nil},
		"position 0 of an epoch":         {&userv1.StreamUserActivitiesRequest{Epoch: epoch}, nil},
		"since the earliest time":        {&userv1.StreamUserActivitiesRequest{Since: at(-1000)}, []int64{4, 5, 6}},
		"since the time of a pruned row": {&userv1.StreamUserActivitiesRequest{Since: at(1)}, []int64{4, 5, 6}},
		"since a retained row":           {&userv1.StreamUserActivitiesRequest{Since: at(4)}, []int64{5, 6}},
		"since, with epoch":              {&userv1.StreamUserActivitiesRequest{Since: at(4), Epoch: epoch}, []int64{5, 6}},
		"since, after the last row":      {&userv1.StreamUserActivitiesRequest{Since: at(100)}, []int64{}},
		"the head, with epoch":           {&userv1.StreamUserActivitiesRequest{FromHead: true, Epoch: epoch}, []int64{}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, of := range []int64{id, 0} {
				c.req.UserId, c.req.ReplayOnly = of, true
				rows, err := replay(t, r, c.req)
				if c.want == nil {
					outOfRange(t, err, "4", "6")
				} else if err != nil || !slices.Equal(positions(rows), c.want) {
					t.Errorf("user %d: positions %v, %v, want %v", of, positions(rows), err, c.want)
				}
			}
		})
	}
	r.prune(t, 0, 100)
	for name, req := range map[string]*userv1.StreamUserActivitiesRequest{
		"no start point": {}, "since": {Since: at(0)}, "after the last": {AfterActivityId: 6}, "the head": {FromHead: true},
	} {
		req.ReplayOnly, req.Progress = true, true
		if rows, err := replay(t, r, req); err != nil || !slices.Equal(positions(rows), []int64{6}) {
			t.Errorf("%s of an empty log: positions %v, %v, want progress at 6", name, positions(rows), err)
		}
	}
}

// Pages continue at the edge of the log in both directions, and a list from the oldest row fails where rows
// between two pages were pruned.
func TestListActivitiesOfPrunedLog(t *testing.T) {
	r := newRig(t)
	id := recorded(t, r, 9)
	page := func(req *userv1.ListUserActivitiesRequest) ([]int64, string, error) {
		req.UserId, req.PageSize = id, 2
		res, err := r.ListUserActivities(t.Context(), req)
		return positions(res.GetActivities()), res.GetNextPageToken(), err
	}
	const oldest = userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST
	_, newestToken, err := page(&userv1.ListUserActivitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, oldestToken, err := page(&userv1.ListUserActivitiesRequest{Order: oldest})
	if err != nil {
		t.Fatal(err)
	}
	r.prune(t, 0, 2)
	for range 2 {
		rows, _, err := page(&userv1.ListUserActivitiesRequest{Order: oldest, PageToken: oldestToken})
		if first, firstErr := r.store.First(t.Context()); firstErr != nil || first == 3 {
			if err != nil || !slices.Equal(rows, []int64{3, 4}) {
				t.Errorf("second page at the edge = %v, %v, want 3, 4", rows, err)
			}
		} else if e := wantReason(t, err, user.PositionOutOfRange); e.Metadata["first_position"] != "6" {
			t.Errorf("metadata = %v, want first position 6", e.Metadata)
		}
		r.prune(t, 0, 3)
	}
	r.prune(t, time.Hour, 100) // no row is that old
	for want, token := []int64{7, 6}, newestToken; ; want = nil {
		rows, next, err := page(&userv1.ListUserActivitiesRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if next == "" {
			break
		}
		if token = next; want != nil && !slices.Equal(rows, want) {
			t.Errorf("page = %v, want %v", rows, want)
		}
	}
	r.prune(t, 0, 100)
	for _, order := range []userv1.ActivityOrder{0, oldest} {
		if rows, next, err := page(&userv1.ListUserActivitiesRequest{Order: order}); err != nil || len(rows) > 0 || next != "" {
			t.Errorf("list of an empty log = %v, %q, %v, want an empty last page", rows, next, err)
		}
	}
}

func TestStatusStreamsOfPrunedLog(t *testing.T) {
	r := newRig(t)
	ann, ben := r.create(t, "ann").GetUserId(), r.create(t, "ben").GetUserId()
	r.setStatus(t, ann, inactive, nil)
	r.setStatus(t, ben, inactive, nil)
	r.prune(t, 0, 2) // rows 3 and 4 are left
	watch := func(req *userv1.WatchUserStatusRequest, want ...int64) {
		t.Helper()
		req.Progress = true
		stream, err := r.client(t).WatchUserStatus(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stream.Close() }()
		var got []int64
		for stream.Receive() && !stream.Msg().GetProgress() {
			got = append(got, stream.Msg().GetActivityId())
		}
		if want == nil {
			outOfRange(t, stream.Err(), "3", "4")
		} else if !slices.Equal(got, want) {
			t.Errorf("%v: positions %v, want %v", req, got, want)
		}
	}
	watch(&userv1.WatchUserStatusRequest{UserIds: []int64{ann, ben}}, 3, 4)
	watch(&userv1.WatchUserStatusRequest{UserIds: []int64{ann, ben}, AfterActivityId: 3}, 4)
	watch(&userv1.WatchUserStatusRequest{UserIds: []int64{ann, ben}, AfterActivityId: 2}, 3, 4)
	watch(&userv1.WatchUserStatusRequest{UserIds: []int64{ann, ben}, AfterActivityId: 1})
	watch(&userv1.WatchUserStatusRequest{All: true, AfterActivityId: 2}, 3, 4)
	watch(&userv1.WatchUserStatusRequest{All: true, AfterActivityId: 1})

	s := r.sync(t)
	s.send(&userv1.UserStatusUpdate{ActivityId: 1, ClientSeq: 1}) // all users
	if got := s.receive(); got.GetFailure().GetReason() != userv1.ErrorReason_POSITION_OUT_OF_RANGE {
		t.Errorf("response below the edge = %v, want POSITION_OUT_OF_RANGE", got)
	}
	s.send(&userv1.UserStatusUpdate{UserId: ann, ActivityId: 1, ClientSeq: 2})
	if got := s.receive(); got.GetFailure().GetReason() != userv1.ErrorReason_POSITION_OUT_OF_RANGE {
		t.Errorf("response for a user below the edge = %v, want POSITION_OUT_OF_RANGE", got)
	}
	s.send(&userv1.UserStatusUpdate{ActivityId: 2, ClientSeq: 3})
	for _, want := range []int64{4, 3, 4} { // the response, then the changes since
		if got := s.receive(); got.GetActivityId() != want || got.GetError() != nil {
			t.Errorf("update = %v, want position %d", got, want)
		}
	}
	s.end()
}

// A watch of users is unaffected by pruning, except where it resumes below the edge.
func TestWatchUsersOfPrunedLog(t *testing.T) {
	r := newRig(t)
	r.create(t, "ann")
	ben := r.create(t, "ben")
	r.create(t, "cora")
	r.prune(t, 0, 2)
	r.watch(t, &userv1.WatchUsersRequest{}).want("1 ann", "2 ben", "3 cora", "3 synced")
	r.watch(t, &userv1.WatchUsersRequest{AfterActivityId: 2}).want("3 cora", "3 synced")
	resumed := r.watch(t, &userv1.WatchUsersRequest{AfterActivityId: 1})
	if resumed.stream.Receive() {
		t.Fatalf("message = %v, want an error", resumed.stream.Msg())
	}
	outOfRange(t, resumed.stream.Err(), "3", "3")
	w := r.watch(t, &userv1.WatchUsersRequest{})
	w.want("1 ann", "2 ben", "3 cora", "3 synced")
	r.prune(t, 0, 100)
	if _, err := r.UpdateUser(t.Context(), &userv1.UpdateUserRequest{UserId: ben.GetUserId(), User: &userv1.User{Username: "benno"}}); err != nil {
		t.Fatal(err)
	}
	w.want("4 benno")
}

// A stream of a quiet user, with and without progress, continues although all rows that it has read were
// pruned. Progress is sent before a position can no longer be resumed.
func TestQuietStreamsSurvivePruning(t *testing.T) {
	r := newRig(t, func(o *service.Options) { o.Heartbeat = 10 * time.Millisecond })
	quiet, busy := r.create(t, "ann").GetUserId(), r.create(t, "ben").GetUserId()
	client := r.client(t)
	open := func(progress bool) *connect.ServerStreamForClient[userv1.UserActivity] {
		t.Helper()
		stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: quiet, Progress: progress})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stream.Close() })
		if !stream.Receive() || stream.Msg().GetActivityId() != 1 {
			t.Fatalf("first row = %v, %v, want 1", stream.Msg(), stream.Err())
		}
		return stream
	}
	streams := []*connect.ServerStreamForClient[userv1.UserActivity]{open(false), open(true)}
	for range 50 {
		r.record(t, busy)
	}
	r.clock.move(time.Hour)
	for streams[1].Receive() && streams[1].Msg().GetActivityId() < 52 { // progress
	}
	r.prune(t, time.Hour, 100)
	r.record(t, quiet)
	for i, stream := range streams {
		for stream.Receive() && stream.Msg().GetAction() == "" {
		}
		if got := stream.Msg(); stream.Err() != nil || got.GetActivityId() != 53 {
			t.Errorf("stream %d: %v, %v, want row 53", i, got, stream.Err())
		}
	}
}

func (r *rig) record(t testing.TB, id int64) {
	t.Helper()
	if _, err := r.RecordUserActivity(t.Context(), &userv1.RecordUserActivityRequest{UserId: id, Action: "app.seen"}); err != nil {
		t.Fatal(err)
	}
}
