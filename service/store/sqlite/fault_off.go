//go:build !faults

package sqlite

// planted reports whether a fault is planted. In an ordinary build none is, and the
// code for it is left out.
func planted(fault) bool { return false }

func leak() {}
