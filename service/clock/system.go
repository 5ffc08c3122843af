package clock

import "time"

// System returns the source of the machine's own clocks. The elapsed time is that of the
// process's monotonic clock, and of a suspended machine what the system adds to it.
func System() Source {
	start, boot := time.Now(), sinceBoot()
	id := bootID()
	return distorted(func() Reading {
		now := time.Now()
		return Reading{Wall: now.Round(0), Elapsed: boot + max(now.Sub(start), sinceBoot()-boot), Boot: id}
	})
}
