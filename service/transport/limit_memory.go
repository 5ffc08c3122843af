package transport

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
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
	// memoryEvery is how old a look at the memory may be.
	memoryEvery = 20 * time.Millisecond
	// memoryShare is the part of the limit, one in so many, that may come in before the
	// next look: buffers that grow hold a few times what has come.
	memoryShare = 64
	// collectEvery is how often garbage is collected while work is shed: without work
	// nobody else would, and the memory would look full for ever.
	collectEvery = time.Second

	// The parts of the limit, in percent: what is in use beyond sheds new work, until
	// it is below again; what the process holds beyond stops what has begun, too.
	shedAbove   = 80
	shedBelow   = 70
	breakBeyond = 95
)

// Memory watches how near the process is to a limit of its memory. It looks when it is
// asked, every 20 ms at most, and sooner when much has come in. It is safe for use by many goroutines.
type Memory struct {
	limit int64
	born  time.Time

	looked  atomic.Int64 // when, after born
	unseen  atomic.Int64 // bytes that have come in since
	shed    atomic.Bool
	broken  atomic.Bool
	mu      sync.Mutex // held while looking
	samples []metrics.Sample
	collect time.Time
	usage   func(*Memory) (live, held int64) // replaced by tests
}

// NewMemory returns a watch over the limit, in bytes.
func NewMemory(limit int64) *Memory {
	m := &Memory{limit: limit, born: time.Now(), usage: (*Memory).measure}
	for _, name := range []string{
		"/gc/heap/live:bytes",
		"/memory/classes/total:bytes",
		"/memory/classes/heap/released:bytes",
		"/memory/classes/heap/objects:bytes",
		"/memory/classes/heap/unused:bytes",
		"/memory/classes/heap/free:bytes",
	} {
		m.samples = append(m.samples, metrics.Sample{Name: name})
	}
	return m
}

// Shed reports whether new work is to be refused. A nil Memory never says so.
func (m *Memory) Shed() bool {
	if m == nil {
		return false
	}
	m.look()
	return m.shed.Load()
}

// Full reports whether work that has begun is to be given up, too.
func (m *Memory) Full() bool {
	if m == nil {
		return false
	}
	m.look()
	return m.broken.Load()
}

// Received notes that bytes have come in that are being kept.
func (m *Memory) Received(n int) { m.unseen.Add(int64(n)) }

// Limit is the limit in bytes.
func (m *Memory) Limit() int64 { return m.limit }

func (m *Memory) look() {
	now := time.Since(m.born)
	last := m.looked.Load()
	recent := last != 0 && now-time.Duration(last) < memoryEvery && m.unseen.Load() < m.limit/memoryShare
	if recent || !m.mu.TryLock() {
		return
	}
	defer m.mu.Unlock()
	m.unseen.Store(0)
	m.looked.Store(int64(now) + 1)
	live, held := m.usage(m)
	m.broken.Store(held > m.limit/100*breakBeyond)
	switch {
	case live > m.limit/100*shedAbove, held > m.limit/100*breakBeyond:
		m.shed.Store(true)
	case live < m.limit/100*shedBelow:
		m.shed.Store(false)
	}
	if m.shed.Load() && time.Since(m.collect) >= collectEvery {
		m.collect = time.Now()
		go debug.FreeOSMemory() // it takes a while, which callers need not
	}
}

// measure gives what is in use for certain, and what the process holds, garbage
// included. Memory that is not Go's, such as that of an embedded database, counts in
// both.
func (m *Memory) measure() (live, held int64) {
	metrics.Read(m.samples)
	value := func(i int) int64 { return int64(m.samples[i].Value.Uint64()) }
	held = value(1) - value(2)
	other := max(anonymousBytes()-held, 0)
	outsideHeap := held - value(3) - value(4) - value(5) // stacks and the runtime's own
	return value(0) + outsideHeap + other, held + other
}

// anonymousBytes is what the process holds that is no file's, 0 where nobody says so.
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

// ProcessMemoryLimit is the limit that the process has been given from outside: that of
// GOMEMLIMIT, else nine tenths of that of its control group, the container's, else three
// quarters of the machine's memory. 0: none is known.
func ProcessMemoryLimit() int64 {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return limit
	}
	return outerMemoryLimit(os.DirFS("/"))
}

func outerMemoryLimit(root fs.FS) int64 {
	machine := machineMemory(root) / 4 * 3
	if group := groupMemoryLimit(root) / 10 * 9; group > 0 && (machine == 0 || group < machine) {
		return group
	}
	return machine
}

// machineMemory reads how much memory there is.
func machineMemory(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	var kibibytes int64
	if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kibibytes); err != nil {
		return 0
	}
	return kibibytes << 10
}

// groupMemoryLimit reads the limit of the control group, of version 2 or 1, as a
// container sees its own.
func groupMemoryLimit(root fs.FS) int64 {
	for _, path := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, path)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && limit > 0 && limit < 1<<50 { // version 1 says no limit by a huge one
			return limit
		}
	}
	return 0
}
