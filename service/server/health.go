package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"connectrpc.com/grpchealth"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

const (
	// healthServer and healthReads are SERVING while reads work, healthWrites while writes work too.
	healthServer = ""
	healthReads  = userv1connect.UserServiceName
	healthWrites = userv1connect.UserServiceName + ".Write"

	probeInterval      = 5 * time.Second
	probeRetryInterval = time.Second // while reads or writes fail
	probeTimeout       = 3 * time.Second
)

// health is the health of the service. It implements grpchealth.Checker; watchHandler serves Watch.
type health struct {
	*grpchealth.StaticChecker // statuses and their watchers

	head func() user.Head

	mu       sync.Mutex
	reads    error // why reads fail; nil: they work
	writes   error // the same for writes
	draining bool
	ended    bool // watches end
}

var errNotProbed = errors.New("store not probed yet")

// newHealth returns the health before the first probe: NOT_SERVING.
func newHealth(head func() user.Head) *health {
	h := &health{
		StaticChecker: grpchealth.NewStaticChecker(healthReads, healthWrites),
		head:          head,
		reads:         errNotProbed,
		writes:        errNotProbed,
	}
	h.publish()
	return h
}

// set records the errors of reads and writes, and reports whether they changed.
func (h *health) set(reads, writes error) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = !sameText(h.reads, reads) || !sameText(h.writes, writes)
	statusChanged := (h.reads == nil) != (reads == nil) || (h.writes == nil) != (writes == nil)
	h.reads, h.writes = reads, writes
	if statusChanged {
		h.publish()
	}
	return changed
}

func sameText(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}

// drain makes all statuses NOT_SERVING.
func (h *health) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	h.publish()
}

// endWatches ends all Watch streams.
func (h *health) endWatches() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	for _, name := range []string{healthServer, healthReads, healthWrites} {
		h.SetStatus(name, grpchealth.StatusNotServing) // wakes the watchers
	}
}

// ready reports readiness, and the reasons why reads or writes fail, one a line.
func (h *health) ready() (ok bool, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var reasons []string
	if h.draining {
		reasons = append(reasons, "server shutting down")
	}
	if h.reads != nil {
		reasons = append(reasons, "reads: "+h.reads.Error())
	}
	if h.writes != nil {
		reasons = append(reasons, "writes: "+h.writes.Error())
	}
	return h.reads == nil && !h.draining, strings.Join(reasons, "\n")
}

func (h *health) servesReads() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads == nil
}

func (h *health) servesWrites() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads == nil && h.writes == nil
}

func (h *health) isDraining() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.draining
}

func (h *health) publish() {
	status := func(ok bool) grpchealth.Status {
		if ok && !h.draining {
			return grpchealth.StatusServing
		}
		return grpchealth.StatusNotServing
	}
	h.SetStatus(healthServer, status(h.reads == nil))
	h.SetStatus(healthReads, status(h.reads == nil))
	h.SetStatus(healthWrites, status(h.reads == nil && h.writes == nil))
}

// prober probes the store periodically and updates the health.
type prober struct {
	store         user.Store
	writeFailures <-chan struct{} // receives when writes begin to fail; may be nil
	health        *health
	log           *slog.Logger
	integrity     func() error // returns why the store must not be reported ready; may be nil

	reads, writes pendingProbe
}

// run probes at once, at intervals, and when writes begin to fail, until ctx is done.
func (p *prober) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.writeFailures:
			if !p.health.servesWrites() {
				continue // known already
			}
		}
		if p.probe(ctx) {
			timer.Reset(probeInterval)
		} else {
			timer.Reset(probeRetryInterval)
		}
	}
}

// probe probes the store once, and reports whether reads and writes work.
func (p *prober) probe(ctx context.Context) bool {
	probing, cancel := context.WithTimeoutCause(ctx, probeTimeout, errProbeTimeout)
	defer cancel()
	p.reads.start(probing, recoverTask(p.log, "read probe", func(ctx context.Context) error {
		_, err := p.store.First(ctx)
		return err
	}))
	p.writes.start(probing, recoverTask(p.log, "write probe", p.store.Probe))
	readErr, writeErr := p.reads.wait(probing), p.writes.wait(probing)
	if ctx.Err() != nil {
		return false // shutdown: the errors do not concern the store
	}
	if p.integrity != nil {
		if err := p.integrity(); err != nil {
			readErr, writeErr = err, err
		}
	}
	ok := readErr == nil && writeErr == nil
	switch changed := p.health.set(readErr, writeErr); {
	case !changed:
	case ok:
		p.log.LogAttrs(ctx, slog.LevelInfo, "store ready")
	default:
		p.log.LogAttrs(ctx, slog.LevelError, "store failing",
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
