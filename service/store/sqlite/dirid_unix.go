//go:build unix

package sqlite

import (
	"fmt"
	"io/fs"
	"syscall"
)

// dirID distinguishes directories with the same path.
func dirID(info fs.FileInfo) string {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(stat.Ino) // device numbers change between boots
	}
	return ""
}
