package sqlite

import (
	"slices"
	"testing"
	"testing/synctest"
)

// A group commit precedes scans that began to wait before it.
func TestCommitsPrecedeScans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &processors{free: 1}
		p.acquire(scans)
		var got []workload
		wait := func(w workload) {
			go func() {
				p.acquire(w)
				got = append(got, w)
				p.release()
			}()
			synctest.Wait()
		}
		wait(scans)
		wait(scans)
		wait(commits)
		p.release()
		synctest.Wait()
		if want := []workload{commits, scans, scans}; !slices.Equal(got, want) {
			t.Errorf("order = %v, want %v", got, want)
		}
		if p.free != 1 {
			t.Errorf("free = %d, want 1", p.free)
		}
	})
}
