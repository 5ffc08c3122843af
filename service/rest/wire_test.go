package rest_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/reqinfo"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// wire is the client side of a stream. It shows only flushed data.
type wire struct {
	header http.Header

	mu      sync.Mutex
	status  int
	written strings.Builder
	sent    int
	flushes int
	broken  error
	full    chan struct{} // if not nil, Write blocks until it is closed
}

func newWire() *wire { return &wire{header: make(http.Header)} }

func (w *wire) Header() http.Header { return w.header }

func (w *wire) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status = status
}

func (w *wire) Write(data []byte) (int, error) {
	w.mu.Lock()
	full := w.full
	w.mu.Unlock()
	if full != nil {
		<-full
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return 0, w.broken
	}
	return w.written.Write(data)
}

func (w *wire) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = w.written.Len()
	w.flushes++
	return w.broken
}

func (w *wire) got() (status int, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.written.String()[:w.sent]
}

// events parses the data received so far.
func (w *wire) events(t *testing.T) *sseStream {
	t.Helper()
	_, text := w.got()
	s, err := parseEvents(text)
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return s
}

// connection is a request in progress.
type connection struct {
	*wire

	leave context.CancelFunc
	done  chan struct{}
}

// dial serves a request on a goroutine in a synctest bubble.
func dial(t *testing.T, h http.Handler, q request) *connection {
	t.Helper()
	return dialOver(t, newWire(), h, q)
}

func dialOver(t *testing.T, w *wire, h http.Handler, q request) *connection {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &connection{wire: w, leave: cancel, done: make(chan struct{})}
	r := q.make(t).WithContext(ctx)
	go func() {
		defer close(c.done)
		h.ServeHTTP(c.wire, r)
	}()
	synctest.Wait()
	return c
}

// ended reports whether the handler has returned.
func (c *connection) ended() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func sse(path string, more ...string) request {
	header := map[string]string{"Accept": "text/event-stream"}
	for i := 0; i < len(more); i += 2 {
		header[more[i]] = more[i+1]
	}
	return request{method: "GET", path: path, header: header}
}

func ndjson(path string) request {
	return request{method: "GET", path: path, header: map[string]string{"Accept": "application/x-ndjson"}}
}

func activity(position int64) *userv1.UserActivity {
	return &userv1.UserActivity{
		ActivityId: position, UserId: 7, Action: "user.updated",
		Timestamp: timestamppb.New(time.Unix(1_700_000_000, 0)), Details: map[string]string{"new.username": "a\nb\u2028\r"},
	}
}

type activities = connect.ServerStream[userv1.UserActivity]

// feed implements StreamUserActivities like the service: it holds during the replay. Live
// positions come from live; when live is closed the stream ends with err.
type feed struct {
	replay   []int64
	progress int64 // position of a progress row after the replay, if requested
	live     chan int64
	err      error
}

func (f *feed) serve(ctx context.Context, req *userv1.StreamUserActivitiesRequest, stream *activities) error {
	stream.ResponseHeader().Set("Userd-Position", "ep:och:99")
	flush := reqinfo.From[reqinfo.FlushControl](ctx)
	flush.Cork()
	for _, position := range f.replay {
		if err := stream.Send(activity(position)); err != nil {
			return err
		}
	}
	if req.GetProgress() && f.progress > 0 {
		if err := stream.Send(&userv1.UserActivity{ActivityId: f.progress}); err != nil {
			return err
		}
	}
	if f.live == nil {
		return f.err
	}
	for {
		if err := stream.Send(nil); err != nil {
			return err
		}
		flush.Uncork()
		select {
		case position, open := <-f.live:
			if !open {
				return f.err
			}
			flush.Cork()
			row := activity(position)
			if position < 0 {
				row = &userv1.UserActivity{ActivityId: -position}
			}
			if err := stream.Send(row); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
