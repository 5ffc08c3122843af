package transport

import (
	"net/http"
	"reflect"
	"sync/atomic"
)

// progress tracks a blocked response write below the handler. It is guarded by Guard.mu.
type progress struct {
	stream streamControl // nil: not observed
	last   int64
}

// madeProgress reports whether the client received anything since the last call. It finds progress
// smaller than a chunk of Exchange.write, for clients that open their flow-control window in small
// steps. It returns false if progress cannot be observed.
func (x *Exchange) madeProgress() bool {
	if p := &x.progress; p.stream == nil {
		if p.stream = x.observe(); p.stream != nil {
			p.last = p.stream.Progress()
		}
		return false
	}
	now := x.progress.stream.Progress()
	progressed := now != x.progress.last
	x.progress.last = now
	return progressed
}

// observe returns the stream of the response; nil if it is not accessible now.
func (x *Exchange) observe() streamControl {
	if !x.mu.TryLock() {
		return nil
	}
	defer x.mu.Unlock()
	if x.returned {
		return nil
	}
	return x.streamOf()
}

func (p *progress) stop() {
	if std, ok := p.stream.(stdStream); ok {
		std.conn.stopCounting(std.id)
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

// dataSent returns the number of DATA frames sent on the stream since its first call.
func (c *serverConn) dataSent(stream uint32) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.budget.dataFrames[stream]
	if sent == nil {
		if c.budget.dataFrames == nil {
			c.budget.dataFrames = make(map[uint32]*atomic.Int64)
		}
		sent = new(atomic.Int64)
		c.budget.dataFrames[stream] = sent
	}
	return sent.Load()
}

func (c *serverConn) stopCounting(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.budget.dataFrames, stream)
}
