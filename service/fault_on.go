//go:build faults

package service

import "os"

// plantedUser is the user whom nobody can get where the fault is planted.
const plantedUser = 1

// panicIfPlanted panics for one user if USERD_FAULT asks for it. It exists only under
// the build tag faults, where it shows what becomes of a handler that panics.
func panicIfPlanted(id int64) {
	if id == plantedUser && os.Getenv("USERD_FAULT") == "panic-in-handler" {
		panic("planted: nobody can get this user")
	}
}
