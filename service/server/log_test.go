package server_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockedBuffer is a log that can be read concurrently.
type lockedBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{} // closed at the next write
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written != nil {
		close(b.written)
		b.written = nil
	}
	return b.b.Write(p)
}

// lineWith returns the first line with the text, and a channel that is closed at the next write.
func (b *lockedBuffer) lineWith(text string) (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		b.written = make(chan struct{})
	}
	for line := range strings.Lines(b.b.String()) {
		if strings.Contains(line, text) {
			return line, b.written
		}
	}
	return "", b.written
}

// awaitAll waits until good reports true for the log.
func (b *lockedBuffer) awaitAll(t *testing.T, good func(text string) bool) {
	t.Helper()
	tooLate := time.After(20 * time.Second)
	for {
		_, more := b.lineWith("\x00") // no line has that
		if good(b.String()) {
			return
		}
		select {
		case <-more:
		case <-tooLate:
			t.Fatalf("log never became good:\n%s", b)
		}
	}
}

// String returns the log.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await waits for a line with the text.
func (b *lockedBuffer) await(t *testing.T, text string) string {
	t.Helper()
	tooLate := time.After(20 * time.Second)
	for {
		line, more := b.lineWith(text)
		if line != "" {
			return line
		}
		select {
		case <-more:
		case <-tooLate:
			t.Fatalf("log has no line with %q:\n%s", text, b.b.String())
		}
	}
}
