package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// lastGrace is how long handlers get to return once their connections are closed.
	lastGrace = 5 * time.Second
	// hurry is the part of the time for the calls that a peer gets who takes nothing
	// of what is written to it: one in so many.
	hurry = 10
)

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
	steps := []step{
		{name: "say not ready", do: s.sayNotReady},
		{name: "wait for load balancers", do: s.waitForBalancers},
		{name: "tell the streams", do: s.tellStreams},
		{name: "finish the calls", do: s.finishCalls},
		{name: "close the admin port", do: s.closeAdmin},
		{name: "stop the background work", do: s.stopBackground},
		{name: "close the store", do: s.closeStore},
		{name: "export the last spans", do: s.exportSpans, minor: true},
	}
	began := time.Now()
	var failures error
	for _, step := range steps {
		stepBegan := time.Now()
		err := step.do(ctx)
		attrs := []slog.Attr{slog.String("step", step.name), slog.Duration("duration", time.Since(stepBegan))}
		level := slog.LevelInfo
		switch {
		case err == nil:
		case step.minor:
			level, attrs = slog.LevelWarn, append(attrs, slog.Any("error", err))
		default:
			level, attrs = slog.LevelError, append(attrs, slog.Any("error", err))
			failures = errors.Join(failures, fmt.Errorf("%s: %w", step.name, err))
		}
		s.log.LogAttrs(ctx, level, "stopping", attrs...)
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "stopped", slog.Duration("duration", time.Since(began)))
	return failures
}

func (s *Server) sayNotReady(context.Context) error {
	s.health.drain()
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
	s.guard.Hurry(s.cfg.ShutdownTimeout / hurry)
	return nil
}

// finishCalls gives the calls their time and then ends them.
func (s *Server) finishCalls(ctx context.Context) error {
	patient, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	late := s.public.server.Shutdown(patient)
	if late != nil {
		late = fmt.Errorf("calls that did not end in %v were ended: %w", s.cfg.ShutdownTimeout, late)
		_ = s.public.server.Close() // the connections are gone either way
	}
	// Shutdown knows of connections, not of handlers; the store must outlive them.
	ending, cancelEnding := context.WithTimeout(ctx, lastGrace)
	defer cancelEnding()
	if err := s.guard.WaitIdle(ending); err != nil {
		late = errors.Join(late, fmt.Errorf("handlers still run: %w", err))
	}
	s.guard.Close()
	return late
}

func (s *Server) closeAdmin(context.Context) error {
	if s.admin.server == nil {
		return nil
	}
	return s.admin.server.Close()
}

func (s *Server) stopBackground(context.Context) error {
	s.stop()
	s.background.Wait()
	return nil
}

func (s *Server) closeStore(context.Context) error { return s.store.Close() }
