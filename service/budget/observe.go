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
	// sampleInterval is the maximum age of a sample of the memory in use.
	sampleInterval = 20 * time.Millisecond
	// sampleDivisor defines the part of the limit after whose reservation the next sample is taken.
	sampleDivisor = 64
	// gcInterval is the interval of forced garbage collections while memory in use raises the level.
	// The size of the live heap is only known after a collection.
	gcInterval = time.Second

	// Thresholds in percent of the limit. Live memory above highAbove makes the level High until it
	// is below normalBelow. Memory obtained from the system, including garbage, above
	// criticalAbove makes it Critical.
	highAbove     = 80
	normalBelow   = 70
	criticalAbove = 95
)

// observer samples the memory in use.
type observer struct {
	start     time.Time
	observed  atomic.Int32 // level for the memory in use
	sampled   atomic.Int64 // time of the last sample, since start
	unsampled atomic.Int64 // bytes reserved since the last sample

	sampling sync.Mutex
	samples  []metrics.Sample
	lastGC   time.Time
	usage    func() (live, held int64)
}

func (o *observer) init(now time.Time, inUse func() (live, held int64)) {
	o.start = now
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

// Observe updates the level from the memory in use. Grow does that for requests and connections; code
// that waits for a change of the level must call Observe.
func (b *Budget) Observe() {
	if b != nil {
		b.sample()
	}
}

// beforeGrow takes a sample if one is due before n bytes of the kind are reserved.
func (b *Budget) beforeGrow(kind Kind, n int64) {
	reserved := b.unsampled.Add(n)
	if kind == Request || kind == Connection || reserved >= b.opts.Limit/sampleDivisor {
		b.sample()
	}
}

// sample samples the memory in use, unless the last sample is recent and little was reserved since.
func (b *Budget) sample() {
	now := time.Since(b.start)
	last := b.sampled.Load()
	recent := last != 0 && now-time.Duration(last) < sampleInterval && b.unsampled.Load() < b.opts.Limit/sampleDivisor
	if recent || !b.sampling.TryLock() {
		return
	}
	defer b.sampling.Unlock()
	b.unsampled.Store(0)
	b.sampled.Store(int64(now) + 1)
	live, held := b.usage()
	level := Level(b.observed.Load())
	switch limit := b.opts.Limit / 100; {
	case held > limit*criticalAbove:
		level = Critical
	case live > limit*highAbove, level == Critical:
		level = High
	case live < limit*normalBelow:
		level = Normal
	}
	b.observed.Store(int32(level))
	if level > Normal && time.Since(b.lastGC) >= gcInterval {
		b.lastGC = time.Now()
		go debug.FreeOSMemory()
	}
	b.update()
}

// measure returns the live memory, and the memory held by the process including garbage. Memory outside
// of the Go runtime counts in both.
func (o *observer) measure() (live, held int64) {
	metrics.Read(o.samples)
	value := func(i int) int64 { return int64(o.samples[i].Value.Uint64()) }
	held = value(1) - value(2)
	other := max(anonymousBytes()-held, 0)
	outsideHeap := held - value(3) - value(4) - value(5) // stacks and runtime
	return value(0) + outsideHeap + other, held + other
}

// anonymousBytes returns the resident anonymous memory of the process, 0 if unknown.
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

// HeapInUse returns the bytes of heap objects, including garbage, and of goroutine stacks.
func HeapInUse() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() + samples[1].Value.Uint64())
}
