//go:build !faults

package service

// panicIfPlanted does nothing: only a build with the tag faults has faults.
func panicIfPlanted(int64) {}
