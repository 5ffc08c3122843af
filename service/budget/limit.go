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

// ProcessMemoryLimit returns the memory limit of the process, 0 if unknown: nine tenths of the cgroup
// limit, else three quarters of the machine's memory. A smaller limit is derived from GOMEMLIMIT,
// which is taken as the RuntimeLimit.
func ProcessMemoryLimit() int64 {
	system := systemMemoryLimit(os.DirFS("/"))
	if runtime := debug.SetMemoryLimit(-1); runtime < math.MaxInt64 {
		if limit := runtime / runtimePercent * 100; system == 0 || limit < system {
			return limit
		}
	}
	return system
}

func systemMemoryLimit(root fs.FS) int64 {
	machine := machineMemory(root) / 4 * 3
	if group := groupMemoryLimit(root) / 10 * 9; group > 0 && (machine == 0 || group < machine) {
		return group
	}
	return machine
}

// machineMemory returns the memory of the machine, 0 if unknown.
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

// groupMemoryLimit returns the limit of the cgroup (v2 or v1) as seen in a container, 0 if none.
func groupMemoryLimit(root fs.FS) int64 {
	for _, path := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, path)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && limit > 0 && limit < 1<<50 { // v1 reports no limit as a huge value
			return limit
		}
	}
	return 0
}
