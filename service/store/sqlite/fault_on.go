//go:build faults

package sqlite

import (
	"bytes"
	"os"
	"sync"
)

// planted reports whether a fault is planted by the environment.
func planted(f fault) bool { return os.Getenv("USERD_FAULT") == string(f) }

// leaked is the memory that reads have kept.
var leaked struct { //nolint:gochecknoglobals // a leak has to be
	sync.Mutex
	blocks [][]byte
}

func leak() {
	leaked.Lock()
	defer leaked.Unlock()
	leaked.blocks = append(leaked.blocks, bytes.Repeat([]byte{1}, 1<<20))
}
