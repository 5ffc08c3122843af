//go:build !faults

package sqlite

// planted reports whether f is injected. Without the build tag "faults" it is constant.
func planted(fault) bool { return false }

func leak() {}
