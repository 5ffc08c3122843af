package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// quietConn is a stream whose client reads everything at once.
type quietConn struct {
	connect.StreamingHandlerConn

	kind      connect.StreamType
	procedure string
	request   http.Header
	fail      error
}

func (c *quietConn) Spec() connect.Spec {
	return connect.Spec{Procedure: c.procedure, StreamType: c.kind}
}
func (c *quietConn) Peer() connect.Peer {
	return connect.Peer{Protocol: connect.ProtocolGRPC, Addr: "192.0.2.1:99"}
}
func (c *quietConn) RequestHeader() http.Header  { return c.request }
func (c *quietConn) ResponseHeader() http.Header { return http.Header{} }
func (c *quietConn) Receive(any) error           { return c.fail }
func (c *quietConn) Send(any) error              { return c.fail }

// runStream runs a handler with the tracing interceptors.
func runStream(t *testing.T, tracing *Tracing, conn *quietConn, handler connect.StreamingHandlerFunc) error {
	t.Helper()
	interceptors, err := tracing.Interceptors(speaks)
	if err != nil {
		t.Fatal(err)
	}
	if conn.procedure == "" {
		conn.procedure = "/user.v1.UserService/StreamUserActivities"
	}
	if conn.request == nil {
		conn.request = http.Header{}
	}
	for i := range interceptors {
		handler = interceptors[len(interceptors)-1-i].WrapStreamingHandler(handler)
	}
	return handler(t.Context(), conn)
}

// describe formats a span without its ids.
func describe(span sdktrace.ReadOnlySpan) string {
	_, name, _ := strings.Cut(span.Name(), "/")
	text := fmt.Sprintf("%s %v", name, span.EndTime().Sub(span.StartTime()))
	for _, a := range span.Attributes() {
		if key, ok := strings.CutPrefix(string(a.Key), "userd.stream."); ok {
			text += " " + key + "=" + a.Value.String()
		} else if key, ok := strings.CutPrefix(string(a.Key), "userd.store."); ok && a.Value.AsInt64() > 0 {
			text += " " + key + "=" + a.Value.String()
		} else if a.Key == "rpc.response.status_code" {
			text += " " + a.Value.String()
		}
	}
	if span.Status().Code == codes.Error {
		text += " failed"
	}
	return text
}

func wantSpans(t *testing.T, got []sdktrace.ReadOnlySpan, want ...string) {
	t.Helper()
	lines := make([]string, len(got))
	for i, span := range got {
		lines[i] = describe(span)
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(lines, "\n  "), strings.Join(want, "\n  "))
	}
}

// A stream with a replay, an idle hour and live messages.
func TestLongStreamHasBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracing, recorder := recording(false)
		var opening trace.SpanContext
		err := runStream(t, tracing, &quietConn{kind: connect.StreamTypeServer}, func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			opening = trace.SpanContextFromContext(ctx)
			_ = conn.Receive(new(int)) // the request
			time.Sleep(3 * time.Millisecond)
			for range 100 { // the replay
				_ = conn.Send(new(int))
				time.Sleep(10 * time.Millisecond)
			}
			wantSpans(t, recorder.Ended(), "StreamUserActivities 3ms")
			time.Sleep(time.Hour) // the burst of the replay has ended
			synctest.Wait()
			wantSpans(t, recorder.Ended(), "StreamUserActivities 3ms",
				"StreamUserActivities burst 990ms burst=1 sent=100 received=0")
			if trace.SpanFromContext(ctx).IsRecording() {
				t.Error("the opening span is still recording")
			}
			_ = conn.Send(new(int))
			time.Sleep(1900 * time.Millisecond) // within the same burst
			_ = conn.Send(new(int))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		spans := recorder.Ended()
		wantSpans(t, spans, "StreamUserActivities 3ms",
			"StreamUserActivities burst 990ms burst=1 sent=100 received=0",
			"StreamUserActivities burst 1.9s burst=2 sent=2 received=0",
			"StreamUserActivities end 0s OK age_seconds=3602.903 sent=102 received=1")
		if len(recorder.Started()) != len(spans) {
			t.Error("a span was not ended")
		}
		traces := map[trace.TraceID]bool{}
		for i, span := range spans {
			traces[span.SpanContext().TraceID()] = true
			if i > 0 && (len(span.Links()) != 1 || !span.Links()[0].SpanContext.Equal(opening)) {
				t.Errorf("%s has no link to the opening span", span.Name())
			}
		}
		if len(traces) != len(spans) {
			t.Errorf("%d spans in %d traces, want one trace for each", len(spans), len(traces))
		}
	})
}

func TestBusyStreamHasABurstEvery30Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracing, recorder := recording(false)
		_ = runStream(t, tracing, &quietConn{kind: connect.StreamTypeBidi, procedure: "/user.v1.UserService/SyncUserStatus"},
			func(_ context.Context, conn connect.StreamingHandlerConn) error {
				_ = conn.Send(nil)
				for range 70 {
					_ = conn.Receive(new(int))
					_ = conn.Send(new(int))
					time.Sleep(time.Second)
				}
				return connect.NewError(connect.CodeUnavailable, errors.New("draining"))
			})
		wantSpans(t, recorder.Ended(), "SyncUserStatus 0s",
			"SyncUserStatus burst 30s burst=1 sent=30 received=31",
			"SyncUserStatus burst 30s burst=2 sent=30 received=30",
			"SyncUserStatus burst 9s burst=3 sent=10 received=9",
			"SyncUserStatus end 0s UNAVAILABLE age_seconds=70 sent=70 received=70 failed")
	})
}

