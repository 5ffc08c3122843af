package budget

import (
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestGroupMemoryLimit(t *testing.T) {
	t.Parallel()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const v2, v1 = "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"
	for _, c := range []struct {
		files fstest.MapFS
		want  int64
	}{
		{fstest.MapFS{}, 0},
		{fstest.MapFS{v2: file("max\n")}, 0},
		{fstest.MapFS{v2: file("536870912\n")}, 512 << 20},
		{fstest.MapFS{v1: file("9223372036854771712\n")}, 0},
		{fstest.MapFS{v1: file("1048576\n")}, 1 << 20},
	} {
		if got := groupMemoryLimit(c.files); got != c.want {
			t.Errorf("%v: got %d, want %d", c.files, got, c.want)
		}
	}
}

func TestSystemMemoryLimit(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const machine, group = "proc/meminfo", "sys/fs/cgroup/memory.max"
	for _, c := range []struct {
		files fstest.MapFS
		want  int64
	}{
		{fstest.MapFS{}, 0},
		{fstest.MapFS{machine: file("MemTotal:       4000 kB\nMemFree: 1 kB\n")}, 3000 << 10},
		{fstest.MapFS{machine: file("MemTotal:  4000 kB\n"), group: file("max\n")}, 3000 << 10},
		{fstest.MapFS{machine: file("MemTotal:  4000 kB\n"), group: file("1000000\n")}, 900_000},
		{fstest.MapFS{machine: file("MemTotal:  4000 kB\n"), group: file("1000000000\n")}, 3000 << 10},
		{fstest.MapFS{group: file("1000000\n")}, 900_000},
	} {
		if got := systemMemoryLimit(c.files); got != c.want {
			t.Errorf("%v: got %d, want %d", c.files, got, c.want)
		}
	}
}

// ProcessMemoryLimit must not change after a server has set the limit of the runtime from it.
func TestProcessMemoryLimitIsStable(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	debug.SetMemoryLimit(64 << 20)
	first := ProcessMemoryLimit()
	if got := New(Options{Limit: first}).RuntimeLimit(); got > 64<<20 || got < 63<<20 {
		t.Errorf("RuntimeLimit() = %d, want about %d", got, 64<<20)
	}
	for range 10 {
		debug.SetMemoryLimit(New(Options{Limit: ProcessMemoryLimit()}).RuntimeLimit())
	}
	if got := ProcessMemoryLimit(); got < first-(1<<10) {
		t.Errorf("ProcessMemoryLimit() = %d after ten servers, want %d", got, first)
	}
}
