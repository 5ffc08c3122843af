package group

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// stallTimeout is how long a group may take before the writer counts as stalled.
const stallTimeout = 3 * time.Second

// stallDetector detects that the writer makes no progress.
type stallDetector struct {
	timeout time.Duration
	moving  atomic.Pointer[context.Context] // canceled while the writer is stalled

	mu     sync.Mutex
	group  int // number of ended groups
	cancel context.CancelFunc
}

func newStallDetector(timeout time.Duration) *stallDetector {
	d := &stallDetector{timeout: timeout}
	d.renew()
	return d
}

func (d *stallDetector) renew() {
	moving, cancel := context.WithCancel(context.Background())
	d.moving.Store(&moving)
	d.cancel = cancel
}

// begin records the start of a group. The returned function records its end.
func (d *stallDetector) begin() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	group := d.group
	timer := time.AfterFunc(d.timeout, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.group == group {
			d.cancel()
		}
	})
	return func() {
		timer.Stop()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.group++
		if (*d.moving.Load()).Err() != nil {
			d.renew()
		}
	}
}
