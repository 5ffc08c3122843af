package http2_test

import (
	"net/http"
	"testing"
)

// ReleaseHeader has no effect before the header was sent. Trailers can be set after it.
func TestReleaseHeader(t *testing.T) {
	left := make(chan [2]int, 1)
	s := own.start(t, false, func(w http.ResponseWriter, _ *http.Request) {
		stream, ok := w.(interface{ ReleaseHeader() })
		if !ok {
			panic("not a stream of this package")
		}
		w.Header()["X-Test"] = []string{"value"}
		stream.ReleaseHeader()
		before := len(w.Header())
		_ = http.NewResponseController(w).Flush()
		stream.ReleaseHeader()
		left <- [2]int{before, len(w.Header())}
		w.Header()[http.TrailerPrefix+"X-End"] = []string{"trailer"}
	})
	p := s.dial()
	p.headers(1, true)
	p.flush()
	p.await("header", func(f frame) bool { return f.StreamID == 1 && f.fields["x-test"] == "value" })
	p.await("trailer", func(f frame) bool { return f.StreamID == 1 && f.fields["x-end"] == "trailer" })
	if got, want := <-left, [2]int{1, 0}; got != want {
		t.Errorf("fields before and after the header was sent = %v, want %v", got, want)
	}
}