func TestRejectedStreamHasOnlyAnOpeningSpan(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{connect.NewError(connect.CodePermissionDenied, errors.New("no")), "StreamUserActivities 0s PERMISSION_DENIED"},
		{connect.NewError(connect.CodeInternal, errors.New("oh")), "StreamUserActivities 0s INTERNAL failed"},
		{nil, "StreamUserActivities 0s OK"},
	} {
		synctest.Test(t, func(t *testing.T) {
			tracing, recorder := recording(false)
			err := runStream(t, tracing, &quietConn{kind: connect.StreamTypeServer, fail: io.EOF},
				func(_ context.Context, conn connect.StreamingHandlerConn) error {
					_ = conn.Receive(nil)
					_ = conn.Send(nil) // fails too: nothing was sent
					return c.err
				})
			if !errors.Is(err, c.err) {
				t.Errorf("error = %v", err)
			}
			wantSpans(t, recorder.Ended(), c.want)
		})
	}
}

func TestPanicEndsSpans(t *testing.T) {
	tracing, recorder := recording(false)
	func() {
		defer func() { _ = recover() }()
		_ = runStream(t, tracing, &quietConn{kind: connect.StreamTypeServer}, func(context.Context, connect.StreamingHandlerConn) error {
			panic(http.ErrAbortHandler)
		})
	}()
	if len(recorder.Started()) != 1 || len(recorder.Ended()) != 1 {
		t.Errorf("%d spans started, %d ended", len(recorder.Started()), len(recorder.Ended()))
	}
}

func TestTrustRemoteOfStreams(t *testing.T) {
	for _, trust := range []bool{false, true} {
		tracing, recorder := recording(trust)
		_ = runStream(t, tracing, &quietConn{kind: connect.StreamTypeServer, request: http.Header{"Traceparent": {remoteSpan}}},
			func(context.Context, connect.StreamingHandlerConn) error { return nil })
		span := recorder.Ended()[0]
		joined := span.SpanContext().TraceID().String() == remoteTrace
		startLinked := len(span.Links()) == 1 && span.Links()[0].SpanContext.TraceID().String() == remoteTrace
		if joined != trust || startLinked == trust {
			t.Errorf("trust %v: joined %v, linked %v", trust, joined, startLinked)
		}
	}
}

// The store calls of a client stream are counted in its bursts.
func TestClientStreamHasBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracing, recorder := recording(false)
		_ = runStream(t, tracing, &quietConn{kind: connect.StreamTypeClient, procedure: "/user.v1.UserService/BatchCreateUsers"},
			func(ctx context.Context, conn connect.StreamingHandlerConn) error {
				time.Sleep(time.Second)
				for range 100 {
					_ = conn.Receive(new(int))
				}
				storeDid(ctx, 100)
				time.Sleep(time.Hour)
				synctest.Wait()
				wantSpans(t, recorder.Ended(), "BatchCreateUsers 1s", "BatchCreateUsers burst 0s burst=1 sent=0 received=100 calls=1 rows=100")
				storeDid(ctx, 7) // counted in the burst of the next message
				return conn.Send(new(int))
			})
		wantSpans(t, recorder.Ended(), "BatchCreateUsers 1s",
			"BatchCreateUsers burst 0s burst=1 sent=0 received=100 calls=1 rows=100",
			"BatchCreateUsers burst 0s burst=2 sent=1 received=0 calls=1 rows=7",
			"BatchCreateUsers end 0s OK age_seconds=3601 sent=1 received=100")
		if len(recorder.Started()) != len(recorder.Ended()) {
			t.Error("a span was not ended")
		}
	})
}

// storeDid reports a store call to the stream, as package traced does.
func storeDid(ctx context.Context, rows int) {
	if stream, ok := trace.SpanFromContext(ctx).(interface{ AddStoreCall(rows int) }); ok {
		stream.AddStoreCall(rows)
	}
}

func TestDeadlineOfAStreamIsNotAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracing, recorder := recording(false)
		_ = runStream(t, tracing, &quietConn{kind: connect.StreamTypeServer}, func(_ context.Context, conn connect.StreamingHandlerConn) error {
			_ = conn.Send(nil)
			return connect.NewError(connect.CodeDeadlineExceeded, errors.New("late"))
		})
		wantSpans(t, recorder.Ended(), "StreamUserActivities 0s", "StreamUserActivities end 0s DEADLINE_EXCEEDED age_seconds=0 sent=0 received=0")
	})
}

func BenchmarkTracedMessage(b *testing.B) {
	tracing, _ := recording(false, sdktrace.WithSampler(sdktrace.NeverSample()))
	message := new(int)
	_ = newStreamSpans(tracing, speaks).WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		b.ReportAllocs()
		for b.Loop() {
			_ = conn.Send(message)
		}
		return nil
	})(b.Context(), &quietConn{kind: connect.StreamTypeServer, request: http.Header{}})
}
