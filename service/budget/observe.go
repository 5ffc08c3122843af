package budget

import (
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how old a look at the memory in use may be.
	lookEvery = 20 * time.Millisecond
	// lookShare is the part of the limit, one in so many, that may be reserved before the
	// next look.
	lookShare = 64
	// collectEvery is how often garbage is collected while requests are refused because of
	// the memory in use. The live heap is known after a collection only.
	collectEvery = time.Second

	// The parts of the limit, in percent. Live memory above refuseAbove makes the level
	// High until it is below admitBelow. Memory obtained from the system, garbage
	// included, beyond criticalAbove makes it Critical.
	refuseAbove   = 80
	admitBelow    = 70
	criticalAbove = 95
)

// observer follows the memory that the process uses.
type observer struct {
	born     time.Time
	observed atomic.Int32 // the level that the memory in use calls for
	looked   atomic.Int64 // time of the last look, after born
	unseen   atomic.Int64 // bytes reserved since

	looking sync.Mutex
	samples []metrics.Sample
	collect time.Time
	usage   func() (live, held int64)
}

func (o *observer) init(now time.Time, inUse func() (live, held int64)) {
	o.born = now
	if o.usage = inUse; inUse != nil {
		return
	}
	for _, name := range []string{
		"/gc/heap/live:bytes",
		"/memory/classes/total:bytes",
		"/memory/classes/heap/released:bytes",
		"/memory/classes/heap/objects:bytes",
		"/memory/classes/heap/unused:bytes",
		"/memory/classes/heap/free:bytes",
	} {
		o.samples = append(o.samples, metrics.Sample{Name: name})
	}
	o.usage = o.measure
}

// Observe brings the level up to date with the memory in use. Grow does so for requests
// and connections; a caller that waits for the level to change has to call it.
func (b *Budget) Observe() {
	if b != nil {
		b.look()
	}
}

// expect notes that n further bytes of the kind are about to be allocated.
func (b *Budget) expect(kind Kind, n int64) {
	unseen := b.unseen.Add(n)
	if kind == Request || kind == Connection || unseen >= b.opts.Limit/lookShare {
		b.look()
	}
}

// look looks at the memory in use if the last look is too old, or much was reserved
// since.
func (b *Budget) look() {
	now := time.Since(b.born)
	last := b.looked.Load()
	recent := last != 0 && now-time.Duration(last) < lookEvery && b.unseen.Load() < b.opts.Limit/lookShare
	if recent || !b.looking.TryLock() {
		return
	}
	defer b.looking.Unlock()
	b.unseen.Store(0)
	b.looked.Store(int64(now) + 1)
	live, held := b.usage()
	level := Level(b.observed.Load())
	switch limit := b.opts.Limit / 100; {
	case held > limit*criticalAbove:
		level = Critical
	case live > limit*refuseAbove, level == Critical:
		level = High
	case live < limit*admitBelow:
		level = Normal
	}
	b.observed.Store(int32(level))
	if level > Normal && time.Since(b.collect) >= collectEvery {
		b.collect = time.Now()
		go debug.FreeOSMemory()
	}
	b.update()
}

// measure returns the memory in use for certain, and the memory that the process holds,
// garbage included. Memory that is not Go's counts in both.
func (o *observer) measure() (live, held int64) {
	metrics.Read(o.samples)
	value := func(i int) int64 { return int64(o.samples[i].Value.Uint64()) }
	held = value(1) - value(2)
	other := max(anonymousBytes()-held, 0)
	outsideHeap := held - value(3) - value(4) - value(5) // stacks and the runtime's own
	return value(0) + outsideHeap + other, held + other
}

// anonymousBytes returns the resident memory of the process that is no file's, 0 where
// the system does not tell.
func anonymousBytes() int64 {
	if runtime.GOOS != "linux" {
		return 0
	}
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text)) // see proc(5)
	if len(fields) < 3 {
		return 0
	}
	resident, err1 := strconv.ParseInt(fields[1], 10, 64)
	shared, err2 := strconv.ParseInt(fields[2], 10, 64)
	if errors.Join(err1, err2) != nil {
		return 0
	}
	return (resident - shared) * int64(os.Getpagesize())
}

// HeapInUse returns the bytes of heap objects and goroutine stacks in use, garbage that
// was not collected yet included.
func HeapInUse() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() + samples[1].Value.Uint64())
}
