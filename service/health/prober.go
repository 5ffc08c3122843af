package health

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/user"
)

const (
	probeInterval      = 5 * time.Second
	probeRetryInterval = time.Second // while reads or writes fail
	probeTimeout       = 3 * time.Second
)

// Prober probes the store periodically and updates the health.
type Prober struct {
	Store         user.Store
	WriteFailures <-chan struct{} // receives when writes begin to fail; may be nil
	Health        *Health
	Log           *slog.Logger
	Integrity     func() error // returns why the store must not be reported ready; may be nil

	reads, writes pendingProbe
}

// Run probes at once, at intervals, and when writes begin to fail, until ctx is done.
func (p *Prober) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.WriteFailures:
			if !p.Health.ServesWrites() {
				continue // known already
			}
		}
		if p.Probe(ctx) {
			timer.Reset(probeInterval)
		} else {
			timer.Reset(probeRetryInterval)
		}
	}
}

// Probe probes the store once, and reports whether reads and writes work.
func (p *Prober) Probe(ctx context.Context) bool {
	probing, cancel := context.WithTimeoutCause(ctx, probeTimeout, errProbeTimeout)
	defer cancel()
	p.reads.start(probing, panics.Task(p.Log, "read probe", func(ctx context.Context) error {
		_, err := p.Store.Log(ctx, user.LogQuery{Retained: true, MaxRows: 1})
		return err
	}))
	p.writes.start(probing, panics.Task(p.Log, "write probe", p.Store.Probe))
	readErr, writeErr := p.reads.wait(probing), p.writes.wait(probing)
	if ctx.Err() != nil {
		return false // shutdown: the errors do not concern the store
	}
	if p.Integrity != nil {
		if err := p.Integrity(); err != nil {
			readErr, writeErr = err, err
		}
	}
	ok := readErr == nil && writeErr == nil
	switch changed := p.Health.set(readErr, writeErr); {
	case !changed:
	case ok:
		p.Log.LogAttrs(ctx, slog.LevelInfo, "store ready")
	default:
		p.Log.LogAttrs(ctx, slog.LevelError, "store failing",
			slog.Any("reads", readErr), slog.Any("writes", writeErr))
	}
	return ok
}

var errProbeTimeout = fmt.Errorf("probe timed out after %v", probeTimeout)

// pendingProbe is a probe of the store that may ignore its context, for example while the disk hangs.
// At most one is in progress.
type pendingProbe struct {
	result chan error // nil: none is in progress
}

// start starts the probe unless the previous one is still in progress.
func (p *pendingProbe) start(ctx context.Context, probe func(context.Context) error) {
	if len(p.result) > 0 {
		p.result = nil // stale: the previous probe ended after its timeout
	}
	if p.result == nil {
		result := make(chan error, 1)
		p.result = result
		go func() { result <- probe(ctx) }()
	}
}

// wait returns the result, or the cause of ctx when that is done before.
func (p *pendingProbe) wait(ctx context.Context) error {
	select {
	case err := <-p.result:
		p.result = nil
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
