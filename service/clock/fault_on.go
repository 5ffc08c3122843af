//go:build faults

package clock

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// distorted adds to the system clock what the file named by USERD_FAULT_CLOCK says, as
// a duration, and to the elapsed time what the file with the suffix .elapsed says. A test sets the
// clocks of a running program with them.
func distorted(read Source) Source {
	name := os.Getenv("USERD_FAULT_CLOCK")
	if name == "" {
		return read
	}
	offset := func(name string) time.Duration {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			return 0
		}
		by, failure := time.ParseDuration(strings.TrimSpace(string(text)))
		if err != nil || failure != nil {
			panic(fmt.Sprint("USERD_FAULT_CLOCK: ", err, failure))
		}
		return by
	}
	return func() Reading {
		r := read()
		r.Elapsed += offset(name + ".elapsed")
		r.Wall = r.Wall.Add(offset(name))
		return r
	}
}
