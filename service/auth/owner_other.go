//go:build !unix

package auth

import "io/fs"

// ownFile takes every file for one's own: whose it is cannot be asked here.
func ownFile(fs.FileInfo) bool { return true }
