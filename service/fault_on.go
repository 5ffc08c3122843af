//go:build faults

package service

import "os"

// plantedUser is the id for which the injected fault panics.
const plantedUser = 1

// injectPanic panics for plantedUser if USERD_FAULT is panic-in-handler. Tests use it to check
// the recovery of handlers.
func injectPanic(id int64) {
	if id == plantedUser && os.Getenv("USERD_FAULT") == "panic-in-handler" {
		panic("planted: handler of this user")
	}
}
