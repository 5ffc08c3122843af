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
	// hurry is the part of the time of a drain for which a peer is waited for who neither
	// takes nor brings anything, and the part that is left when the calls are told that
	// they end: one in so many.
	hurry = 10
	// longestMoment bounds the moment in which connections of HTTP/1.1 may still bring a
	// request.
	longestMoment = 500 * time.Millisecond
	// leastTime is what the whole of a drain gets at least, however soon the calls are to
	// end: what follows them is fast, but not done in no time.
	leastTime = time.Second
)

// schedule is when the parts of a drain end. All together take no longer than they may.
type schedule struct {
	told   time.Time // calls that still go on are told that they end
	cut    time.Time // their connections are closed
	waited time.Time // their handlers are waited for no more
	end    time.Time // whatever still goes on is left to the end of the process
}

func newSchedule(from time.Time, patience time.Duration) schedule {
	end := from.Add(max(patience, leastTime))
	cut := from.Add(patience - patience/hurry/2)
	return schedule{told: from.Add(patience - patience/hurry), cut: cut, waited: cut.Add(end.Sub(cut) / 2), end: end}
}

// step is one step of the way down.
type step struct {
	name string
	do   func(context.Context) error
	// minor: if it fails nothing of the service's own is lost, and the stop is still a
	// good one.
	minor bool
}

// drain stops the server. The order carries meaning: first nobody new is sent here,
// then those who would stay for ever are told to go, then the rest gets its time, and
// only when nobody is left does the store close.
func (s *Server) drain(ctx context.Context) error {
	began := time.Now()
	s.log.LogAttrs(ctx, slog.LevelInfo, "shutting down",
		slog.Duration("drain_wait", s.cfg.DrainWait), slog.Duration("timeout", s.cfg.ShutdownTimeout))
	times := newSchedule(began.Add(s.cfg.DrainWait), s.cfg.ShutdownTimeout)
	ctx, cancel := context.WithDeadline(ctx, times.end)
	defer cancel()
	steps := []step{
		{name: "say not ready", do: s.sayNotReady},
		{name: "wait for load balancers", do: s.waitForBalancers},
		{name: "tell the streams", do: s.tellStreams},
		{name: "let nobody new in", do: s.letNobodyIn},
		{name: "finish the calls", do: func(ctx context.Context) error { return s.finishCalls(ctx, times) }},
		{name: "close the admin port", do: s.closeAdmin},
		{name: "stop the background work", do: s.stopBackground},
		{name: "close the store", do: s.closeStore},
		{name: "export the last spans", do: s.exportSpans, minor: true},
	}
	var failures error
	for _, step := range steps {
		stepBegan := time.Now()
		err := step.do(ctx)
		attrs := []slog.Attr{slog.String("step", step.name), slog.Duration("duration", time.Since(stepBegan))}
		if err == nil {
			s.log.LogAttrs(ctx, slog.LevelDebug, "shutdown step", attrs...)
			continue
		}
		level := slog.LevelWarn
		if !step.minor {
			level = slog.LevelError
			failures = errors.Join(failures, fmt.Errorf("%s: %w", step.name, err))
		}
		s.log.LogAttrs(ctx, level, "shutdown step failed", append(attrs, slog.Any("error", err))...)
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "shutdown complete", slog.Duration("duration", time.Since(began)))
	return failures
}

func (s *Server) sayNotReady(context.Context) error {
	s.health.drain()
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

func (s *Server) tellStreams(context.Context) error {
	s.feed.Drain()
	s.health.endWatches()
	s.guard.StopStreams() // those who listen to their callers hear of it in no other way
	// A stream that is blocked in a write hears nothing. Its reader has taken nothing
	// for a while already, and goes on elsewhere after the last row that it has.
	s.guard.ShortenTimeouts(s.cfg.ShutdownTimeout / hurry)
	return nil
}

// letNobodyIn refuses new connections, and serves those that there are for a moment:
// net/http drops a request of HTTP/1.1 that it reads once it is shut down.
func (s *Server) letNobodyIn(ctx context.Context) error {
	err := s.public.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // the port has failed, and that is why the server stops
	}
	moment, cancel := context.WithTimeout(ctx, min(longestMoment, s.cfg.ShutdownTimeout/hurry))
	defer cancel()
	s.connections.Drain(moment)
	return err
}

// finishCalls gives the calls their time, then tells them that they end, and then ends
// them.
func (s *Server) finishCalls(ctx context.Context, times schedule) error {
	tell := time.AfterFunc(time.Until(times.told), func() {
		head := s.feed.Head()
		s.endCalls(user.NewDrainedCallError(head.Epoch, head.Position))
	})
	patient, cancel := context.WithDeadline(ctx, times.cut)
	defer cancel()
	late := s.public.server.Shutdown(patient)
	if errors.Is(late, net.ErrClosed) {
		late = nil // all went well, and the port had been closed before
	}
	if late != nil {
		_ = s.public.server.Close() // the connections are gone either way
	}
	if !tell.Stop() || late != nil {
		late = errors.Join(fmt.Errorf("calls that did not end in %v were ended", s.cfg.ShutdownTimeout), late)
	}
	// Shutdown knows of connections, not of handlers; the store must outlive them.
	ending, cancelEnding := context.WithDeadline(ctx, times.waited)
	defer cancelEnding()
	if err := s.guard.WaitIdle(ending); err != nil {
		late = errors.Join(late, fmt.Errorf("handlers still run: %w", err))
	}
	s.endCalls(nil)
	s.guard.Close()
	return late
}

func (s *Server) closeAdmin(context.Context) error {
	if s.admin.server == nil {
		return nil
	}
	return s.admin.server.Close()
}

func (s *Server) stopBackground(ctx context.Context) error {
	s.stop()
	return whileTime(ctx, func() error {
		s.background.Wait()
		return nil
	})
}

// closeStore leaves a store that does not close to the end of the process: all that was
// acknowledged is synced, and is read back at the next start.
func (s *Server) closeStore(ctx context.Context) error { return whileTime(ctx, s.store.Close) }

// whileTime waits for what cannot be told to hurry, to the context's end at most. It goes
// on then by itself.
func whileTime(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("left undone when the time was over: %w", ctx.Err())
	}
}
