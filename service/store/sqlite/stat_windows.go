package sqlite

import "io/fs"

// dirID is not implemented: Windows has no file ID in a FileInfo.
func dirID(fs.FileInfo) string { return "" }

// keepOwner does nothing: a file has the access control list of its directory.
func keepOwner(string, fs.FileInfo) error { return nil }
