//go:build unix

package http2

import (
	"os"
	"syscall"
)

// initRaw enables reads from the file of the connection. A buffer is taken when there is something to read, so a connection that
// waits has none.
func (in *input) initRaw() {
	in.readFile = func(fd uintptr) bool {
		if in.buf == nil {
			in.buf = getInput(smallInput)
		}
		for {
			n, err := readNow(fd, (*in.buf)[in.end:])
			switch err {
			case nil:
				in.n = n
				return true
			case syscall.EINTR: //nolint:errorlint // readNow wraps no error
			case syscall.EAGAIN:
				if in.start == in.end {
					in.release()
				}
				return false
			default:
				in.err = os.NewSyscallError("read", err)
				return true
			}
		}
	}
}
