//go:build !faults

package sqlite

func planted(string) bool { return false }
