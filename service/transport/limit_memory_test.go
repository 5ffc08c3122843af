package transport

import (
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

func TestMemorySheds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1000
		m := NewMemory(limit)
		var live, held int64
		m.usage = func(*Memory) (int64, int64) { return live, held }
		for _, step := range []struct {
			live, held int64
			shed, full bool
		}{
			{100, 200, false, false},
			{790, 900, false, false},
			{810, 900, true, false},
			{750, 900, true, false}, // not before it is well below
			{690, 900, false, false},
			{690, 960, true, true}, // the collector does not keep up
			{690, 900, false, false},
		} {
			live, held = step.live, step.held
			time.Sleep(2 * memoryEvery)
			if m.Shed() != step.shed || m.Full() != step.full {
				t.Errorf("%+v: got %v, %v", step, m.Shed(), m.Full())
			}
		}
		live = limit
		if m.Shed() {
			t.Error("it looks more often than it says")
		}
		if m.Received(limit / 2); !m.Shed() {
			t.Error("it does not look when much comes in")
		}
	})
	if (*Memory)(nil).Shed() || (*Memory)(nil).Full() {
		t.Error("without a limit there is work to be shed")
	}
}

func TestMemoryMeasures(t *testing.T) {
	t.Parallel()
	live, held := NewMemory(1 << 30).measure()
	if live <= 0 || held < live/2 || held > 1<<34 {
		t.Errorf("got %d, %d", live, held)
	}
	if !NewMemory(1<<10).Shed() || NewMemory(1<<40).Shed() {
		t.Error("the limit is not kept")
	}
}

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

func TestOuterMemoryLimit(t *testing.T) {
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
		if got := outerMemoryLimit(c.files); got != c.want {
			t.Errorf("%v: got %d, want %d", c.files, got, c.want)
		}
	}
}

func BenchmarkMemoryShed(b *testing.B) {
	m := NewMemory(1 << 40)
	for b.Loop() {
		m.Shed()
	}
}

func BenchmarkMemoryMeasure(b *testing.B) {
	m := NewMemory(1 << 40)
	for b.Loop() {
		m.measure()
	}
}
