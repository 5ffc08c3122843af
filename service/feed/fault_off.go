//go:build !faults

package feed

// plantedSkip is the number of rows that a cursor skips between replay and live rows. The
// build tag faults injects a fault that the tests must detect.
const plantedSkip = 0
