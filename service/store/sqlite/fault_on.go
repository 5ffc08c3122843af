//go:build faults

package sqlite

import (
	"bytes"
	"os"
	"sync"
)

// planted reports whether f is injected by the environment.
func planted(f fault) bool { return os.Getenv("USERD_FAULT") == string(f) }

var leaked struct { //nolint:gochecknoglobals // a deliberate leak
	sync.Mutex
	blocks [][]byte
}

func leak() {
	leaked.Lock()
	defer leaked.Unlock()
	leaked.blocks = append(leaked.blocks, bytes.Repeat([]byte{1}, 1<<20))
}
