// Package health is the health of the service, of reads and of writes. It follows probes of the store.
package health

import (
	"errors"
	"strings"
	"sync"

	"connectrpc.com/grpchealth"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// Services whose status can be checked. Server and Reads are SERVING while reads work, Writes while
// writes work too.
const (
	Server = ""
	Reads  = userv1connect.UserServiceName
	Writes = userv1connect.UserServiceName + ".Write"
)

// Health is the health of the service. It implements grpchealth.Checker; WatchHandler serves Watch.
type Health struct {
	*grpchealth.StaticChecker // statuses and their watchers

	head func() user.Head

	mu     sync.Mutex
	reads  error // why reads fail; nil: they work
	writes error // the same for writes
	drains bool
	ended  bool // watches end
}

var errNotProbed = errors.New("store not probed yet")

// New returns the health before the first probe: NOT_SERVING.
func New(head func() user.Head) *Health {
	h := &Health{
		StaticChecker: grpchealth.NewStaticChecker(Reads, Writes),
		head:          head,
		reads:         errNotProbed,
		writes:        errNotProbed,
	}
	h.publish()
	return h
}

// set records the errors of reads and writes, and reports whether they changed.
func (h *Health) set(reads, writes error) (changed bool) {
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

// Drain makes all statuses NOT_SERVING.
func (h *Health) Drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drains = true
	h.publish()
}

// EndWatches ends all Watch streams.
func (h *Health) EndWatches() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	for _, name := range []string{Server, Reads, Writes} {
		h.SetStatus(name, grpchealth.StatusNotServing) // wakes the watchers
	}
}

// Ready reports readiness, and the reasons why reads or writes fail, one a line.
func (h *Health) Ready() (ok bool, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var reasons []string
	if h.drains {
		reasons = append(reasons, "server shutting down")
	}
	if h.reads != nil {
		reasons = append(reasons, "reads: "+h.reads.Error())
	}
	if h.writes != nil {
		reasons = append(reasons, "writes: "+h.writes.Error())
	}
	return h.reads == nil && !h.drains, strings.Join(reasons, "\n")
}

// ServesReads reports whether reads work.
func (h *Health) ServesReads() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads == nil
}

// ServesWrites reports whether reads and writes work.
func (h *Health) ServesWrites() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads == nil && h.writes == nil
}

// Draining reports whether Drain was called.
func (h *Health) Draining() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drains
}

func (h *Health) publish() {
	status := func(ok bool) grpchealth.Status {
		if ok && !h.drains {
			return grpchealth.StatusServing
		}
		return grpchealth.StatusNotServing
	}
	h.SetStatus(Server, status(h.reads == nil))
	h.SetStatus(Reads, status(h.reads == nil))
	h.SetStatus(Writes, status(h.reads == nil && h.writes == nil))
}
