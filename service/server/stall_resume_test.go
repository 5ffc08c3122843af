package server_test

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// A stalled gRPC client receives the reason and the position of the last message that it can still read,
// never INTERNAL, which clients do not retry.
func TestStalledReaderResumes(t *testing.T) {
	t.Parallel()
	const stalled = "response write stalled, stream ended"
	filled := filledStore(t)
	patient := servertest.Config(func(c *server.Config) { c.StallTimeout, c.ShutdownTimeout = time.Minute, 5*time.Second })
	for name, c := range map[string]struct {
		options []servertest.Option
		end     func(*testing.T, *servertest.Server, *lockedBuffer)
		reason  user.Reason
	}{
		"stall": {nil, func(t *testing.T, _ *servertest.Server, log *lockedBuffer) {
			t.Helper()
			log.await(t, stalled)
		}, user.StreamStalled},
		"drain": {[]servertest.Option{patient}, func(_ *testing.T, s *servertest.Server, _ *lockedBuffer) { s.Stop() }, user.ServerDraining},
	} {
		for _, window := range []int32{64 << 10, 100_000} {
			for _, method := range []string{"StreamUserActivities", "WatchUserStatus", "SyncUserStatus", "WatchUsers"} {
				t.Run(fmt.Sprintf("%s of %s with a window of %d", name, method, window), func(t *testing.T) {
					t.Parallel()
					var log lockedBuffer
					s := startNarrow(t, &log, slices.Concat(c.options, []servertest.Option{servertest.Path(copyOfFile(t, filled))})...)
					next := openGRPC(t, s.Addr(), window, method)
					last, err := next()
					if err != nil {
						t.Fatal(err)
					}
					c.end(t, s, &log)
					for position := last; err == nil; position, err = next() {
						if position > last+1 {
							t.Fatalf("position %d after %d", position, last)
						}
						last = max(last, position)
					}
					wantResumable(t, err, c.reason, last)
				})
			}
		}
	}
}

// A client that stops reading a live status stream resumes after the last status that it can still read.
func TestStalledLiveReaderResumes(t *testing.T) {
	t.Parallel()
	filled := filledStore(t)
	for _, method := range []string{"WatchUserStatus", "SyncUserStatus"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			s := startNarrow(t, &log, servertest.Path(copyOfFile(t, filled)))
			next := openGRPC(t, s.Addr(), 64<<10, method)
			head, err := s.Store().Head(t.Context())
			last := int64(0)
			for last < head.Position && err == nil {
				last, err = next()
			}
			if err != nil {
				t.Fatal(err)
			}
			changeStatuses(t, s)
			log.await(t, "response write stalled, stream ended")
			for position := last; err == nil; position, err = next() {
				if position > last+1 {
					t.Fatalf("position %d after %d", position, last)
				}
				last = max(last, position)
			}
			wantResumable(t, err, user.StreamStalled, last)
		})
	}
}

// A client that stops reading the errors of unknown users resumes at the start.
func TestStalledReaderOfUnknownUsersResumes(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := startNarrow(t, &log)
	next := openGRPC(t, s.Addr(), 64<<10, "WatchUserStatus of unknown users")
	log.await(t, "response write stalled, stream ended")
	var err error
	for err == nil {
		_, err = next()
	}
	wantResumable(t, err, user.StreamStalled, 0)
}

// changeStatuses changes the status of each user of fillStatuses, in many commits.
func changeStatuses(t *testing.T, s *servertest.Server) {
	t.Helper()
	page, err := s.Store().Log(t.Context(), user.LogQuery{After: 401, MaxRows: 3000})
	if err != nil {
		t.Fatal(err)
	}
	for rows := range slices.Chunk(page.Rows, 5) {
		var batch user.Batch
		for i := range rows {
			batch.Changes = append(batch.Changes, user.Change{Op: &user.SetStatus{ID: rows[i].UserID, Status: user.StatusInactive}})
		}
		if _, err := user.Apply(t.Context(), s.Store(), batch); err != nil {
			t.Fatal(err)
		}
	}
}

