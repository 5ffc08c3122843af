package clock

import "time"

// System returns the source of the machine's clocks. The elapsed time is the monotonic clock
// of the process plus the time for which the machine was suspended.
func System() Source {
	start, boot := time.Now(), sinceBoot()
	id := bootID()
	return distorted(func() Reading {
		now := time.Now()
		return Reading{Wall: now.Round(0), Elapsed: boot + max(now.Sub(start), sinceBoot()-boot), Boot: id}
	})
}
