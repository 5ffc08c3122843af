//go:build unix

package sqlite

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// dirID distinguishes directories with the same path.
func dirID(info fs.FileInfo) string {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(stat.Ino) // device numbers change between boots
	}
	return ""
}

// keepOwner gives a file the owner and the group of the file that it replaces, if the process is root. Others cannot.
func keepOwner(path string, replaced fs.FileInfo) error {
	stat, ok := replaced.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(stat.Uid), int(stat.Gid))
}
