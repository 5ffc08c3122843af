package server

import (
	"context"
	"log/slog"
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

	// probeEvery is how often the store is probed, probeTimeout what a probe may
	// take.
	probeEvery   = 5 * time.Second
	probeTimeout = 3 * time.Second
)

// health is what the service says of itself. It implements grpchealth.Watcher.
type health struct {
	*grpchealth.StaticChecker // statuses, and who watches them

	head func() user.Head

	mu       sync.Mutex
	reads    bool
	writes   bool
	draining bool
	ended    bool
}

// newHealth returns the health of a server that has yet to be probed: it serves
// nothing.
func newHealth(head func() user.Head) *health {
	h := &health{
		StaticChecker: grpchealth.NewStaticChecker(healthReads, healthWrites),
		head:          head,
	}
	h.publish()
	return h
}

// Check answers with the present status; when the server is about to stop, with the
// error that ends a watch.
func (h *health) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	h.mu.Lock()
	ended := h.ended
	h.mu.Unlock()
	if ended {
		head := h.head()
		return nil, user.ErrDraining(head.Epoch, head.Position)
	}
	return h.StaticChecker.Check(ctx, req)
}

// set notes what the store can do, and reports whether that is news.
func (h *health) set(reads, writes bool) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = h.reads != reads || h.writes != writes
	h.reads, h.writes = reads, writes
	if news {
		h.publish()
	}
	return news
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

// ready reports whether calls should be sent here.
func (h *health) ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads && !h.draining
}

func (h *health) publish() {
	status := func(ok bool) grpchealth.Status {
		if ok && !h.draining {
			return grpchealth.StatusServing
		}
		return grpchealth.StatusNotServing
	}
	h.SetStatus(healthWhole, status(h.reads))
	h.SetStatus(healthReads, status(h.reads))
	h.SetStatus(healthWrites, status(h.reads && h.writes))
}

// prober finds out what the store can do.
type prober struct {
	store  user.Store
	health *health
	log    *slog.Logger
}

// run probes at once and then again and again, until the context ends.
func (p *prober) run(ctx context.Context) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		p.probe(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (p *prober) probe(ctx context.Context) {
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, readErr := p.store.First(probing)
	writeErr := p.store.Probe(probing)
	if ctx.Err() != nil {
		return // the server stops; that says nothing of the store
	}
	if !p.health.set(readErr == nil, writeErr == nil) {
		return
	}
	if readErr == nil && writeErr == nil {
		p.log.LogAttrs(ctx, slog.LevelInfo, "the store serves reads and writes")
		return
	}
	p.log.LogAttrs(ctx, slog.LevelError, "the store does not serve all",
		slog.Any("reads", readErr), slog.Any("writes", writeErr))
}
