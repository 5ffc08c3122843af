package http2

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"time"
)

// maxPooledOutput is the largest output buffer that is kept for reuse.
const maxPooledOutput = 2*maxQueued + maxControl

var outputs = sync.Pool{New: func() any {
	b := make([]byte, 0, smallInput)
	return &b
}}

// output returns the buffer of queued output. c.mu is held.
func (c *conn) output() []byte {
	if c.out == nil {
		c.out = *outputs.Get().(*[]byte) //nolint:errcheck // the pool has no other type
	}
	return c.out
}

func putOutput(b []byte) {
	if cap(b) <= maxPooledOutput {
		b = b[:0]
		outputs.Put(&b)
	}
}

// kick makes a goroutine write the queued output. It runs after the goroutines that are ready now, so that the output of
// other streams is part of the same write. c.mu is held.
func (c *conn) kick() {
	if !c.writing && len(c.out) > 0 {
		c.writing = true
		go func() {
			runtime.Gosched()
			c.write()
		}()
	}
}

// flush writes the queued output on this goroutine, unless another one writes it. It yields first if other handlers are
// running, so their output is part of the same write.
func (c *conn) flush() {
	c.mu.Lock()
	if c.writing || len(c.out) == 0 {
		c.mu.Unlock()
		return
	}
	c.writing = true
	others := c.running > 0
	c.mu.Unlock()
	if others {
		runtime.Gosched()
	}
	c.write()
}

// write writes until nothing is queued. c.writing is set.
func (c *conn) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 {
		batch := c.out
		c.out, c.control = nil, 0
		c.writeSince = c.srv.now()
		c.arm(c.srv.tick)
		if c.full {
			c.full = false
			c.wakeBlocked()
		}
		c.changed.Broadcast()
		c.mu.Unlock()
		err := c.writeBatch(batch)
		putOutput(batch)
		c.mu.Lock()
		if err != nil {
			c.out = nil
			c.abort()
			break
		}
		if sent := c.budget.dataSent.Load(); sent != c.transferred {
			c.transferred = sent
			c.hooks.Meter.Transferred()
		}
	}
	if c.allowed > 0 && len(c.out) == 0 {
		c.allowed = 0
		c.hooks.Meter.Output(0)
	}
	c.writing, c.writeSince = false, 0
	c.changed.Broadcast()
}

// writeBatch writes a batch. The timer of the connection interrupts a blocked write several times per write timeout,
// so progress is noticed. A TLS connection cannot be interrupted, so each of its records is a write.
func (c *conn) writeBatch(batch []byte) error {
	if !c.interruptible() {
		return c.writeRecords(batch)
	}
	progress := time.Time{}
	for {
		n, err := c.net.Write(batch)
		if batch = batch[n:]; err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		switch {
		case n > 0 || progress.IsZero():
			progress = now
		case now.Sub(progress) >= c.srv.stallTimeout*(stallChecks-1)/stallChecks:
			return err
		}
		c.mu.Lock()
		if n > 0 {
			c.writes++
		}
		c.writeSince = c.srv.now()
		err = c.net.SetWriteDeadline(time.Time{})
		c.arm(c.srv.tick)
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// writeRecords writes a batch to a TLS connection.
func (c *conn) writeRecords(batch []byte) error {
	for {
		n, err := c.net.Write(batch[:min(len(batch), maxChunk)])
		if batch = batch[n:]; err != nil || len(batch) == 0 {
			return err
		}
		c.mu.Lock()
		c.writes++
		c.writeSince = c.srv.now()
		c.mu.Unlock()
	}
}
