package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
)

const (
	// sampleEvery is how often a call of each procedure that went well and fast is
	// logged.
	sampleEvery = time.Second
	// spansTimeout bounds the export of the last spans, which nobody may wait for.
	spansTimeout = 5 * time.Second
	// headTimeout bounds what a scrape waits for the store.
	headTimeout = time.Second
)

// observers are the interceptors that only watch.
type observers struct {
	traces  []connect.Interceptor
	calls   *intercept.Metrics
	log     *intercept.Log
	reasons *intercept.Reasons
}

func newObservers(log *slog.Logger, metrics *telemetry.Metrics, tracing *telemetry.Tracing) (o observers, err error) {
	var failures [3]error
	o.traces, failures[0] = tracing.Interceptors()
	o.calls, failures[1] = intercept.NewMetrics(metrics.Registry())
	o.reasons, failures[2] = intercept.NewReasons(metrics.Registry())
	o.log = intercept.NewLog(log, intercept.NewSampler(sampleEvery))
	if err := errors.Join(failures[:]...); err != nil {
		return o, fmt.Errorf("observe the calls: %w", err)
	}
	return o, nil
}

// watch registers what metrics ask of the server's parts.
func (s *Server) watch(storage Storage) error {
	return s.metrics.Watch(telemetry.Sources{
		StoreHead:      s.storeHead,
		FeedHead:       func() (int64, time.Time) { head := s.feed.Head(); return head.Position, head.Time },
		StoreBytes:     storage.Bytes,
		WALBytes:       storage.LogBytes,
		StoreReadOnly:  storage.ReadOnly,
		ServesReads:    s.health.servesReads,
		ServesWrites:   s.health.servesWrites,
		Draining:       s.health.isDraining,
		StalledReaders: s.guard.Stalls,
		LateBodies:     s.guard.LateBodies,
		LostSpans:      s.tracing.Lost,
	})
}

// storeHead gives zero where the store does not answer: that it does not is what
// health says.
func (s *Server) storeHead() (int64, time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), headTimeout)
	defer cancel()
	head, err := s.store.Head(ctx)
	if err != nil {
		return 0, time.Time{}
	}
	return head.Position, head.Time
}

// exportSpans ends tracing.
func (s *Server) exportSpans(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, spansTimeout)
	defer cancel()
	return s.tracing.Shutdown(bounded)
}

// note is what is known of a request that never becomes a call.
type note struct{ refused *auth.RefusedError }

type noteKey struct{}

// requestContext is the context of a request. Its parts tell each other through it: the
// interceptors say that they have seen the request, and can end the reading of its
// body; a stream says when it is to be flushed; what refuses a caller says why.
func requestContext(ctx context.Context, x *transport.Exchange) context.Context {
	ctx = context.WithValue(ctx, noteKey{}, new(note))
	ctx = intercept.WithBody(intercept.WithSeen(ctx, new(intercept.Seen)), x)
	return withFlusher(ctx, x)
}

// noteRefusal counts refused credentials and notes why, for the line of the request.
func noteRefusal(metrics *telemetry.Metrics) func(*http.Request, *auth.RefusedError) {
	return func(r *http.Request, refused *auth.RefusedError) {
		metrics.AuthRefused(string(refused.Cause))
		if n, ok := r.Context().Value(noteKey{}).(*note); ok {
			n.refused = refused
		}
	}
}

// requestDone is told of every request when its handler has returned.
func requestDone(log *slog.Logger, metrics *telemetry.Metrics) func(*http.Request, *transport.Exchange) {
	return func(r *http.Request, x *transport.Exchange) {
		seen := intercept.IsSeen(r.Context())
		metrics.HTTPDone(r, x.Status(), x.Header(), seen)
		if !seen {
			logUnseen(log, r, x)
		}
	}
}

// logUnseen logs a request that no interceptor has seen: an unknown path, a wrong
// method, a message that cannot be decoded, a caller who was refused.
func logUnseen(log *slog.Logger, r *http.Request, x *transport.Exchange) {
	ctx := r.Context()
	status, level := x.Status(), slog.LevelDebug
	code := x.Header().Get(http.TrailerPrefix + "Grpc-Status")
	n, _ := ctx.Value(noteKey{}).(*note)
	refused := n != nil && n.refused != nil
	switch {
	case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
		// Refused by a limit, which counts and says so itself: a line each would
		// make a flood of calls a flood of lines.
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	case status >= http.StatusBadRequest, code != "" && code != "0", refused:
		level = slog.LevelInfo
	}
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.String("protocol", r.Proto), slog.Int("status", status),
		slog.Duration("duration", time.Since(x.Born())), slog.String("peer", r.RemoteAddr),
	}
	if code != "" {
		attrs = append(attrs, slog.String("grpc_status", code))
	}
	if refused {
		attrs = append(attrs, slog.String("refused", string(n.refused.Cause)))
		if n.refused.Detail != nil {
			attrs = append(attrs, slog.Any("error", n.refused.Detail))
		}
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}
