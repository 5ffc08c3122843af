//go:build !faults

package service

// injectPanic does nothing without the build tag faults.
func injectPanic(int64) {}
