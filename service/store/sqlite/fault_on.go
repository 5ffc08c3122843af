//go:build faults

package sqlite

import "os"

// planted reports whether a fault is planted by the environment.
func planted(f fault) bool { return os.Getenv("USERD_FAULT") == string(f) }
