//go:build faults

package sqlite

import "os"

func planted(fault string) bool { return os.Getenv("USERD_FAULT") == fault }
