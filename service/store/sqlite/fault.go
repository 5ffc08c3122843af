package sqlite

import "time"

// plantedGap lies between the results and the commit where the two have changed
// places: long enough for a kill to meet it on any machine.
const plantedGap = 20 * time.Millisecond

// fault names a way in which the store can be made to break its promises, so that
// a test harness can show that it would notice. Only a build with the tag "faults"
// has them, see USERD_FAULT there.
type fault string

const (
	faultAckBeforeCommit fault = "ack-before-commit" // results are given before the commit
	faultSyncOff         fault = "sync-off"          // commits are not synced
	faultPublishEarly    fault = "publish-early"     // the observer is called before the commit
	faultLeakReads       fault = "leak-reads"        // each point read keeps 1 MiB
	faultOneQueue        fault = "one-queue"         // scans are read as a whole and in one queue with point reads
)
