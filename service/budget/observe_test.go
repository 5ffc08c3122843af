package budget

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLevelFollowsMemoryInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1000
		var live, held int64
		b := New(Options{Limit: limit, InUse: func() (int64, int64) { return live, held }})
		for _, step := range []struct {
			live, held int64
			want       Level
		}{
			{100, 200, Normal},
			{790, 900, Normal},
			{810, 900, High},
			{750, 900, High}, // hysteresis
			{690, 900, Normal},
			{690, 960, Critical}, // garbage
			{750, 940, High},
			{690, 900, Normal},
		} {
			live, held = step.live, step.held
			time.Sleep(2 * sampleInterval)
			if b.Observe(); b.Level() != step.want {
				t.Errorf("live %d, held %d: Level() = %v, want %v", step.live, step.held, b.Level(), step.want)
			}
		}
		live = limit
		if b.Observe(); b.Level() != Normal {
			t.Error("Observe() sampled twice within sampleInterval, want once")
		}
		var r Reservation
		r.Open(b, nil, Known, "a")
		if err := r.Grow(Body, limit/sampleDivisor+1); err != nil || b.Level() != High {
			t.Errorf("Grow(%d) = %v, Level() = %v, want %v: a large reservation samples at once", limit/sampleDivisor+1, err, b.Level(), High)
		}
	})
}

func TestMeasureReadsTheProcess(t *testing.T) {
	t.Parallel()
	live, held := New(Options{Limit: 1 << 30}).measure()
	if live <= 0 || held < live/2 || held > 1<<34 {
		t.Errorf("measure() = %d, %d", live, held)
	}
	for limit, want := range map[int64]Level{1 << 10: Critical, 1 << 40: Normal} {
		b := New(Options{Limit: limit})
		if b.Observe(); b.Level() != want {
			t.Errorf("limit %d: Level() = %v, want %v", limit, b.Level(), want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	budget := New(Options{Limit: 1 << 40})
	for b.Loop() {
		budget.Observe()
	}
}

func BenchmarkMeasure(b *testing.B) {
	budget := New(Options{Limit: 1 << 40})
	for b.Loop() {
		budget.measure()
	}
}
