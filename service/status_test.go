package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

const (
	active    = userv1.UserStatus_USER_STATUS_ACTIVE
	inactive  = userv1.UserStatus_USER_STATUS_INACTIVE
	suspended = userv1.UserStatus_USER_STATUS_SUSPENDED
	none      = userv1.UserStatus_USER_STATUS_UNSPECIFIED
)

// syncing is an open SyncUserStatus stream.
type syncing struct {
	t      testing.TB
	stream interface {
		Send(*userv1.UserStatusUpdate) error
		Receive() (*userv1.UserStatusUpdate, error)
		CloseRequest() error
	}
}

func (r *rig) sync(t testing.TB) *syncing {
	t.Helper()
	stream, err := r.client(t).SyncUserStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &syncing{t: t, stream: stream}
}

func (s *syncing) send(update *userv1.UserStatusUpdate) {
	s.t.Helper()
	if err := s.stream.Send(update); err != nil {
		s.t.Fatal(err)
	}
}

func (s *syncing) receive() *userv1.UserStatusUpdate {
	s.t.Helper()
	update, err := s.stream.Receive()
	if err != nil {
		s.t.Fatal(err)
	}
	return update
}

// end half-closes the stream and returns the rest, which must end with OK.
func (s *syncing) end() (rest []*userv1.UserStatusUpdate) {
	s.t.Helper()
	if err := s.stream.CloseRequest(); err != nil {
		s.t.Fatal(err)
	}
	for {
		update, err := s.stream.Receive()
		if errors.Is(err, io.EOF) {
			return rest
		}
		if err != nil {
			s.t.Fatal(err)
		}
		rest = append(rest, update)
	}
}

func (r *rig) setStatus(t testing.TB, id int64, status userv1.UserStatus, at *timestamppb.Timestamp) *userv1.UserStatusUpdate {
	t.Helper()
	res, err := r.UpdateUserStatus(t.Context(), &userv1.UpdateUserStatusRequest{UserId: id, Status: status, Timestamp: at})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetStatusUpdate()
}

func (r *rig) remove(t testing.TB, id int64) {
	t.Helper()
	if _, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id}); err != nil {
		t.Fatal(err)
	}
}

func TestEachMessageGetsOneResponseInOrder(t *testing.T) {
	r := newRig(t)
	a, b := r.create(t, "ann").GetUserId(), r.create(t, "bob").GetUserId()
	s := r.sync(t)
	statuses := []userv1.UserStatus{active, inactive, suspended}
	const messages = 500
	for i := range messages {
		update := &userv1.UserStatusUpdate{UserId: []int64{a, b}[i%2], ClientSeq: int64(i + 1)}
		switch i % 10 {
		case 8: // a bad item among them
			update.Status = 77
		case 9: // a follow among them
		default:
			update.Status = statuses[i%3]
		}
		s.send(update)
	}
	last := map[int64]userv1.UserStatus{a: active, b: active}
	for i, response := range s.end() {
		id := []int64{a, b}[i%2]
		if response.GetClientSeq() != int64(i+1) || response.GetUserId() != id {
			t.Fatalf("response %d = %v", i, response)
		}
		switch i % 10 {
		case 8:
			if response.GetError().GetCode() != int32(user.InvalidArgument) || response.GetStatus() != none {
				t.Fatalf("response %d = %v", i, response)
			}
			continue
		case 9:
		default:
			last[id] = statuses[i%3]
		}
		if response.GetStatus() != last[id] || response.GetError() != nil || response.GetTimestamp() == nil {
			t.Fatalf("response %d = %v, want %v", i, response, last[id])
		}
		if i == messages-1 {
			return
		}
	}
	t.Fatal("responses are missing")
}

func TestStreamReceivesOnlyChangesOfOthers(t *testing.T) {
	r := newRig(t)
	a, b := r.create(t, "ann").GetUserId(), r.create(t, "bob").GetUserId()
	s := r.sync(t)
	s.send(&userv1.UserStatusUpdate{UserId: a, Status: inactive, ClientSeq: 1})
	own := s.receive()
	s.send(&userv1.UserStatusUpdate{UserId: b, ClientSeq: 2})
	if snapshot := s.receive(); snapshot.GetClientSeq() != 2 || snapshot.GetStatus() != active || snapshot.GetActivityId() != 2 {
		t.Fatalf("response = %v", snapshot)
	}
	r.setStatus(t, b, suspended, nil)
	if update := s.receive(); update.GetUserId() != b || update.GetStatus() != suspended || update.GetClientSeq() != 0 {
		t.Fatalf("update = %v", update)
	}
	changed := r.setStatus(t, a, active, nil)
	if update := s.receive(); update.GetActivityId() != changed.GetActivityId() || update.GetActivityId() <= own.GetActivityId() {
		t.Fatalf("update = %v", update)
	}
	if rest := s.end(); len(rest) != 0 {
		t.Errorf("response = %v", rest)
	}
}

