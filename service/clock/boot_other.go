//go:build !linux

package clock

import "time"

// sinceBoot is unknown here: elapsed time is not comparable across processes.
func sinceBoot() time.Duration { return 0 }

func bootID() string { return "" }
