//go:build linux && !race

package http2

import (
	"syscall"
	"unsafe"
)

// readNow reads from a file that does not block. A system call that may block is announced to the runtime, whose monitor thread is woken
// for it when no other goroutine runs: that costs more than the read of a small frame.
func readNow(fd uintptr, p []byte) (int, error) {
	at := unsafe.Pointer(unsafe.SliceData(p)) //nolint:gosec // p is in use during the call
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(at), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
