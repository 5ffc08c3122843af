package server

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
)

const (
	// sampleInterval is the interval at which a successful call of each procedure is logged.
	sampleInterval = time.Second

	flushSpanTimeout = 5 * time.Second
	headTimeout      = time.Second // of the store, during a scrape
)

// observers are the interceptors for traces, metrics and logs.
type observers struct {
	traces []connect.Interceptor
	calls  *intercept.Observer
}

func (s *Server) newObservers() (o observers, err error) {
	if o.traces, err = s.tracing.Interceptors(intercept.Protocol); err != nil {
		return o, err
	}
	s.observer, err = intercept.NewObserver(intercept.ObserverOptions{
		Logger: s.log, Registry: s.metrics.Registry(), Interval: sampleInterval,
		CountRequest: s.metrics.HTTPDone, Procedures: procedures(s.services),
	})
	if err != nil {
		return o, fmt.Errorf("register call metrics: %w", err)
	}
	o.calls = s.observer
	return o, nil
}

// registerSources registers the metrics that are read from components of the server.
func (s *Server) registerSources(storage Storage) error {
	var jumps func() (forward, backward int64)
	var confirmed func() bool
	if storage.Clock != nil {
		jumps = func() (int64, int64) { c := storage.Clock(); return c.Forward, c.Backward }
		confirmed = func() bool { return storage.Clock().Unconfirmed == "" }
	}
	return s.metrics.RegisterSources(telemetry.Sources{
		StoreHead:      s.storeHead,
		StoreFirst:     s.storeFirst,
		FeedHead:       func() (int64, time.Time) { head := s.feed.Head(); return head.Position, head.Time },
		StreamLag:      s.feed.Lag,
		StoreBytes:     storage.Bytes,
		WALBytes:       storage.LogBytes,
		ClockJumps:     jumps,
		ClockConfirmed: confirmed,
		StoreReadOnly:  storage.ReadOnly,
		ServesReads:    s.health.ServesReads,
		ServesWrites:   s.health.ServesWrites,
		Draining:       s.health.Draining,
		StalledStreams: s.guard.StalledWrites,
		BodyTimeouts:   s.guard.BodyTimeouts,
		Slots:          s.limits.Scheduler().Stats,
		DroppedSpans:   s.tracing.Dropped,
	})
}

// storeHead reads the head of the store. Its failures are reported by health.
func (s *Server) storeHead() (position int64, at time.Time, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), headTimeout)
	defer cancel()
	head, err := s.store.Head(ctx)
	return head.Position, head.Time, err == nil
}

func (s *Server) storeFirst() (position int64, ok bool) {
	first, err := s.store.First(context.Background())
	return first, err == nil
}

func (s *Server) flushSpans(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, flushSpanTimeout)
	defer cancel()
	return s.tracing.Shutdown(bounded)
}
