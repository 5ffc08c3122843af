package budget

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// ProcessMemoryLimit returns the limit that the process has been given from outside, 0 if
// none is known: nine tenths of the limit of its control group, else three quarters of the
// machine's memory; or less, if GOMEMLIMIT is the RuntimeLimit of a smaller limit.
func ProcessMemoryLimit() int64 {
	outer := outerMemoryLimit(os.DirFS("/"))
	if runtime := debug.SetMemoryLimit(-1); runtime < math.MaxInt64 {
		if limit := runtime / runtimePercent * 100; outer == 0 || limit < outer {
			return limit
		}
	}
	return outer
}

func outerMemoryLimit(root fs.FS) int64 {
	machine := machineMemory(root) / 4 * 3
	if group := groupMemoryLimit(root) / 10 * 9; group > 0 && (machine == 0 || group < machine) {
		return group
	}
	return machine
}

// machineMemory reads how much memory there is.
func machineMemory(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	var kibibytes int64
	if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kibibytes); err != nil {
		return 0
	}
	return kibibytes << 10
}

// groupMemoryLimit reads the limit of the control group, of version 2 or 1, as a
// container sees its own.
func groupMemoryLimit(root fs.FS) int64 {
	for _, path := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, path)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && limit > 0 && limit < 1<<50 { // version 1 says no limit by a huge one
			return limit
		}
	}
	return 0
}
