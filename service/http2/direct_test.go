package http2_test

import (
	"net/http"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// directWriter is the writer of other goroutines than the handler's.
type directWriter interface {
	http.ResponseWriter
	TryWrite(p []byte) (queued, kick bool)
	Kick()
}

// TryWrite queues a message as a whole if there is window for it, and never waits.
func TestTryWrite(t *testing.T) {
	writers, end := make(chan directWriter), make(chan struct{})
	s := own.start(t, false, func(w http.ResponseWriter, _ *http.Request) {
		direct, ok := w.(directWriter)
		if !ok {
			panic("not a stream of this package")
		}
		if queued, _ := direct.TryWrite([]byte("before the header")); queued {
			panic("written before the header")
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		writers <- direct
		<-end
	})
	p := s.dial()
	p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 100}))
	p.headers(1, true)
	p.flush()
	w := <-writers
	kicks := 0
	for i, write := range []struct {
		bytes int
		want  bool
	}{{60, true}, {60, false}, {40, true}} {
		got, kick := w.TryWrite(make([]byte, write.bytes))
		if got != write.want {
			t.Errorf("TryWrite() %d of %d bytes = %t with a window of 100, want %t", i, write.bytes, got, write.want)
		}
		if kick {
			kicks++
		}
	}
	switch kicks { // none if the header was still being written
	case 0:
	case 1:
		w.Kick()
	default:
		t.Errorf("Kick is due %d times, want once", kicks)
	}
	received := 0
	p.await("100 bytes", func(f frame) bool { received += len(f.data); return received == 100 })
	p.check(p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	p.check(p.fr.WritePing(false, [8]byte{1}))
	p.flush()
	p.await("PING ACK", func(f frame) bool { return f.Type == xhttp2.FramePing })
	if got, _ := w.TryWrite(nil); got {
		t.Error("TryWrite() = true after a reset, want false")
	}
	close(end)
	w.Kick() // has no effect
}
