//go:build !unix

package devtoken

import "io/fs"

// ownFile returns true: file ownership is not available on this platform.
func ownFile(fs.FileInfo) bool { return true }
