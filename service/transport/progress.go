package transport

import (
	"net/http"
	"reflect"
	"sync/atomic"
)

// progress is what the connection of an exchange knows of what its peer takes while a
// write goes on. It is the guard's, under its lock.
type progress struct {
	conn   *gatherConn
	stream uint32
	taken  *atomic.Int64 // frames of DATA that were sent on the stream
	seen   int64
}

// moved reports whether the peer has taken something since it was asked last. A write is
// handed to net/http in pieces, and a peer may take less than a piece for longer than
// the stall limit, by opening its window a little at a time. Where the connection does
// not know, nothing has moved.
func (x *Exchange) moved() bool {
	if x.progress == nil {
		x.progress = x.watch()
		return false
	}
	p := x.progress
	if p.conn == nil {
		return false
	}
	now := p.taken.Load() + p.conn.slow.Load() + p.conn.windows.grants(p.stream)
	moved := now != p.seen
	p.seen = now
	return moved
}

// watch begins to watch the stream, nil if it cannot be looked at now.
func (x *Exchange) watch() *progress {
	if !x.mu.TryLock() {
		return nil
	}
	defer x.mu.Unlock()
	if x.over {
		return nil
	}
	conn, ok := x.request.Context().Value(netConn{}).(*gatherConn)
	stream := streamOf(x.ResponseWriter)
	if !ok || stream == 0 {
		return &progress{}
	}
	taken := conn.watch(stream)
	if taken == nil {
		return &progress{}
	}
	return &progress{conn: conn, stream: stream, taken: taken, seen: conn.slow.Load() + conn.windows.grants(stream)}
}

func (p *progress) end() {
	if p != nil && p.conn != nil {
		p.conn.unwatch(p.stream)
	}
}

// streamOf gives the number of the HTTP/2 stream that an answer goes to, 0 if it has none
// or net/http keeps it elsewhere. There is no way to ask for it, so it is looked up where
// it is, while the handler runs, and only for a write that has stood still for a while.
// Where that has moved, a reader that trickles is cut as one that takes nothing, and the
// test of one fails.
func streamOf(w http.ResponseWriter) uint32 {
	at := reflect.ValueOf(w)
	for _, field := range []string{"rws", "stream", "id"} {
		if at = reflect.Indirect(at); at.Kind() != reflect.Struct {
			return 0
		}
		at = at.FieldByName(field)
	}
	if at.Kind() != reflect.Uint32 {
		return 0
	}
	return uint32(at.Uint())
}

// watch counts the frames of DATA that are sent on the stream from now on; nil: it
// cannot.
func (c *gatherConn) watch(stream uint32) *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.budget == nil {
		return nil
	}
	if c.budget.watched == nil {
		c.budget.watched = make(map[uint32]*atomic.Int64)
	}
	taken := new(atomic.Int64)
	c.budget.watched[stream] = taken
	return taken
}

func (c *gatherConn) unwatch(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.budget.watched, stream)
}
