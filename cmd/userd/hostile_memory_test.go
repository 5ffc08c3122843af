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
	scarce       = "96MiB" // memory limit
	scarceBytes  = 96 << 20
	beyondScarce = scarceBytes * 3 / 2 // bound for the peak
)

// sendPart sends a part of a body that never ends, and calls done with the error message when
// the call ends.
func (x *target) sendPart(t *testing.T, path string, part []byte, done func(message string)) {
	t.Helper()
	never, end := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.url()+path, io.MultiReader(bytes.NewReader(part), never))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	client := web(true)
	x.clients = append(x.clients, client)
	go func() {
		var message string
		response, err := client.Do(request)
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body) // for the trailers
			_ = end.Close()                           // ends the request body
			_ = response.Body.Close()
			message = response.Trailer.Get("Grpc-Message") + response.Header.Get("Grpc-Message")
		} else {
			message = err.Error()
		}
		done(message)
	}()
}

// Health checks need no credentials and have reserved memory, so their messages must be small.
func TestHealthMessageLimit(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce)
	x.peakReset(t)
	x.withstands(t, func(t *testing.T) {
		var refused sync.WaitGroup
		for range 100 {
			refused.Add(1)
			x.sendPart(t, "/grpc.health.v1.Health/Check", enveloped(0, make([]byte, messageLimit-1))[:messageLimit/2], func(message string) {
				defer refused.Done()
				if !strings.Contains(message, "limit is 4096 bytes") {
					t.Errorf("error = %q, want a message size error", message)
				}
			})
		}
		refused.Wait()
	})
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("peak memory = %d bytes, want at most %d", peak, beyondScarce)
	}
}

// Streams with incomplete messages are aborted after --body-timeout, or earlier under memory
// pressure. Other calls succeed.
func TestIncompleteMessages(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce, "--body-timeout", "5s")
	x.peakReset(t)
	var ended sync.WaitGroup
	for range 40 {
		ended.Add(1)
		x.sendPart(t, userv1connect.UserServiceBatchCreateUsersProcedure, enveloped(0, make([]byte, messageLimit))[:messageLimit-1],
			func(message string) {
				defer ended.Done()
				// Under memory pressure the connections with the most memory are closed.
				expected := []string{
					"request body timeout", "server overloaded",
					`ErrCode=ENHANCE_YOUR_CALM, debug="server overloaded"`,
				}
				if !slices.ContainsFunc(expected, func(text string) bool { return strings.Contains(message, text) }) {
					t.Errorf("stream error = %q, want one of %q", message, expected)
				}
			})
	}
	ended.Wait()
	for range 100 {
		x.get(t)
	}
	x.awaitIdle(t)
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("peak memory = %d bytes, want at most %d", peak, beyondScarce)
	}
}

// A client that requests many large responses and does not read them cannot exhaust the memory.
func TestUnreadLargeResponses(t *testing.T) {
	t.Parallel()
	list, err := proto.Marshal(&userv1.ListUsersRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for name, request := range map[string]struct {
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
				if err := errors.Join(p.open(id, request.path), p.WriteData(id, true, enveloped(0, request.message))); err != nil {
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
						t.Fatalf("after %d streams: %v", len(ended), err)
					}
				}
			}
			if peak := x.peak(t); peak > beyondScarce {
				t.Errorf("peak memory = %d bytes, want at most %d", peak, beyondScarce)
			} else {
				t.Logf("peak memory %d MiB", peak>>20)
			}
			x.get(t)
		})
	}
}

// fillWithLarge creates users of 60 KiB, so that a list is about 3 MB.
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
	if response, err := stream.CloseAndReceive(); err != nil || response.GetFailedCount() != 0 {
		t.Fatalf("BatchCreateUsers = %v, %v, want no failures", response, err)
	}
}
