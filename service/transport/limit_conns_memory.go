package transport

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/yourorg/userservice/service/budget"
)

const (
	// sweepConns is how often connections are looked at, and acceptRetry how often the
	// memory is while accepting is paused.
	sweepConns  = 50 * time.Millisecond
	acceptRetry = 20 * time.Millisecond
	// noProgress is how long a connection makes no progress before it may be disconnected
	// for the sake of others. A new one has that time for its first request.
	noProgress = time.Second
	// evictSample is how many connections are looked at to find one that was not used for
	// long. Go iterates over maps from a random place.
	evictSample = 64
	// relieveTo is the part of the capacity, in percent, down to which holders are
	// disconnected at the critical level.
	relieveTo = 85
)

// now returns the time since the listener began.
func (l *Listener) now() time.Duration { return time.Since(l.born) }

// reserve reserves the base cost of a connection.
func (l *Listener) reserve(c *gatherConn) error {
	c.memory.Open(l.opts.Memory, nil, l.opts.Class, c.peer.String())
	err := c.memory.Grow(budget.Connection, connBytes)
	if err != nil {
		c.memory.Release()
	}
	return err
}

// awaitMemory blocks while no connection can be accepted. The backlog of the system keeps
// those that come.
func (l *Listener) awaitMemory() {
	for l.opts.Memory.Level() >= budget.Critical && l.pause() {
		l.opts.Memory.Observe()
	}
}

// pause waits a moment, and reports false if the listener was closed.
func (l *Listener) pause() bool {
	select {
	case <-l.closed:
		return false
	case <-time.After(acceptRetry):
		return true
	}
}

// unused returns a connection that may make room for c, for which err refused memory; nil
// if there is none. It is the one that was not used for longest among some without a
// request. Where callers without credentials have used up their part, it may be one of
// theirs that has requests without progress.
func (l *Listener) unused(c *gatherConn, err error) *gatherConn {
	var refused *budget.Error
	if !errors.As(err, &refused) {
		return nil
	}
	samePeer := refused.Scope == budget.ScopeCaller
	samePart := samePeer || refused.Scope == budget.ScopeClass
	longAgo := int64(l.now() - noProgress)
	var idle, stuck *gatherConn
	older := func(a, b *gatherConn) bool {
		return b == nil || a.memory.progress.Load() < b.memory.progress.Load()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := 0
	consider := func(conns map[*gatherConn]struct{}) {
		for other := range conns {
			if seen++; seen > evictSample {
				return
			}
			m := &other.memory
			switch {
			case other == c, other.aborted.Load(), samePart && m.known.Load(), m.progress.Load() > longAgo:
			case m.requests.Load() == 0:
				if older(other, idle) {
					idle = other
				}
			case samePart && l.opts.Class == budget.Anonymous && older(other, stuck):
				stuck = other
			}
		}
	}
	if samePeer {
		consider(l.peers[c.peer])
	} else {
		for _, conns := range l.peers {
			if consider(conns); seen > evictSample {
				break
			}
		}
	}
	if idle != nil {
		return idle
	}
	return stuck
}

// sweep looks at the connections from time to time, until the listener is closed.
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
			l.abortLateHeaders()
			l.relieve()
			l.unpark()
		}
	}
}

// all returns the connections that are kept by keep.
func (l *Listener) all(keep func(*gatherConn) bool) (kept []*gatherConn) {
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

// abortLateHeaders closes connections of HTTP/2 whose header block does not end. net/http
// does so for HTTP/1.
func (l *Listener) abortLateHeaders() {
	if l.opts.HeaderTimeout <= 0 {
		return
	}
	begun := int64(l.now() - l.opts.HeaderTimeout)
	for _, c := range l.all(func(c *gatherConn) bool {
		since := c.memory.since.Load()
		return since != 0 && since < begun
	}) {
		c.abort(CauseHeaderTimeout)
	}
}

// relieve disconnects the largest holders that make no progress while the level is
// critical.
func (l *Listener) relieve() {
	b := l.opts.Memory
	if b.Level() < budget.Critical {
		return
	}
	type holder struct {
		*gatherConn
		held int64
	}
	var holders []holder
	longAgo := int64(l.now() - noProgress)
	for _, c := range l.all(func(c *gatherConn) bool { return c.memory.progress.Load() < longAgo }) {
		holders = append(holders, holder{c, c.memory.Sum()})
	}
	slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(b.held, a.held) })
	excess := b.Total() - b.Capacity()/100*relieveTo
	for _, h := range holders {
		if excess <= 0 {
			return
		}
		h.abort(CauseMemory)
		excess -= h.held
	}
}

// enter notes an open connection.
func (l *Listener) enter(c *gatherConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers[c.peer] == nil {
		l.peers[c.peer] = make(map[*gatherConn]struct{})
	}
	l.peers[c.peer][c] = struct{}{}
}

// leave notes that a connection is closed.
func (l *Listener) leave(c *gatherConn) {
	l.open.Add(-1)
	c.memory.Release()
	c.slot.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if delete(l.peers[c.peer], c); len(l.peers[c.peer]) == 0 {
		delete(l.peers, c.peer)
	}
}
