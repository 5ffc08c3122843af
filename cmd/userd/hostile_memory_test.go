package main_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

const (
	scarce       = "96MiB" // of memory
	scarceBytes  = 96 << 20
	beyondScarce = scarceBytes * 3 / 2 // what the memory must not grow to
)

// sendPart sends a part of a body that never ends, and calls done when the server has
// answered or cut it.
func (x *target) sendPart(t *testing.T, path string, part []byte, done func(said string)) {
	t.Helper()
	never, end := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.url()+path, io.MultiReader(bytes.NewReader(part), never))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	client := web(true)
	go func() {
		defer client.CloseIdleConnections()
		var said string
		answer, err := client.Do(request)
		if err == nil {
			_, _ = io.Copy(io.Discard, answer.Body) // what it says is in the trailers
			_ = end.Close()                         // the client waits for its own body
			_ = answer.Body.Close()
			said = answer.Trailer.Get("Grpc-Message") + answer.Header.Get("Grpc-Message")
		} else {
			said = err.Error()
		}
		done(said)
	}()
}

// Health is asked without credentials and answered when there is no memory, so it takes
// small messages only.
func TestHealthTakesNoMemory(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce)
	x.peakReset(t)
	x.withstands(t, func(t *testing.T) {
		var refused sync.WaitGroup
		for range 100 {
			refused.Add(1)
			x.sendPart(t, "/grpc.health.v1.Health/Check", enveloped(0, make([]byte, messageLimit-1))[:messageLimit/2], func(said string) {
				defer refused.Done()
				if !strings.Contains(said, "limit is 4096 bytes") {
					t.Errorf("got %q", said)
				}
			})
		}
		refused.Wait()
	})
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("the memory grew to %d bytes", peak)
	}
}

// A message of a stream that has begun has to come as well, and soon where there is no
// room: the streams are cut and everybody else goes on.
func TestMessagesThatDoNotEnd(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce, "--body-timeout", "5s")
	x.peakReset(t)
	var cut sync.WaitGroup
	for range 40 {
		cut.Add(1)
		x.sendPart(t, userv1connect.UserServiceBatchCreateUsersProcedure, enveloped(0, make([]byte, messageLimit))[:messageLimit-1],
			func(said string) {
				defer cut.Done()
				// The connections that hold most are closed where memory is short.
				expected := []string{
					"request body timeout", "server overloaded",
					`ErrCode=ENHANCE_YOUR_CALM, debug="server overloaded"`, "connection reset by peer", "broken pipe",
				}
				if !slices.ContainsFunc(expected, func(text string) bool { return strings.Contains(said, text) }) {
					t.Errorf("the stream ended with %q, want one of %q", said, expected)
				}
			})
	}
	cut.Wait()
	for range 100 {
		x.get(t)
	}
	x.rests(t)
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("the memory grew to %d bytes", peak)
	}
}

// Answers are not made faster than they are taken: a caller who asks for many large ones
// and takes nothing cannot fill the memory with them.
func TestAnswersThatThereIsNoRoomFor(t *testing.T) {
	t.Parallel()
	list, err := proto.Marshal(&userv1.ListUsersRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]struct {
		path    string
		message []byte
	}{
		"lists":   {userv1connect.UserServiceListUsersProcedure, list},
		"streams": {userv1connect.UserServiceStreamUserActivitiesProcedure, nil},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTarget(t, "--memory-limit", scarce, "--stall-timeout", "2s")
			x.fillWithLarge(t)
			x.peakReset(t)
			p := x.peer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for i := range uint32(400) {
				id := 2*i + 1
				if err := errors.Join(p.open(id, ask.path), p.WriteData(id, true, enveloped(0, ask.message))); err != nil {
					t.Fatal(err)
				}
			}
			ended := make(map[uint32]bool)
			for len(ended) < 400 {
				switch frame, err := p.ReadFrame(); frame := frame.(type) {
				case *http2.RSTStreamFrame:
					ended[frame.StreamID] = true
				case *http2.MetaHeadersFrame:
					if frame.StreamEnded() {
						ended[frame.StreamID] = true
					}
				default:
					if err != nil {
						t.Fatalf("when %d had ended: %v", len(ended), err)
					}
				}
			}
			if peak := x.peak(t); peak > beyondScarce {
				t.Errorf("the memory grew to %d bytes", peak)
			} else {
				t.Logf("at most %d MiB", peak>>20)
			}
			x.get(t)
		})
	}
}

// fillWithLarge creates users of 60 KiB, a list of which has three megabytes.
func (x *target) fillWithLarge(t *testing.T) {
	t.Helper()
	metadata := make(map[string]string)
	for _, key := range strings.Split(strings.Repeat("k", 60), "") {
		metadata[key+strings.Repeat("x", len(metadata))] = strings.Repeat("v", 1000)
	}
	stream, err := x.client.BatchCreateUsers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		u := newUser("large", i)
		if u.Metadata = metadata; i >= 64 {
			u.Metadata = map[string]string{"details": strings.Repeat("v", 1000)}
		}
		if err := stream.Send(&userv1.BatchCreateUsersRequest{User: u}); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := stream.CloseAndReceive(); err != nil || answer.GetFailedCount() != 0 {
		t.Fatal(answer, err)
	}
}
