//go:build faults

package rest

import "os"

// panicIfPlanted panics if USERD_FAULT asks for this fault. It exists only under the
// build tag faults, where it shows what becomes of a panic that no interceptor sees.
func panicIfPlanted(fault string) {
	if os.Getenv("USERD_FAULT") == fault {
		panic("planted: " + fault)
	}
}
