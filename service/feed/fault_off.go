//go:build !faults

package feed

// plantedSkip is how many rows a cursor loses where its replay meets the live log:
// none. The build tag faults plants one, to show that the tests find it.
const plantedSkip = 0
