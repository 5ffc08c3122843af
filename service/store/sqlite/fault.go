package sqlite

import "time"

// plantedGap is the delay between results and commit for faultAckBeforeCommit, long enough
// for a kill in between.
const plantedGap = 20 * time.Millisecond

// fault is a deliberate violation of the contract of user.Store, injected with the
// environment variable USERD_FAULT to test the test suite. It needs the build tag "faults".
type fault string

const (
	faultAckBeforeCommit fault = "ack-before-commit" // results are returned before the commit
	faultSyncOff         fault = "sync-off"          // commits are not synced
	faultPublishEarly    fault = "publish-early"     // the observer is called before the commit
	faultLeakReads       fault = "leak-reads"        // each point read leaks 1 MiB
	faultOneQueue        fault = "one-queue"         // scans are not divided, and share a queue with point reads
)
