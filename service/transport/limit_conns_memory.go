package transport

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/http2"
)

const (
	// sweepConns is the interval of sweeps over connections, acceptRetry the interval of memory
	// checks while accepting is paused.
	sweepConns  = 50 * time.Millisecond
	acceptRetry = 20 * time.Millisecond
	// noProgress is how long a connection must be without progress before it can be evicted. A new
	// connection has that time for its first request.
	noProgress = time.Second
	// evictSample is the number of connections examined per eviction. Go iterates over maps from a
	// random position.
	evictSample = 64
	// relieveTo is the percentage of capacity at which disconnecting at the critical level stops.
	relieveTo = 85
)

// now returns the time since the listener was created.
func (l *Listener) now() time.Duration { return time.Since(l.start) }

// reserve reserves the base cost of a connection.
func (l *Listener) reserve(c *serverConn) error {
	c.memory.Open(l.opts.Memory, nil, l.opts.Class, c.key)
	err := c.memory.Grow(budget.Connection, connBytes)
	if err != nil {
		c.memory.Release()
	}
	return err
}

// awaitMemory blocks while the level is critical. New connections wait in the backlog of the
// kernel.
func (l *Listener) awaitMemory() {
	for l.opts.Memory.Level() >= budget.Critical && l.pause() {
		l.opts.Memory.Observe()
	}
}

// pause waits for acceptRetry. It returns false if the listener is closed.
func (l *Listener) pause() bool {
	select {
	case <-l.closed:
		return false
	case <-time.After(acceptRetry):
		return true
	}
}

// evictable returns a connection to evict for c, for which err rejected memory; nil if there is
// none. It is the least recently used of a sample without requests. If the share of anonymous
// callers is exhausted, it may be an anonymous connection whose requests make no progress.
func (l *Listener) evictable(c *serverConn, err error) *serverConn {
	var refused *budget.Error
	if !errors.As(err, &refused) {
		return nil
	}
	samePeer := refused.Scope == budget.ScopeCaller
	sameClass := samePeer || refused.Scope == budget.ScopeClass
	before := int64(l.now() - noProgress)
	var idle, stalled *serverConn
	older := func(a, b *serverConn) bool {
		return b == nil || a.memory.progress.Load() < b.memory.progress.Load()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	examined := 0
	consider := func(conns map[*serverConn]struct{}) {
		for other := range conns {
			if examined++; examined > evictSample {
				return
			}
			m := &other.memory
			switch {
			case other == c, other.aborted.Load(), sameClass && m.authenticated.Load(), m.progress.Load() > before:
			case m.requests.Load() == 0:
				if older(other, idle) {
					idle = other
				}
			case sameClass && l.opts.Class == budget.Anonymous && older(other, stalled):
				stalled = other
			}
		}
	}
	if samePeer {
		consider(l.peers[c.peer])
	} else {
		for _, conns := range l.peers {
			if consider(conns); examined > evictSample {
				break
			}
		}
	}
	if idle != nil {
		return idle
	}
	return stalled
}

// sweep checks the connections periodically, until the listener is closed.
func (l *Listener) sweep() {
	ticker := time.NewTicker(sweepConns)
	defer ticker.Stop()
	for {
		select {
		case <-l.closed:
			l.closeParked()
			return
		case <-ticker.C:
			l.opts.Memory.Observe()
			l.closeOld()
			l.relieve()
			l.unpark()
		}
	}
}

// all returns the connections for which keep returns true.
func (l *Listener) all(keep func(*serverConn) bool) (kept []*serverConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conns := range l.peers {
		for c := range conns {
			if keep(c) {
				kept = append(kept, c)
			}
		}
	}
	return kept
}

// relieve disconnects the largest holders without progress while the level is critical.
func (l *Listener) relieve() {
	b := l.opts.Memory
	if b.Level() < budget.Critical {
		return
	}
	type holder struct {
		*serverConn
		held int64
	}
	var holders []holder
	before := int64(l.now() - noProgress)
	for _, c := range l.all(func(c *serverConn) bool { return c.memory.progress.Load() < before }) {
		holders = append(holders, holder{c, c.memory.Sum()})
	}
	slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(b.held, a.held) })
	excess := b.Total() - b.Capacity()/100*relieveTo
	for _, h := range holders {
		if excess <= 0 {
			return
		}
		if h.memory.progress.Load() < before { // no request has arrived meanwhile
			h.abort(http2.CloseMemory)
			excess -= h.held
		}
	}
}

func (l *Listener) add(c *serverConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers[c.peer] == nil {
		l.peers[c.peer] = make(map[*serverConn]struct{})
	}
	l.peers[c.peer][c] = struct{}{}
}

func (l *Listener) remove(c *serverConn) {
	l.open.Add(-1)
	c.endCalls(context.Canceled) // its context is a child of that of all calls
	c.memory.Release()
	c.slot.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if delete(l.peers[c.peer], c); len(l.peers[c.peer]) == 0 {
		delete(l.peers, c.peer)
	}
}
