package sqlite

import "io/fs"

// dirID is not implemented: Windows has no file ID in a FileInfo.
func dirID(fs.FileInfo) string { return "" }
