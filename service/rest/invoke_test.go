package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/reqinfo"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/user"
)

// Rows of a replay are not flushed while the handler holds.
func TestReplayIsNotFlushedForEachRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &feed{live: make(chan int64)}
		for i := range 5000 {
			source.replay = append(source.replay, int64(i+1))
		}
		c := dial(t, newHandler(t, &fake{stream: source.serve}), sse(activitiesPath))
		s := c.events(t)
		if len(s.events) != 5000 || s.lastID != "ep:5000" {
			t.Errorf("%d events, %s", len(s.events), s.lastID)
		}
		if c.flushes > 5 {
			t.Errorf("%d flushes", c.flushes)
		}
		c.leave()
		c.ended()
	})
}

// Rows of a handler that never releases are flushed at once.
func TestHandlerWithoutFlushControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		more := make(chan int64)
		f := &fake{stream: func(ctx context.Context, _ *userv1.StreamUserActivitiesRequest, stream *activities) error {
			for {
				select {
				case position := <-more:
					if err := stream.Send(activity(position)); err != nil {
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}}
		c := dial(t, newHandler(t, f), ndjson(activitiesPath))
		for i := range 3 {
			more <- int64(i + 1)
			synctest.Wait()
			if _, text := c.got(); strings.Count(text, "\n") != i+1 {
				t.Errorf("got %q", text)
			}
		}
		c.leave()
		c.ended()
	})
}

// A stalled client blocks the handler at its first row.
func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		f := &fake{stream: func(ctx context.Context, _ *userv1.StreamUserActivitiesRequest, stream *activities) error {
			reqinfo.From[reqinfo.FlushControl](ctx).Cork()
			for {
				if err := stream.Send(activity(sent.Add(1))); err != nil {
					return err
				}
			}
		}}
		w := newWire()
		w.full = make(chan struct{})
		c := dialOver(t, w, newHandler(t, f), sse(activitiesPath))
		if n := sent.Load(); n != 1 {
			t.Errorf("%d rows sent, want 1", n)
		}
		c.leave()
		c.mu.Lock()
		close(c.full)
		c.broken = context.Canceled
		c.mu.Unlock()
		if !c.ended() {
			t.Error("the handler has not returned")
		}
	})
}

// A failed write of a row or of a heartbeat cancels the handler.
func TestFailedWriteEndsTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, heartbeat := range []bool{false, true} {
			source := &feed{live: make(chan int64)}
			c := dial(t, newHandler(t, &fake{stream: source.serve}), sse(activitiesPath))
			c.mu.Lock()
			c.broken = context.Canceled
			c.mu.Unlock()
			if heartbeat {
				time.Sleep(15 * time.Second) // bubble time
			} else {
				source.live <- 1
			}
			if !c.ended() {
				t.Errorf("heartbeat %v: the handler has not returned", heartbeat)
			}
		}
	})
}

// A stream runs on the goroutine of its request.
func TestStreamRunsOnTheGoroutineOfTheRequest(t *testing.T) {
	var stack string
	f := &fake{stream: func(context.Context, *userv1.StreamUserActivitiesRequest, *activities) error {
		stack = string(debug.Stack())
		return nil
	}}
	serve(t, newHandler(t, f), sse(activitiesPath))
	contains(t, stack, "TestStreamRunsOnTheGoroutineOfTheRequest(")
}

// A handler that waits for a heartbeat to be written does not hold its processor slot.
func TestBlockedHeartbeatReleasesTheSlot(t *testing.T) {
	slot := new(fair.Slot)
	slot.Open(fair.NewScheduler(), "a")
	w := newWire()
	w.full = make(chan struct{})
	f := &fake{stream: func(_ context.Context, _ *userv1.StreamUserActivitiesRequest, stream *activities) error {
		awaitStack(t, "(*stream).heartbeat", "(*wire).Write")
		slot.Acquire()
		return stream.Send(activity(1))
	}}
	h := newHandler(t, f, func(o *rest.Options) { o.Heartbeat = time.Millisecond })
	r := sse(activitiesPath).make(t)
	r = r.WithContext(fair.NewContext(r.Context(), slot))
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(w, r)
	}()
	awaitStack(t, "(*stream).send", "(*Mutex).lockSlow")
	if slot.Release() {
		t.Error("slot is held, want released")
	}
	close(w.full)
	<-done
}

