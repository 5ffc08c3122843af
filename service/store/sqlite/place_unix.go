//go:build unix

package sqlite

import (
	"fmt"
	"io/fs"
	"syscall"
)

// folderIdentity returns what tells a folder from another one of the same path.
func folderIdentity(info fs.FileInfo) string {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(stat.Ino) // device numbers change from boot to boot
	}
	return ""
}
