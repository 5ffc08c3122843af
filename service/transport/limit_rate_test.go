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
				t.Errorf("%s: got %d, want %d", caller, got, want)
			}
		}
		takes("ada", 5)
		takes("bob", 5)
		wait, ok := r.Take("ada")
		if ok || wait != 100*time.Millisecond {
			t.Errorf("got %v, %v", wait, ok)
		}
		time.Sleep(wait)
		takes("ada", 1)
		time.Sleep(300 * time.Millisecond)
		takes("ada", 3)
		time.Sleep(time.Hour)
		takes("ada", 5)
	})
}

// A bucket is not full again for being moved between the halves of the memory.
func TestRateOverTheTurns(t *testing.T) {
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
			t.Errorf("got %d tokens in 100 s", got)
		}
	})
}

// However many callers come, the memory is bounded, those who were there keep
// their buckets, and all are forgotten in the end.
func TestRateForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate(1, 2)
		kept := func() (n int) {
			for i := range r.shards {
				n += len(r.shards[i].young) + len(r.shards[i].old)
			}
			return n
		}
		for range 3 {
			r.Take("ada")
		}
		refused := 0
		for i := range 4 * rateShards * rateCallers {
			if _, ok := r.Take(strconv.Itoa(i)); !ok {
				refused++
			}
		}
		if n := kept(); n > 2*rateShards*rateCallers {
			t.Errorf("%d callers are kept", n)
		}
		if refused == 0 {
			t.Error("those beyond the room have no bounds")
		}
		if _, ok := r.Take("ada"); ok {
			t.Error("a caller has got round the limit by a flood of others")
		}
		time.Sleep(time.Hour)
		for i := range rateShards * 100 {
			r.Take(strconv.Itoa(i))
		}
		if n := kept(); n > rateShards*100 {
			t.Errorf("%d callers are kept after an hour", n)
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
