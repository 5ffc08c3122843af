package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/yourorg/userservice/service/user"
)

const (
	// graceDivisor defines the grace period at the end of a shutdown, as a part of its timeout. It is
	// the stall timeout of streams and bodies during the shutdown, and the time between the
	// cancellation of calls and the end.
	graceDivisor = 10
	// maxHTTP1Linger bounds how long HTTP/1.1 connections are still served after the listener is closed.
	maxHTTP1Linger = 500 * time.Millisecond
	// minShutdownTime is the minimum time for the whole shutdown, even if the timeout of calls is
	// shorter: the steps after the calls need some time.
	minShutdownTime = time.Second
)

// schedule has the deadlines of the steps of a shutdown.
type schedule struct {
	cancelCalls time.Time // contexts of in-flight calls are canceled
	closeConns  time.Time // connections are closed
	handlers    time.Time // end of the wait for handlers
	end         time.Time // end of all steps
}

func newSchedule(from time.Time, timeout time.Duration) schedule {
	end := from.Add(max(timeout, minShutdownTime))
	closeConns := from.Add(timeout - timeout/graceDivisor/2)
	return schedule{
		cancelCalls: from.Add(timeout - timeout/graceDivisor), closeConns: closeConns,
		handlers: closeConns.Add(end.Sub(closeConns) / 2), end: end,
	}
}

// step is one step of the shutdown.
type step struct {
	name string
	do   func(context.Context) error
	// optional steps may fail without failing the shutdown.
	optional bool
}

// drain shuts the server down. The order matters: load balancers stop sending requests, streams are
// ended, in-flight calls finish, and then the store is closed.
func (s *Server) drain(ctx context.Context) error {
	start := time.Now()
	s.log.LogAttrs(ctx, slog.LevelInfo, "shutting down",
		slog.Duration("drain_wait", s.cfg.DrainWait), slog.Duration("timeout", s.cfg.ShutdownTimeout))
	times := newSchedule(start.Add(s.cfg.DrainWait), s.cfg.ShutdownTimeout)
	ctx, cancel := context.WithDeadline(ctx, times.end)
	defer cancel()
	steps := []step{
		{name: "mark not ready", do: s.markNotReady},
		{name: "wait for load balancers", do: s.waitForBalancers},
		{name: "end streams", do: s.endStreams},
		{name: "stop accepting", do: s.stopAccepting},
		{name: "wait for in-flight calls", do: func(ctx context.Context) error { return s.finishCalls(ctx, times) }},
		{name: "close admin listener", do: s.closeAdmin},
		{name: "stop background work", do: s.stopBackground},
		{name: "close store", do: s.closeStore},
		{name: "flush spans", do: s.flushSpans, optional: true},
	}
	var failures error
	for _, step := range steps {
		stepStart := time.Now()
		err := step.do(ctx)
		attrs := []slog.Attr{slog.String("step", step.name), slog.Duration("duration", time.Since(stepStart))}
		if err == nil {
			s.log.LogAttrs(ctx, slog.LevelDebug, "shutdown step", attrs...)
			continue
		}
		level := slog.LevelWarn
		if !step.optional {
			level = slog.LevelError
			failures = errors.Join(failures, fmt.Errorf("%s: %w", step.name, err))
		}
		s.log.LogAttrs(ctx, level, "shutdown step failed", append(attrs, slog.Any("error", err))...)
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "shutdown complete", slog.Duration("duration", time.Since(start)))
	return failures
}

func (s *Server) markNotReady(context.Context) error {
	s.health.Drain()
	s.guard.DisableKeepAlives()
	return nil
}

func (s *Server) waitForBalancers(ctx context.Context) error {
	if s.cfg.DrainWait <= 0 {
		return nil
	}
	select {
	case <-time.After(s.cfg.DrainWait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) endStreams(context.Context) error {
	s.feed.Drain()
	s.health.EndWatches()
	s.guard.StopStreams() // handlers blocked in Receive cannot be notified otherwise
	// A handler blocked in a write cannot be notified. Its client can resume after the last row it
	// received.
	s.guard.ShortenTimeouts(s.cfg.ShutdownTimeout / graceDivisor)
	return nil
}

// stopAccepting closes the listener and serves existing HTTP/1.1 connections a little longer, because
// net/http drops HTTP/1.1 requests that it reads after Shutdown.
func (s *Server) stopAccepting(ctx context.Context) error {
	err := s.public.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // the listener failed before, which caused the shutdown
	}
	linger, cancel := context.WithTimeout(ctx, min(maxHTTP1Linger, s.cfg.ShutdownTimeout/graceDivisor))
	defer cancel()
	s.connections.Drain(linger)
	return err
}

// finishCalls waits for in-flight calls, then cancels their contexts, and then closes their connections.
func (s *Server) finishCalls(ctx context.Context, times schedule) error {
	cancelCalls := time.AfterFunc(time.Until(times.cancelCalls), func() {
		head := s.feed.Head()
		s.endCalls(user.NewDrainedCallError(head.Epoch, head.Position))
	})
	shutdown, cancel := context.WithDeadline(ctx, times.closeConns)
	defer cancel()
	err := s.public.server.Shutdown(shutdown)
	if errors.Is(err, net.ErrClosed) {
		err = nil // the listener was closed before
	}
	if err != nil {
		_ = s.public.server.Close() // closes the connections; its error does not matter
	}
	if !cancelCalls.Stop() || err != nil {
		err = errors.Join(fmt.Errorf("calls aborted after %v", s.cfg.ShutdownTimeout), err)
	}
	// Shutdown waits for connections, not for handlers. Handlers use the store.
	handlers, cancelHandlers := context.WithDeadline(ctx, times.handlers)
	defer cancelHandlers()
	if idleErr := s.guard.WaitIdle(handlers); idleErr != nil {
		err = errors.Join(err, fmt.Errorf("handlers still running: %w", idleErr))
	}
	s.endCalls(nil)
	s.guard.Close()
	return err
}

func (s *Server) closeAdmin(context.Context) error {
	if s.admin.server == nil {
		return nil
	}
	return s.admin.server.Close()
}

func (s *Server) stopBackground(ctx context.Context) error {
	s.stop()
	return doUntil(ctx, func() error {
		s.background.Wait()
		return nil
	})
}

// closeStore abandons a close that does not return. Acknowledged writes are synced.
func (s *Server) closeStore(ctx context.Context) error { return doUntil(ctx, s.store.Close) }

// doUntil calls do and waits until ctx is done at most. do then continues in the background.
func doUntil(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("abandoned after timeout: %w", ctx.Err())
	}
}
