package transport

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate(10, 5)
		takes := func(caller string, want int) {
			t.Helper()
			got := 0
			for range 20 {
				if _, ok := r.Take(caller); ok {
					got++
				}
			}
			if got != want {
				t.Errorf("Take(%s) succeeded %d times, want %d", caller, got, want)
			}
		}
		takes("ada", 5)
		takes("bob", 5)
		wait, ok := r.Take("ada")
		if ok || wait != 100*time.Millisecond {
			t.Errorf("Take() = %v, %v, want 100ms, false", wait, ok)
		}
		time.Sleep(wait)
		takes("ada", 1)
		time.Sleep(300 * time.Millisecond)
		takes("ada", 3)
		time.Sleep(time.Hour)
		takes("ada", 5)
	})
}

// Rotating the generations does not refill a bucket.
func TestRateRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate(10, 5)
		got, began := 0, time.Now()
		for time.Since(began) < 100*time.Second {
			if _, ok := r.Take("ada"); ok {
				got++
			}
			time.Sleep(7 * time.Millisecond)
		}
		if got < 1000 || got > 1006 {
			t.Errorf("%d tokens in 100 s, want about 1005", got)
		}
	})
}

// Memory is bounded for any number of callers, existing callers keep their buckets, and full
// buckets are dropped.
func TestRateMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate(1, 2)
		kept := func() (n int) {
			for i := range r.shards {
				n += len(r.shards[i].current) + len(r.shards[i].previous)
			}
			return n
		}
		for range 3 {
			r.Take("ada")
		}
		rejected := 0
		for i := range 4 * rateShards * rateCallers {
			if _, ok := r.Take(strconv.Itoa(i)); !ok {
				rejected++
			}
		}
		if n := kept(); n > 2*rateShards*rateCallers {
			t.Errorf("%d buckets kept", n)
		}
		if rejected == 0 {
			t.Error("callers above the maximum are not limited")
		}
		if _, ok := r.Take("ada"); ok {
			t.Error("Take(ada) = true after a flood of other callers, want false")
		}
		time.Sleep(time.Hour)
		for i := range rateShards * 100 {
			r.Take(strconv.Itoa(i))
		}
		if n := kept(); n > rateShards*100 {
			t.Errorf("%d buckets kept after an hour", n)
		}
	})
}

func BenchmarkRate(b *testing.B) {
	r := NewRate(1e9, 1000)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Take("127.0.0.1")
		}
	})
}
