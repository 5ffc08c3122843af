package client

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// maxReadAhead is the size above which a body is not read further ahead.
const maxReadAhead = 32 << 10

// readAhead reads a request body ahead, so that messages that are sent while the transport writes are written together. The
// transport writes what one Read returns in a frame and a system call of its own, and connect writes a message in two parts.
type readAhead struct {
	body io.ReadCloser

	mu      sync.Mutex
	changed sync.Cond
	data    []byte // not read yet
	err     error  // after data
	closed  bool
}

// withReadAhead returns a request with the body read ahead if it is a batch, else the request.
func withReadAhead(r *http.Request) *http.Request {
	isBatch := strings.HasSuffix(r.URL.Path, userv1connect.UserServiceBatchCreateUsersProcedure) ||
		strings.HasSuffix(r.URL.Path, userv1connect.UserServiceBatchUpdateUsersProcedure)
	if !isBatch || r.Body == nil {
		return r
	}
	r = r.WithContext(r.Context()) // a copy
	r.Body = newReadAhead(r.Body)
	return r
}

func newReadAhead(body io.ReadCloser) *readAhead {
	b := &readAhead{body: body}
	b.changed.L = &b.mu
	go b.fill()
	return b
}

func (b *readAhead) fill() {
	chunk := make([]byte, maxReadAhead/2)
	for {
		n, err := b.body.Read(chunk)
		b.mu.Lock()
		b.data, b.err = append(b.data, chunk[:n]...), err
		b.changed.Broadcast()
		for len(b.data) > maxReadAhead && !b.closed {
			b.changed.Wait()
		}
		b.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Read returns what was read ahead. It first lets the sender go on, whose next messages are then read with the present one.
func (b *readAhead) Read(p []byte) (int, error) {
	runtime.Gosched()
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.changed.Wait()
	}
	n := copy(p, b.data)
	b.data = b.data[:copy(b.data, b.data[n:])]
	b.changed.Broadcast()
	return n, nil
}

// Close closes the body, which ends a Read.
func (b *readAhead) Close() error {
	b.mu.Lock()
	b.closed = true
	b.changed.Broadcast()
	b.mu.Unlock()
	return b.body.Close()
}
