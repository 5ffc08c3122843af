package http2_test

import (
	"context"
	"net/http"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// The context set by the handler is that of the request, and ends with the stream.
func TestSetContext(t *testing.T) {
	type key struct{}
	ended := make(chan any, 1)
	s := own.start(t, false, func(w http.ResponseWriter, r *http.Request) {
		stream, ok := w.(interface {
			BaseContext() context.Context
			SetContext(ctx context.Context)
		})
		if !ok {
			panic("not a stream of this package")
		}
		stream.SetContext(context.WithValue(stream.BaseContext(), key{}, "value"))
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- r.Context().Value(key{})
	})
	p := s.dial()
	p.headers(1, true)
	p.flush()
	p.await("header", func(f frame) bool { return f.StreamID == 1 })
	p.check(p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	p.flush()
	if got, want := <-ended, "value"; got != want {
		t.Errorf("Value of the context of the request = %v, want %q", got, want)
	}
}
