//go:build faults

package feed

import "os"

// plantedSkip is 1 if USERD_FAULT is drop-at-seam: a cursor then loses one row, which the
// tests must detect.
var plantedSkip = func() int64 {
	if os.Getenv("USERD_FAULT") == "drop-at-seam" {
		return 1
	}
	return 0
}()
