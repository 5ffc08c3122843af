package service_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// received has the statuses that one stream delivered, and its resume position.
type received struct {
	kind     string
	newest   map[int64]int64 // position by user
	position int64
	err      error
}

// record records an update or the end of the stream.
func (f *received) record(update *userv1.UserStatusUpdate, err error) (ended bool) {
	if err != nil {
		f.position, f.err = drainedAt(err)
		return true
	}
	f.newest[update.GetUserId()] = max(f.newest[update.GetUserId()], update.GetActivityId())
	return false
}

// drainedAt returns the position of a SERVER_DRAINING error, or any other error.
func drainedAt(err error) (int64, error) {
	connectErr, ok := err.(*connect.Error) //nolint:errorlint // streams return it unwrapped
	if ok && connectErr.Code() == connect.CodeUnavailable {
		for _, detail := range connectErr.Details() {
			value, _ := detail.Value()
			info, ok := value.(*errdetails.ErrorInfo)
			if ok && info.GetReason() == string(user.ServerDraining) && info.GetMetadata()["epoch"] != "" {
				return strconv.ParseInt(info.GetMetadata()["position"], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("not drained: %w", err)
}

// The drain starts while changes are pending. A client that resumes after the position of the
// drain misses no newest status.
func TestDrainLetsStatusStreamsResume(t *testing.T) {
	const users, streams, rounds = 60, 12, 3
	r := newRig(t)
	client := r.client(t)
	var ids []int64
	for i := range users {
		ids = append(ids, r.create(t, fmt.Sprintf("user-%d", i)).GetUserId())
	}
	start := r.feed.Head().Position
	all := make([]*received, streams)
	var open, ended sync.WaitGroup
	for i := range all {
		all[i] = &received{kind: "watch", newest: make(map[int64]int64)}
		if i%2 == 1 {
			all[i].kind = "sync"
		}
		open.Add(1)
		ended.Go(func() { all[i].follow(t, client, sync.OnceFunc(open.Done)) })
	}
	open.Wait()
	for round := range rounds {
		req := &userv1.UpdateUsersRequest{}
		for _, id := range ids {
			status := []userv1.UserStatus{inactive, suspended}[round%2]
			req.Requests = append(req.Requests, &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Status: status}})
		}
		if _, err := r.UpdateUsers(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	r.feed.Drain()
	ended.Wait()
	current, err := r.feed.Statuses(t.Context(), ids, start)
	if err != nil || len(current) != users {
		t.Fatalf("Statuses() = %d statuses, %v", len(current), err)
	}
	for i, f := range all {
		if f.err != nil {
			t.Fatalf("stream %d (%s): %v", i, f.kind, f.err)
		}
		resumed, err := r.feed.Statuses(t.Context(), ids, f.position)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range resumed {
			f.newest[change.UserID] = change.Position
		}
		missed := 0
		for _, change := range current {
			if f.newest[change.UserID] != change.Position {
				missed++
			}
		}
		if missed > 0 {
			t.Errorf("stream %d (%s) resumed after %d: missed the newest status of %d users", i, f.kind, f.position, missed)
		}
	}
}

// follow subscribes to all users until the stream ends.
func (f *received) follow(t *testing.T, client userv1connect.UserServiceClient, ready func()) {
	defer ready()
	if f.kind == "watch" {
		stream, err := client.WatchUserStatus(t.Context(), &userv1.WatchUserStatusRequest{All: true, AfterActivityId: 1})
		if err != nil {
			f.err = err
			return
		}
		for stream.Receive() {
			ready()
			f.record(stream.Msg(), nil)
		}
		f.record(nil, stream.Err())
		return
	}
	stream, err := client.SyncUserStatus(t.Context())
	if err == nil {
		err = stream.Send(&userv1.UserStatusUpdate{})
	}
	if err != nil {
		f.err = err
		return
	}
	for {
		update, err := stream.Receive()
		ready()
		if f.record(update, err) {
			return
		}
	}
}

// Each applied change gets its response, also if messages arrive while the drain starts.
func TestDrainRespondsToAppliedChanges(t *testing.T) {
	const streams, enough = 8, 2000
	r := newRig(t)
	client := r.client(t)
	var responded atomic.Int64
	reached := make(chan struct{})
	startDrain := sync.OnceFunc(func() { close(reached) })
	type outcome struct {
		id, responses, last, position int64
		err                           error
	}
	ends := make(chan outcome, streams)
	for i := range streams {
		o := outcome{id: r.create(t, fmt.Sprintf("user-%d", i)).GetUserId()}
		stream, err := client.SyncUserStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// More messages than the server reads before it responds. net/http resets a stream for each frame after its end, and
		// closes the connection when too many resets are queued.
		inFlight, ended := make(chan struct{}, 256), make(chan struct{})
		go func() {
			for k := 0; ; k++ {
				select {
				case inFlight <- struct{}{}:
				case <-ended:
					return
				}
				status := []userv1.UserStatus{inactive, suspended}[k%2]
				if stream.Send(&userv1.UserStatusUpdate{UserId: o.id, Status: status}) != nil {
					return
				}
			}
		}()
		go func() {
			defer startDrain() // an early end fails below
			defer close(ended)
			for status := userv1.UserStatus(0); ; {
				update, err := stream.Receive()
				if err != nil {
					o.position, o.err = drainedAt(err)
					ends <- o
					return
				}
				<-inFlight
				// On a loaded machine the writer may be stalled: OVERLOADED. The next message then changes nothing.
				if update.GetError() == nil && update.GetStatus() != status {
					o.responses, o.last, status = o.responses+1, update.GetActivityId(), update.GetStatus()
				}
				if responded.Add(1) == enough {
					startDrain()
				}
			}
		}()
	}
	<-reached
	r.feed.Drain()
	for range streams {
		o := <-ends
		page, err := r.store.Log(t.Context(), user.LogQuery{UserID: o.id, Actions: []string{user.ActionStatusChanged}, MaxRows: 100_000})
		if err != nil || o.err != nil {
			t.Fatal(err, o.err)
		}
		if int64(len(page.Rows)) != o.responses {
			t.Errorf("%d changes of user %d applied, %d responses", len(page.Rows), o.id, o.responses)
		}
		if o.position < o.last {
			t.Errorf("user %d: resume position %d, but received %d", o.id, o.position, o.last)
		}
	}
}

// A message being submitted when the drain starts gets its response.
func TestDrainWaitsForMessageInProgress(t *testing.T) {
	r := newRig(t)
	id := r.create(t, "ann").GetUserId()
	submitting := make(chan struct{})
	signal := sync.OnceFunc(func() { close(submitting) })
	slow := spyStore{Store: r.store, batches: func(user.Batch) ([]user.Result, error, bool) {
		signal()
		<-r.feed.Draining()
		<-time.After(200 * time.Millisecond) // as a store may take whose queue is full
		return nil, nil, false
	}}
	s := newRigOverFeed(t, slow, r.feed).sync(t)
	s.send(&userv1.UserStatusUpdate{UserId: id, Status: inactive})
	<-submitting
	r.feed.Drain()
	response := s.receive()
	if response.GetStatus() != inactive {
		t.Errorf("response = %v", response)
	}
	_, err := s.stream.Receive()
	if position, err := drainedAt(err); err != nil || position != response.GetActivityId() {
		t.Errorf("drain position = %d, %v", position, err)
	}
}

// A client stream without results reflects the head at its start.
func TestDrainPositionOfClientStream(t *testing.T) {
	r := newRig(t)
	r.create(t, "ann")
	stream, err := r.client(t).BatchCreateUsers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.feed.Drain()
	if err := stream.Send(&userv1.BatchCreateUsersRequest{}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.CloseAndReceive()
	if position, err := drainedAt(err); err != nil || position != r.feed.Head().Position {
		t.Errorf("drain position = %d, %v", position, err)
	}
}

// stuckConn is the conn of a stream whose client reads one message and then too slowly.
type stuckConn struct {
	connect.StreamingHandlerConn

	ctx     context.Context //nolint:containedctx // of the stream
	header  http.Header
	blocked chan struct{} // closed when a message is blocked
	sent    int
}

func (c *stuckConn) ResponseHeader() http.Header { return c.header }

func (c *stuckConn) Send(message any) error {
	if message == nil {
		return nil
	}
	if c.sent++; c.sent == 1 {
		return nil
	}
	close(c.blocked)
	<-c.ctx.Done()
	return connect.NewError(connect.CodeCanceled, c.ctx.Err())
}

// A stream that is aborted while a message is blocked, at the end of a shutdown or with its connection, reports the position
// of its last message and not that of the log.
func TestAbortedStreamReportsItsPosition(t *testing.T) {
	r := newRig(t)
	recorded(t, r, 5)
	head := r.feed.Head()
	for name, cause := range map[string]error{
		"shutdown":       user.NewDrainedCallError(head.Epoch, head.Position),
		"connection age": user.NewConnectionAgeError(),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			conn := &stuckConn{ctx: ctx, header: http.Header{}, blocked: make(chan struct{})}
			ended := make(chan error, 1)
			go func() { ended <- r.ServeUserActivities(ctx, &userv1.StreamUserActivitiesRequest{}, conn) }()
			<-conn.blocked
			cancel(cause)
			got := wantReason(t, <-ended, user.ServerDraining).Metadata
			if got["position"] != "1" || got["epoch"] != head.Epoch {
				t.Errorf("metadata = %v, want position 1 of epoch %s", got, head.Epoch)
			}
		})
	}
}