func TestDeletedUserIsUnsubscribed(t *testing.T) {
	r := newRig(t)
	a := r.create(t, "ann").GetUserId()
	s := r.sync(t)
	s.send(&userv1.UserStatusUpdate{UserId: a})
	s.receive()
	if _, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: a}); err != nil {
		t.Fatal(err)
	}
	if update := s.receive(); update.GetError().GetCode() != int32(user.FailedPrecondition) || update.GetStatus() != none {
		t.Fatalf("update = %v", update)
	}
	if _, err := r.UndeleteUser(t.Context(), &userv1.UndeleteUserRequest{UserId: a}); err != nil {
		t.Fatal(err)
	}
	s.send(&userv1.UserStatusUpdate{UserId: 4711, ClientSeq: 5})
	if response := s.receive(); response.GetClientSeq() != 5 || response.GetError().GetCode() != int32(user.NotFound) {
		t.Fatalf("response = %v", response)
	}
	s.send(&userv1.UserStatusUpdate{UserId: a, Status: suspended, ClientSeq: 6})
	if response := s.receive(); response.GetClientSeq() != 6 || response.GetStatus() != suspended {
		t.Fatalf("response = %v", response)
	}
	s.end()
}

func TestLastWriterWinsByTimestamp(t *testing.T) {
	r := newRig(t)
	id := r.create(t, "ann").GetUserId()
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(started.Add(d)) }
	for _, c := range []struct {
		name   string
		status userv1.UserStatus
		time   *timestamppb.Timestamp
		want   userv1.UserStatus
		at     time.Duration
		rows   int64
	}{
		{"newer", inactive, at(time.Second), inactive, time.Second, 1},
		{"older changes nothing", suspended, at(0), inactive, time.Second, 0},
		{"equal applies", suspended, at(time.Second), suspended, time.Second, 1},
		{"same status moves the time, without a row", suspended, at(30 * time.Second), suspended, 30 * time.Second, 0},
		{"absent is the later of now and that time", active, nil, active, 30 * time.Second, 1},
		{"older than the moved time", inactive, at(29 * time.Second), active, 30 * time.Second, 0},
	} {
		before := r.feed.Head().Position
		got := r.setStatus(t, id, c.status, c.time)
		if got.GetStatus() != c.want || !got.GetTimestamp().AsTime().Equal(started.Add(c.at)) {
			t.Errorf("%s: status = %v", c.name, got)
		}
		if rows := r.feed.Head().Position - before; rows != c.rows {
			t.Errorf("%s: %d rows added, want %d", c.name, rows, c.rows)
		}
	}
	_, err := r.UpdateUserStatus(t.Context(), &userv1.UpdateUserStatusRequest{
		UserId: id, Status: active, Timestamp: at(time.Minute + time.Second),
	})
	wantInvalid(t, err, "timestamp")
}

func TestSubscribeToAllUsers(t *testing.T) {
	r := newRig(t)
	a := r.create(t, "ann").GetUserId()
	after := r.setStatus(t, a, inactive, nil).GetActivityId()
	b := r.create(t, "bob").GetUserId()
	s := r.sync(t)
	s.send(&userv1.UserStatusUpdate{ActivityId: after, Epoch: r.feed.Head().Epoch, ClientSeq: 1})
	if response := s.receive(); response.GetClientSeq() != 1 || response.GetUserId() != 0 || response.GetStatus() != none || response.GetError() != nil {
		t.Fatalf("response = %v", response)
	}
	if update := s.receive(); update.GetUserId() != b || update.GetStatus() != active {
		t.Fatalf("update = %v", update)
	}
	c := r.create(t, "cid").GetUserId()
	if update := s.receive(); update.GetUserId() != c {
		t.Fatalf("update = %v", update)
	}
	s.send(&userv1.UserStatusUpdate{ActivityId: 4711, ClientSeq: 2})
	if response := s.receive(); response.GetClientSeq() != 2 || response.GetError().GetCode() != int32(user.OutOfRange) {
		t.Fatalf("response = %v", response)
	}
	s.send(&userv1.UserStatusUpdate{Status: active, ClientSeq: 3})
	if response := s.receive(); response.GetClientSeq() != 3 || response.GetError().GetCode() != int32(user.InvalidArgument) {
		t.Fatalf("response = %v", response)
	}
	s.end()
}

