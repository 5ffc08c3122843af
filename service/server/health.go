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
	// healthWhole and healthReads say whether calls are served, reads at least;
	// healthWrites whether writes are.
	healthWhole  = ""
	healthReads  = userv1connect.UserServiceName
	healthWrites = userv1connect.UserServiceName + ".Write"

	// probeEvery is how often the store is probed, and probeAgain while it does not
	// serve all, so that callers soon hear that it does again; probeTimeout is what a
	// probe may take.
	probeEvery   = 5 * time.Second
	probeAgain   = time.Second
	probeTimeout = 3 * time.Second
)

// health is what the service says of itself. It implements grpchealth.Checker, and serves
// watches itself, see watch.
type health struct {
	*grpchealth.StaticChecker // statuses, and who watches them

	head func() user.Head

	mu       sync.Mutex
	reads    error // why reads are not served, nil if they are
	writes   error // the same for writes
	draining bool
	ended    bool
}

var errUnknown = errors.New("the store has not been asked yet")

// newHealth returns the health of a server that has yet to be probed: it serves
// nothing.
func newHealth(head func() user.Head) *health {
	h := &health{
		StaticChecker: grpchealth.NewStaticChecker(healthReads, healthWrites),
		head:          head,
		reads:         errUnknown,
		writes:        errUnknown,
	}
	h.publish()
	return h
}

// set notes why the store does not serve reads and writes, nil where it does, and
// reports whether that is news.
func (h *health) set(reads, writes error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = !sameText(h.reads, reads) || !sameText(h.writes, writes)
	changed := (h.reads == nil) != (reads == nil) || (h.writes == nil) != (writes == nil)
	h.reads, h.writes = reads, writes
	if changed {
		h.publish()
	}
	return news
}

func sameText(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}

// drain says from now on that nothing is served.
func (h *health) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	h.publish()
}

// endWatches ends the streams that watch. Nobody else would: they have no end.
func (h *health) endWatches() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	for _, name := range []string{healthWhole, healthReads, healthWrites} {
		h.SetStatus(name, grpchealth.StatusNotServing) // wakes them, and they check
	}
}

// ready reports whether calls should be sent here, and what is not served and why; it
// is empty if all is.
func (h *health) ready() (ok bool, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var faults []string
	if h.draining {
		faults = append(faults, "the server is about to stop")
	}
	if h.reads != nil {
		faults = append(faults, "reads: "+h.reads.Error())
	}
	if h.writes != nil {
		faults = append(faults, "writes: "+h.writes.Error())
	}
	return h.reads == nil && !h.draining, strings.Join(faults, "\n")
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
	h.SetStatus(healthWhole, status(h.reads == nil))
	h.SetStatus(healthReads, status(h.reads == nil))
	h.SetStatus(healthWrites, status(h.reads == nil && h.writes == nil))
}

// prober finds out what the store can do.
type prober struct {
	store   user.Store
	trouble <-chan struct{} // says that writes have begun to fail; nil: nobody does
	health  *health
	log     *slog.Logger
	// integrity returns why the store must not be reported ready; nil: it is not known.
	integrity func() error

	reads, writes question
}

// run probes at once and then again and again, and as soon as there is trouble, until
// the context ends.
func (p *prober) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.trouble:
			if !p.health.servesWrites() {
				continue // that is known, and asked again in a moment
			}
		}
		if p.probe(ctx) {
			timer.Reset(probeEvery)
		} else {
			timer.Reset(probeAgain)
		}
	}
}

// probe asks the store once, and reports whether it serves all.
func (p *prober) probe(ctx context.Context) bool {
	probing, cancel := context.WithTimeoutCause(ctx, probeTimeout, errProbeLate)
	defer cancel()
	p.reads.put(probing, caught(p.log, "the probe of reads", func(ctx context.Context) error {
		_, err := p.store.First(ctx)
		return err
	}))
	p.writes.put(probing, caught(p.log, "the probe of writes", p.store.Probe))
	readErr, writeErr := p.reads.wait(probing), p.writes.wait(probing)
	if ctx.Err() != nil {
		return false // the server stops; that says nothing of the store
	}
	if p.integrity != nil {
		if err := p.integrity(); err != nil {
			readErr, writeErr = err, err
		}
	}
	all := readErr == nil && writeErr == nil
	switch news := p.health.set(readErr, writeErr); {
	case !news:
	case all:
		p.log.LogAttrs(ctx, slog.LevelInfo, "the store serves reads and writes")
	default:
		p.log.LogAttrs(ctx, slog.LevelError, "the store does not serve all",
			slog.Any("reads", readErr), slog.Any("writes", writeErr))
	}
	return all
}

var errProbeLate = fmt.Errorf("no answer within %v", probeTimeout)

// question is what the store is asked again and again. Nobody waits for its answer
// longer than the context lasts, whatever the store does with that: health must not
// fall silent where the disk does.
type question struct {
	answer chan error // nil: nothing has been asked that is open still
}

// put asks, unless the store owes the answer to the time before.
func (q *question) put(ctx context.Context, ask func(context.Context) error) {
	if len(q.answer) > 0 {
		q.answer = nil // it came too late, and says nothing of now
	}
	if q.answer == nil {
		answer := make(chan error, 1)
		q.answer = answer
		go func() { answer <- ask(ctx) }()
	}
}

func (q *question) wait(ctx context.Context) error {
	select {
	case err := <-q.answer:
		q.answer = nil
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
