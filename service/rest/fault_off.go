//go:build !faults

package rest

// panicIfInjected does nothing without the build tag faults.
func panicIfInjected(string) {}