func TestSyncDrainsAfterResponses(t *testing.T) {
	r := newRig(t)
	a := r.create(t, "ann").GetUserId()
	s := r.sync(t)
	s.send(&userv1.UserStatusUpdate{UserId: a, Status: inactive, ClientSeq: 1})
	s.receive()
	r.feed.Drain()
	_, err := s.stream.Receive()
	if reasonOf(t, err) != user.ServerDraining {
		t.Errorf("error = %v", err)
	}
}

// watchStatus opens a stream and returns a function that receives its next update.
func (r *rig) watchStatus(t *testing.T, req *userv1.WatchUserStatusRequest) func() *userv1.UserStatusUpdate {
	t.Helper()
	stream, err := r.client(t).WatchUserStatus(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	return func() *userv1.UserStatusUpdate {
		t.Helper()
		if !stream.Receive() {
			t.Fatal(stream.Err())
		}
		return stream.Msg()
	}
}

func TestWatchUserStatus(t *testing.T) {
	r := newRig(t)
	a, b, c := r.create(t, "ann").GetUserId(), r.create(t, "bob").GetUserId(), r.create(t, "cid").GetUserId()
	r.setStatus(t, a, suspended, nil) // its position is behind that of b now
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := r.client(t)
	open := func(req *userv1.WatchUserStatusRequest) func() *userv1.UserStatusUpdate {
		stream, err := client.WatchUserStatus(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		return func() *userv1.UserStatusUpdate {
			t.Helper()
			if !stream.Receive() {
				t.Fatal(stream.Err())
			}
			return stream.Msg()
		}
	}
	next := open(&userv1.WatchUserStatusRequest{UserIds: []int64{a, b, 4711}})
	if got := next(); got.GetUserId() != 4711 || got.GetError().GetCode() != int32(user.NotFound) {
		t.Fatalf("response = %v", got)
	}
	if got := next(); got.GetUserId() != b || got.GetActivityId() != 2 {
		t.Fatalf("response = %v", got)
	}
	if got := next(); got.GetUserId() != a || got.GetActivityId() != 4 || got.GetStatus() != suspended {
		t.Fatalf("response = %v", got)
	}
	r.setStatus(t, c, suspended, nil) // not followed
	r.setStatus(t, b, inactive, nil)
	if got := next(); got.GetUserId() != b || got.GetStatus() != inactive || got.GetActivityId() != 6 {
		t.Fatalf("response = %v", got)
	}
	resumed := open(&userv1.WatchUserStatusRequest{UserIds: []int64{a, b}, AfterActivityId: 4, Epoch: r.feed.Head().Epoch})
	if got := resumed(); got.GetUserId() != b || got.GetActivityId() != 6 {
		t.Fatalf("response = %v", got)
	}
	all := open(&userv1.WatchUserStatusRequest{All: true, AfterActivityId: 4})
	if got := all(); got.GetUserId() != c || got.GetActivityId() != 5 {
		t.Fatalf("response = %v", got)
	}
}

// A client that received position 0 with its epoch resumes there: it may have watched an empty store.
func TestStatusStreamsResumeAtPosition0(t *testing.T) {
	r := newRig(t)
	client := r.client(t)
	epoch := r.feed.Head().Epoch
	a := r.create(t, "ann").GetUserId()
	watch, err := client.WatchUserStatus(t.Context(), &userv1.WatchUserStatusRequest{All: true, Epoch: epoch})
	if err != nil {
		t.Fatal(err)
	}
	if !watch.Receive() || watch.Msg().GetUserId() != a || watch.Msg().GetActivityId() != 1 {
		t.Errorf("WatchUserStatus = %v, %v, want user %d at position 1", watch.Msg(), watch.Err(), a)
	}
	sync, err := client.SyncUserStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := sync.Send(&userv1.UserStatusUpdate{Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
	if _, err := sync.Receive(); err != nil { // the response
		t.Fatal(err)
	}
	if got, err := sync.Receive(); err != nil || got.GetUserId() != a || got.GetActivityId() != 1 {
		t.Errorf("SyncUserStatus = %v, %v, want user %d at position 1", got, err, a)
	}
	_ = watch.Close()
	if err := sync.CloseRequest(); err != nil {
		t.Error(err)
	}
	_ = sync.CloseResponse()
}

func TestWatchRequiresUsersOrAll(t *testing.T) {
	r := newRig(t)
	client := r.client(t)
	for _, req := range []*userv1.WatchUserStatusRequest{{}, {All: true, UserIds: []int64{1}}} {
		stream, err := client.WatchUserStatus(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if stream.Receive() || reasonOf(t, stream.Err()) != user.InvalidField {
			t.Errorf("error = %v", stream.Err())
		}
	}
}

// A position has one status, even if a newer status is on a later page of the log.
func TestCatchUpDeliversNoStatusAtAnOlderPosition(t *testing.T) {
	r := newRig(t)
	a, b, c := r.create(t, "ann").GetUserId(), r.create(t, "bob").GetUserId(), r.create(t, "cid").GetUserId()
	after := r.feed.Head().Position
	r.setStatus(t, a, inactive, nil)
	r.setStatus(t, b, inactive, nil)
	r.remove(t, c)
	others := &userv1.CreateUsersRequest{}
	for i := range 1000 {
		name := fmt.Sprintf("other %d", i)
		others.Requests = append(others.Requests, &userv1.CreateUserRequest{Username: name, Email: fmt.Sprintf("o%d@example.org", i)})
	}
	if _, err := r.CreateUsers(t.Context(), others); err != nil {
		t.Fatal(err)
	}
	suspendedAt := r.setStatus(t, a, suspended, nil).GetActivityId()
	r.remove(t, b)
	if _, err := r.UndeleteUser(t.Context(), &userv1.UndeleteUserRequest{UserId: c}); err != nil {
		t.Fatal(err)
	}
	stream, err := r.client(t).WatchUserStatus(t.Context(), &userv1.WatchUserStatusRequest{All: true, AfterActivityId: after})
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64]struct {
		position int64
		status   userv1.UserStatus
		code     user.Code
	}{a: {suspendedAt, suspended, 0}, b: {suspendedAt + 1, none, user.FailedPrecondition}, c: {suspendedAt + 2, active, 0}}
	for last := int64(0); last < suspendedAt+2; {
		if !stream.Receive() {
			t.Fatal(stream.Err())
		}
		got := stream.Msg()
		if last >= got.GetActivityId() {
			t.Fatalf("position %d after %d", got.GetActivityId(), last)
		}
		last = got.GetActivityId()
		w, known := want[got.GetUserId()]
		if known && (last != w.position || got.GetStatus() != w.status || got.GetError().GetCode() != int32(w.code)) {
			t.Errorf("update = %v, want %+v", got, w)
		}
		delete(want, got.GetUserId())
	}
	if len(want) != 0 {
		t.Errorf("changes not delivered: %v", want)
	}
}

// The response about a deleted user has the position of the deletion, as other subscribers
// receive it.
func TestResponseAboutADeletedUserHasThePositionOfItsDeletion(t *testing.T) {
	r := newRig(t)
	a := r.create(t, "ann").GetUserId()
	r.remove(t, a)
	deletedAt := r.feed.Head().Position
	r.create(t, "bob")
	s := r.sync(t)
	for _, status := range []userv1.UserStatus{none, inactive} {
		s.send(&userv1.UserStatusUpdate{UserId: a, Status: status})
		got := s.receive()
		if got.GetActivityId() != deletedAt || got.GetError().GetCode() != int32(user.FailedPrecondition) {
			t.Errorf("setting %v: response = %v, want an error at position %d", status, got, deletedAt)
		}
	}
	if _, err := r.UndeleteUser(t.Context(), &userv1.UndeleteUserRequest{UserId: a}); err != nil {
		t.Fatal(err)
	}
	s.send(&userv1.UserStatusUpdate{UserId: a})
	if got := s.receive(); got.GetActivityId() != r.feed.Head().Position || got.GetStatus() != active {
		t.Errorf("after undeletion: response = %v, want position %d", got, r.feed.Head().Position)
	}
	s.end()
}

// The same status with a later time has no row. A stream that starts later has the later time.
func TestStreamStartsWithTheTimeOfTheStatus(t *testing.T) {
	r := newRig(t)
	a := r.create(t, "ann").GetUserId()
	first := r.watchStatus(t, &userv1.WatchUserStatusRequest{UserIds: []int64{a}})
	first()
	r.setStatus(t, a, inactive, timestamppb.New(started.Add(time.Second)))
	before := first()
	r.clock.move(time.Minute)
	want := r.setStatus(t, a, inactive, timestamppb.New(started.Add(time.Minute)))
	got := r.watchStatus(t, &userv1.WatchUserStatusRequest{UserIds: []int64{a}})()
	if got.GetActivityId() != before.GetActivityId() || !got.GetTimestamp().AsTime().Equal(want.GetTimestamp().AsTime()) {
		t.Errorf("update = %v, want position %d with the time of %v", got, before.GetActivityId(), want)
	}
}
