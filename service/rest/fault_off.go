//go:build !faults

package rest

// panicIfPlanted does nothing: only a build with the tag faults has faults.
func panicIfPlanted(string) {}
