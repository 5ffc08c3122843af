package transport

import (
	"net/http"
	"reflect"
	"sync/atomic"
)

// progress tracks a blocked response write below net/http. It is guarded by Guard.mu.
type progress struct {
	conn   *serverConn
	stream uint32
	sent   *atomic.Int64 // number of DATA frames sent on the stream
	last   int64
}

// madeProgress reports whether the client received anything since the last call. It finds progress
// smaller than a chunk of Exchange.write, for clients that open their flow-control window in small
// steps. It returns false if progress cannot be observed.
func (x *Exchange) madeProgress() bool {
	if x.progress == nil {
		x.progress = x.watchProgress()
		return false
	}
	p := x.progress
	if p.conn == nil {
		return false
	}
	now := p.sent.Load() + p.conn.partialWrites.Load() + p.conn.windows.grants(p.stream)
	progressed := now != p.last
	p.last = now
	return progressed
}

// watchProgress starts tracking; nil if the stream is not accessible now.
func (x *Exchange) watchProgress() *progress {
	if !x.mu.TryLock() {
		return nil
	}
	defer x.mu.Unlock()
	if x.returned {
		return nil
	}
	conn, ok := x.request.Context().Value(connKey{}).(*serverConn)
	stream := streamID(x.ResponseWriter)
	if !ok || stream == 0 {
		return &progress{}
	}
	sent := conn.countData(stream)
	if sent == nil {
		return &progress{}
	}
	return &progress{conn: conn, stream: stream, sent: sent, last: conn.partialWrites.Load() + conn.windows.grants(stream)}
}

func (p *progress) stop() {
	if p != nil && p.conn != nil {
		p.conn.stopCounting(p.stream)
	}
}

// streamID returns the HTTP/2 stream id of a response, 0 if it is unknown. net/http has no API for
// it, so the unexported field is read by reflection, while the handler runs. If a Go release moves
// the field, slow readers count as stalled, and TestStreamID fails.
func streamID(w http.ResponseWriter) uint32 {
	value := reflect.ValueOf(w)
	for _, field := range []string{"rws", "stream", "id"} {
		if value = reflect.Indirect(value); value.Kind() != reflect.Struct {
			return 0
		}
		value = value.FieldByName(field)
	}
	if value.Kind() != reflect.Uint32 {
		return 0
	}
	return uint32(value.Uint())
}

// countData counts DATA frames sent on the stream from now on; nil if the connection is not HTTP/2.
func (c *serverConn) countData(stream uint32) *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.budget == nil {
		return nil
	}
	if c.budget.dataFrames == nil {
		c.budget.dataFrames = make(map[uint32]*atomic.Int64)
	}
	sent := new(atomic.Int64)
	c.budget.dataFrames[stream] = sent
	return sent
}

func (c *serverConn) stopCounting(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.budget.dataFrames, stream)
}