// awaitStack waits until the stack of a goroutine has all functions.
func awaitStack(t *testing.T, functions ...string) {
	buf := make([]byte, 1<<20)
	for t.Context().Err() == nil {
		all := string(buf[:runtime.Stack(buf, true)])
		for one := range strings.SplitSeq(all, "\n\n") {
			if !slices.ContainsFunc(functions, func(f string) bool { return !strings.Contains(one, f) }) {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// The handler uses resources of the request, so ServeHTTP returns after it.
func TestServeHTTPWaitsForTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, begun := range []bool{false, true} {
			release := make(chan struct{})
			f := &fake{stream: func(ctx context.Context, _ *userv1.StreamUserActivitiesRequest, stream *activities) error {
				if begun {
					if err := stream.Send(activity(1)); err != nil {
						return err
					}
				}
				<-ctx.Done()
				<-release
				for {
					if err := stream.Send(activity(2)); err != nil {
						return err
					}
				}
			}}
			c := dial(t, newHandler(t, f), sse(activitiesPath))
			c.leave()
			if c.ended() {
				t.Error("ServeHTTP returned before the handler")
			}
			close(release)
			if !c.ended() {
				t.Error("the handler has not returned")
			}
		}
	})
}

type callerKey struct{}

// A stream has the context and the end-to-end headers of the request.
func TestContextAndHeadersOfStream(t *testing.T) {
	var headers http.Header
	var caller any
	var remote string
	inner := connectHandler(&fake{})
	h := newHandler(t, nil, func(o *rest.Options) {
		o.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			headers, caller, remote = r.Header.Clone(), r.Context().Value(callerKey{}), r.RemoteAddr
			inner.ServeHTTP(w, r)
		})
	})
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		q := sse(activitiesPath, "Accept", accept, "Authorization", "Bearer x", "Traceparent", "00-1", "Userd-Min-Position", "e:1",
			"If-None-Match", `"x"`, "Connect-Timeout-Ms", "junk", "Cookie", "a=b", "Accept-Encoding", "gzip")
		r := q.make(t)
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, "ann"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("response = %d %s", w.Code, w.Body)
		}
		for name, want := range map[string]string{
			"Authorization": "Bearer x", "Traceparent": "00-1", "Userd-Min-Position": "e:1", "Cookie": "a=b",
			"If-None-Match": "", "Connect-Timeout-Ms": "", "Last-Event-Id": "",
		} {
			if headers.Get(name) != want {
				t.Errorf("%s: got %s %q", accept, name, headers.Get(name))
			}
		}
		if caller != "ann" || remote != r.RemoteAddr {
			t.Errorf("caller %v, address %s", caller, remote)
		}
	}
}

// panicking is an interceptor that panics after a stream.
type panicking struct{ rest.Interceptor }

func (panicking) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		_ = next(ctx, conn)
		panic("secret")
	}
}

// A panic outside of the interceptors is logged, and the client gets an internal error.
func TestPanickingHandler(t *testing.T) {
	for _, rows := range []int{0, 1} {
		var logged bytes.Buffer
		f := &fake{stream: func(_ context.Context, _ *userv1.StreamUserActivitiesRequest, stream *activities) error {
			for i := range rows {
				if err := stream.Send(activity(int64(i + 1))); err != nil {
					return err
				}
			}
			return nil
		}}
		_, panics := userv1connect.NewUserServiceHandler(f, connect.WithInterceptors(rest.Interceptor{}, panicking{}))
		h := newHandler(t, f, func(o *rest.Options) {
			o.Handler, o.Logger = panics, slog.New(slog.NewTextHandler(&logged, nil))
		})
		w := serve(t, h, sse(activitiesPath))
		contains(t, logged.String(), "secret")
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("got %s", w.Body)
		}
		contains(t, w.Body.String(), string(user.InternalError))
		if rows == 0 && w.Code != http.StatusInternalServerError {
			t.Errorf("status = %d", w.Code)
		}
	}
}

