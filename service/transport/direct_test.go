package transport_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/yourorg/userservice/service/transport"
)

// directRecorder is a stream that queues direct writes while it is open.
type directRecorder struct {
	*httptest.ResponseRecorder

	closed bool
	queued []string
}

func (*directRecorder) Connection() any { return 1 }
func (*directRecorder) Kick()           {}

func (r *directRecorder) TryWrite(p []byte) (queued, kick bool) {
	if r.closed {
		return false, false
	}
	r.queued = append(r.queued, string(p))
	return true, false
}

// A message that several streams share is not changed by what one of them writes after it, and what cannot be queued is written by
// the handler.
func TestDirectWritesOfSharedMessage(t *testing.T) {
	recorder := &directRecorder{ResponseRecorder: httptest.NewRecorder()}
	guarded(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		x, ok := w.(*transport.Exchange)
		if !ok {
			t.Fatalf("the writer is %T", w)
		}
		buffer := []byte("\x00\x00\x00\x00\x01a-----------")
		message := buffer[:6]
		for range 2 {
			if !x.BeginDirect() {
				t.Error("BeginDirect() = false, want true")
			}
			x.WriteDirect(message)
			_, _ = x.Write([]byte("\x00\x00\x00\x00\x01b"))
			queued, _ := x.EndDirect()
			if queued == recorder.closed {
				t.Errorf("EndDirect() = %t with a closed window = %t", queued, recorder.closed)
			}
			recorder.closed = true
		}
		if messages, err := x.FinishDirect(); messages != 2 || err != nil {
			t.Errorf("FinishDirect() = %d, %v, want 2 messages", messages, err)
		}
		if got, want := string(buffer), "\x00\x00\x00\x00\x01a-----------"; got != want {
			t.Errorf("the shared message is %q, want %q", got, want)
		}
	})).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	const both = "\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x01b"
	if len(recorder.queued) != 1 || recorder.queued[0] != both || recorder.Body.String() != both {
		t.Errorf("queued %q and wrote %q, want %q each", recorder.queued, recorder.Body, both)
	}
}
