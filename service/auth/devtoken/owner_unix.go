//go:build unix

package devtoken

import (
	"io/fs"
	"os"
	"syscall"
)

// ownFile reports whether the effective user of the process owns the file.
func ownFile(info fs.FileInfo) bool {
	about, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(about.Uid) == os.Geteuid()
}
