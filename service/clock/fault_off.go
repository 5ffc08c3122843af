//go:build !faults

package clock

// distorted returns the source unchanged. The build tag faults injects clock faults.
func distorted(read Source) Source { return read }
