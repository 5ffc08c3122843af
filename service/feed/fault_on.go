//go:build faults

package feed

import "os"

// plantedSkip loses one row at the seam if USERD_FAULT asks for it. It exists only
// under the build tag faults, where it shows that the tests find such a loss.
var plantedSkip = func() int64 {
	if os.Getenv("USERD_FAULT") == "drop-at-seam" {
		return 1
	}
	return 0
}()