func wantResumable(t *testing.T, err error, reason user.Reason, position int64) {
	t.Helper()
	got := status.Convert(err)
	var info *errdetails.ErrorInfo
	for _, detail := range got.Details() {
		if found, ok := detail.(*errdetails.ErrorInfo); ok {
			info = found
		}
	}
	if got.Code() != codes.Unavailable || info.GetReason() != string(reason) || info.GetMetadata()["position"] != strconv.FormatInt(position, 10) {
		t.Errorf("the stream ended with %v, %v; want UNAVAILABLE, %s with position %d", err, info, reason, position)
	}
}

// filledStore returns the file of a store with the rows of fillLog and fillStatuses.
func filledStore(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.db")
	s := servertest.Start(t, servertest.Parallel(), servertest.Path(path))
	fillLog(t, s)
	fillStatuses(t, s)
	s.Stop()
	return path
}

func copyOfFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return servertest.WriteFile(t, t.TempDir(), filepath.Base(path), content)
}

// fillStatuses stores users with one row each.
func fillStatuses(t *testing.T, s *servertest.Server) {
	t.Helper()
	var batch user.Batch
	for i := range 3000 {
		op, err := user.NewCreate(user.User{Username: fmt.Sprintf("user %d", i), Email: fmt.Sprintf("u%d@example.com", i)})
		if err != nil {
			t.Fatal(err)
		}
		batch.Changes = append(batch.Changes, user.Change{Op: op})
	}
	if _, err := user.Apply(t.Context(), s.Store(), batch); err != nil {
		t.Fatal(err)
	}
}

func numbersTo(n int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for i := int64(1); i <= n && yield(i); i++ {
		}
	}
}

// openGRPC opens a stream of grpc-go with fixed windows, because dynamic windows would buffer everything.
// The returned function reads the position of the next message.
func openGRPC(t *testing.T, addr string, window int32, method string) func() (int64, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	rpc, _, _ := strings.Cut(method, " ")
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/user.v1.UserService/"+rpc)
	if err != nil {
		t.Fatal(err)
	}
	// The rows of fillLog come before those of fillStatuses.
	request := map[string]proto.Message{
		"StreamUserActivities": &userv1.StreamUserActivitiesRequest{},
		"WatchUserStatus":      &userv1.WatchUserStatusRequest{All: true, AfterActivityId: 401},
		"WatchUsers":           &userv1.WatchUsersRequest{AfterActivityId: 401},
		"SyncUserStatus":       &userv1.UserStatusUpdate{ActivityId: 401},

		"WatchUserStatus of unknown users": &userv1.WatchUserStatusRequest{UserIds: slices.Collect(numbersTo(10_000))},
	}[method]
	if err := stream.SendMsg(request); err != nil {
		t.Fatal(err)
	}
	if method == "SyncUserStatus" { // the client does not close its side
		if err := stream.RecvMsg(new(userv1.UserStatusUpdate)); err != nil {
			t.Fatal(err)
		}
	} else if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return func() (int64, error) {
		if method == "WatchUsers" {
			change := new(userv1.WatchUsersResponse)
			err := stream.RecvMsg(change)
			return change.GetActivityId(), err
		}
		if method != "StreamUserActivities" {
			update := new(userv1.UserStatusUpdate)
			err := stream.RecvMsg(update)
			return update.GetActivityId(), err
		}
		row := new(userv1.UserActivity)
		err := stream.RecvMsg(row)
		return row.GetActivityId(), err
	}
}

// For protocols whose end is in the body, a stalled stream is reset with REFUSED_STREAM, which clients
// retry.
func TestStalledReaderIsResetRetriably(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"application/connect+proto", "application/grpc-web"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			s := startStalling(t, &log)
			// A small window: TCP buffers all of it.
			peer := dialHTTP2(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4000})
			peer.contentType = kind
			peer.call(t, 1, replayed, &userv1.StreamUserActivitiesRequest{})
			reset, ok := peer.await(t, func(f http2.Frame) bool { _, ok := f.(*http2.RSTStreamFrame); return ok }).(*http2.RSTStreamFrame)
			if !ok || reset.ErrCode != http2.ErrCodeRefusedStream {
				t.Errorf("got %v, want REFUSED_STREAM", reset)
			}
		})
	}
}
