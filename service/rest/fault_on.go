//go:build faults

package rest

import "os"

// panicIfInjected panics if USERD_FAULT names this fault. Process tests use it to check panics
// outside of interceptors.
func panicIfInjected(fault string) {
	if os.Getenv("USERD_FAULT") == fault {
		panic("planted: " + fault)
	}
}
