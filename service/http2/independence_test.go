package http2_test

import (
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// maxAhead is how much of a heavy response may precede what another handler wrote later: output that is queued or being written.
const maxAhead = 256 << 10

// A heavy response, a quiet stream and unary calls on one connection do not wait for each other.
func TestStreamsDoNotWait(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		most := bytesAhead(t, e, secure, func() (bodyWriter, func()) {
			return func(w http.ResponseWriter, p []byte, _ bool) error {
				_, err := w.Write(p)
				return err
			}, func() {}
		})
		t.Logf("at most %d bytes of the heavy response ahead of others", most)
		if most > maxAhead {
			t.Errorf("bytes of the heavy response ahead of others = %d, want at most %d", most, maxAhead)
		}
	})
}

// The test above finds an output queue that all streams share.
func TestSharedQueueIsFound(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			if most := bytesAhead(t, e, false, sharedQueue); most <= maxAhead {
				t.Errorf("bytes of the heavy response ahead of others = %d, want more than %d with one queue", most, maxAhead)
			}
		})
	}
}

// sharedQueue returns a writer that queues the bodies of all streams in one queue.
func sharedQueue() (write bodyWriter, end func()) {
	type entry struct {
		w    http.ResponseWriter
		p    []byte
		done chan error
	}
	queue := make(chan entry, 64)
	go func() {
		for x := range queue {
			_, err := x.w.Write(x.p)
			_ = http.NewResponseController(x.w).Flush()
			x.done <- err
		}
	}()
	return func(w http.ResponseWriter, p []byte, heavy bool) error {
		x := entry{w, p, make(chan error, 1)}
		queue <- x
		if heavy && len(queue) < cap(queue)-2 {
			return nil
		}
		return <-x.done
	}, func() { close(queue) }
}

// bodyWriter writes a part of a response.
type bodyWriter func(w http.ResponseWriter, p []byte, heavy bool) error

// bytesAhead opens a heavy response and a quiet stream, which sends a message at a time, and makes unary calls. It returns the largest number
// of bytes of the heavy response that the client received between the time of a message or response and its arrival.
func bytesAhead(t *testing.T, e engine, secure bool, begin func() (bodyWriter, func())) (most int) {
	var events chan bool
	var write bodyWriter
	handler := func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		switch r.URL.Path {
		case "/heavy":
			for write(w, make([]byte, 16<<10), true) == nil && r.Context().Err() == nil {
			}
			_ = write(w, nil, false) // what is in a queue is written
		case "/quiet":
			_ = control.Flush()
			for range events {
				if write(w, []byte("event"), false) != nil || control.Flush() != nil {
					return
				}
			}
		default:
			_ = write(w, []byte("response"), false)
		}
	}
	noLimits := func(_ *http.Server, o *http2.Options) { o.Frames = http2.FrameLimits{} }
	e.inBubble(t, secure, handler, noLimits, func(t *testing.T, dial func() net.Conn) {
		events = make(chan bool)
		var end func()
		write, end = begin()
		p := newPeer(t, dial())
		p.wbuf.WriteString(xhttp2.ClientPreface)
		p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1}))
		p.check(p.fr.WriteWindowUpdate(0, 1<<30))
		get := func(id uint32, path string) {
			p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", path)...)}))
		}
		const heavy, quiet = 1, 3
		get(heavy, "/heavy")
		get(quiet, "/quiet")
		flushed := make(chan bool)
		go func() { flushed <- p.flush() }()
		in := xhttp2.NewFramer(io.Discard, p.conn)
		ahead := 0
		until := func(done func(f xhttp2.Frame) bool) {
			for ahead = 0; ; {
				f, err := in.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if data, ok := f.(*xhttp2.DataFrame); ok && data.StreamID == heavy {
					ahead += len(data.Data())
				}
				if done(f) {
					return
				}
			}
		}
		until(func(xhttp2.Frame) bool { return ahead > 1<<20 })
		<-flushed
		for id := uint32(5); id < 105; id += 2 {
			events <- true
			get(id, "/unary")
			p.flush()
			synctest.Wait() // the handlers wait for the connection, or have written
			left := 2
			until(func(f xhttp2.Frame) bool {
				h := f.Header()
				if h.Type == xhttp2.FrameData && (h.StreamID == quiet && h.Length > 0 || h.StreamID == id && h.Flags.Has(xhttp2.FlagDataEndStream)) {
					left--
				}
				return left == 0
			})
			most = max(most, ahead)
		}
		close(events)
		_ = p.conn.Close()
		synctest.Wait() // the handlers have returned
		end()
	})
	return most
}
