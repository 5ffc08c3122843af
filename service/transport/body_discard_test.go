package transport_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rejecting starts a server whose handler responds without reading the body. begun is closed when
// the handler has written its response.
func rejecting(t *testing.T, rest time.Duration) (addr string, begun chan struct{}) {
	t.Helper()
	begun = make(chan struct{})
	opts := options()
	opts.DiscardTimeout = rest
	_, addr = serve(t, opts, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusUnauthorized)
		close(begun)
	})
	return addr, begun
}

func dialTCP(t *testing.T, addr string) net.Conn {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// beginPOST sends the header of an HTTP/2 request without the end of the stream.
func beginPOST(t *testing.T, conn net.Conn) *http2.Framer {
	t.Helper()
	framer := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "localhost"}, {":path", "/"}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	return framer
}

// endOfStream reads up to the end of the stream and then up to a ping acknowledgement. It reports
// whether the stream was reset.
func endOfStream(t *testing.T, framer *http2.Framer) (reset bool) {
	t.Helper()
	for pinged := false; ; {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			pinged = f.StreamEnded()
		case *http2.DataFrame:
			pinged = f.StreamEnded()
		case *http2.RSTStreamFrame:
			return true
		case *http2.PingFrame: // service/http2 sends one of its own before it closes the connection
			if f.IsAck() {
				return false
			}
		}
		if pinged {
			pinged = false
			if err := framer.WritePing(false, [8]byte{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEarlyResponseWithoutReset(t *testing.T) {
	addr, begun := rejecting(t, time.Minute)
	framer := beginPOST(t, dialTCP(t, addr))
	<-begun
	if err := framer.WriteData(1, true, []byte("body")); err != nil {
		t.Fatal(err)
	}
	if endOfStream(t, framer) {
		t.Error("the stream was reset, want its end alone")
	}
}

// The client of an open-ended request receives the response too.
func TestEarlyResponseToOpenEndedRequest(t *testing.T) {
	addr, _ := rejecting(t, time.Millisecond)
	framer := beginPOST(t, dialTCP(t, addr))
	if !endOfStream(t, framer) {
		t.Error("the stream was not reset, want a reset after its end")
	}
}

func TestEarlyResponseOverHTTP1IsComplete(t *testing.T) {
	addr, begun := rejecting(t, time.Minute)
	conn := dialTCP(t, addr)
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	for range 4 {
		if _, err := io.WriteString(conn, "4\r\nbody\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, "0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(all, []byte("HTTP/1.1 401")) {
		t.Errorf("got %q, %v", all, err)
	}
}

// A client that waits for 100 Continue is rejected without being asked for its body.
func TestEarlyResponseInsteadOfContinue(t *testing.T) {
	addr, _ := rejecting(t, time.Minute)
	conn := dialTCP(t, addr)
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Body.Close()
	if got.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %s, want 401 and no 100", got.Status)
	}
}