func TestAcceptSelectsTheFormat(t *testing.T) {
	for accept, want := range map[string]string{
		"":                                "application/json",
		"*/*":                             "application/json",
		"application/json":                "application/json",
		"application/*":                   "application/json",
		"APPLICATION/JSON; charset=utf-8": "application/json",
		"text/event-stream":               "text/event-stream",
		"text/*":                          "text/event-stream",
		"application/x-ndjson":            "application/x-ndjson",
		"text/event-stream, */*;q=0.1":    "text/event-stream",
		"*/*, text/event-stream;q=0.9":    "application/json",
		"application/json;q=0, */*":       "text/event-stream",
		"application/x-ndjson;q=0.9,text/event-stream;q=0.8,application/json;q=0.7": "application/x-ndjson",
		"text/html":                       "",
		"text/html, application/json;q=0": "",
		"*/*;q=0":                         "",
		"application/json;q=2":            "",
		"application/json;q=x":            "",
		"text/html;level=1;q=0.1, text/event-stream;q=.5": "text/event-stream",
	} {
		w := serve(t, newHandler(t, &fake{}), request{method: "GET", path: activitiesPath, header: map[string]string{"Accept": accept}})
		got := w.Header().Get("Content-Type")
		if w.Code == http.StatusNotAcceptable {
			got = ""
		}
		if got != want || w.Header().Get("Vary") == "" {
			t.Errorf("%q: got %d %q", accept, w.Code, got)
		}
	}
}

// Live rows arrive over HTTP/1.1 and HTTP/2.
func TestOverTheNetwork(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		source := &feed{replay: []int64{3}, live: make(chan int64)}
		server := httptest.NewUnstartedServer(newHandler(t, &fake{stream: source.serve}))
		server.EnableHTTP2 = h2
		server.StartTLS()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+activitiesPath, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/x-ndjson")
		res, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusOK || (res.ProtoMajor == 2) != h2 {
			t.Fatalf("got %v", res)
		}
		lines := bufio.NewScanner(res.Body)
		for i := range int64(4) {
			if !lines.Scan() {
				t.Fatal(lines.Err())
			}
			contains(t, strings.ReplaceAll(lines.Text(), " ", ""), `"activityId":"`+strconv.FormatInt(i+3, 10)+`"`)
			if i < 3 {
				source.live <- i + 4
			}
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		server.Client().CloseIdleConnections()
		server.Close()
	}
}

// BenchmarkReplay measures one row of a replay without the network.
func BenchmarkReplay(b *testing.B) {
	for name, accept := range map[string]string{"events": "text/event-stream", "lines": "application/x-ndjson"} {
		b.Run(name, func(b *testing.B) {
			row := activity(1)
			f := &fake{stream: func(ctx context.Context, _ *userv1.StreamUserActivitiesRequest, stream *activities) error {
				reqinfo.From[reqinfo.FlushControl](ctx).Cork()
				for range b.N {
					if err := stream.Send(row); err != nil {
						return err
					}
				}
				return nil
			}}
			handler := newHandler(b, f)
			r := httptest.NewRequestWithContext(b.Context(), "GET", activitiesPath, http.NoBody)
			r.Header.Set("Accept", accept)
			b.ReportAllocs()
			handler.ServeHTTP(nowhere{}, r)
		})
	}
}

// nowhere is a client that discards everything.
type nowhere struct{}

func (nowhere) Header() http.Header            { return http.Header{} }
func (nowhere) WriteHeader(int)                {}
func (nowhere) Write(data []byte) (int, error) { return len(data), nil }
func (nowhere) Flush()                         {}
