package sqlite

import "time"

// Faults of durability, to test that the tests of the program detect them. They need the build tag
// faults, and are selected with USERD_FAULT.
const (
	syncOff         = "sync-off"          // commits are not synced
	ackBeforeCommit = "ack-before-commit" // results are returned before the commit

	// plantedGap is the time between results and commit, long enough for a kill in between.
	plantedGap = 20 * time.Millisecond
)
