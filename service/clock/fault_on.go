//go:build faults

package clock

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// distorted adds the duration in the file named by USERD_FAULT_CLOCK to the system clock, and
// the duration in the file with the suffix .elapsed to the elapsed time. Tests use it to set
// the clocks of a running process.
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
