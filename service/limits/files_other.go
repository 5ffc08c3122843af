//go:build !unix

package limits

// openFilesLimit returns the limit of open files of the process, 0 if unknown.
func openFilesLimit() uint64 { return 0 }
