package http2_test

import (
	"io"
	"net/http"
	"runtime"
	"testing"
)

// Buffers of received bodies are reused.
func TestBodyBuffersAreReused(t *testing.T) {
	s := own.start(t, false, func(_ http.ResponseWriter, r *http.Request) {
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 8<<10))
		if err != nil {
			t.Errorf("read %d bytes: %v", n, err)
		}
	})
	client := s.client()
	const size = 32 << 20
	r := get(t, s, "/")
	r.Method, r.ContentLength = http.MethodPost, size
	r.Body = io.NopCloser(io.LimitReader(zeros{}, size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > size { // the race detector makes pools lose buffers
		t.Errorf("allocated = %d bytes for a body of %d, want less", n, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
