package transport_test

import (
	"bufio"
	"bytes"
	"fmt"
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

// largeBody is larger than the limit of the handler, and than the buffers of a connection.
const largeBody = 12 << 20

// rejectingLarge starts a server whose handler responds when the body exceeds the limit, and closes the body as connect does.
func rejectingLarge(t *testing.T) (addr string) {
	t.Helper()
	opts := options()
	opts.DiscardTimeout = time.Minute
	_, addr = serve(t, opts, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("the body was read, want the error of the limit")
		}
		_ = r.Body.Close()
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	return addr
}

// The response to a body over the limit is not lost because the client or a proxy still sends the rest.
func TestResponseToLargeBody(t *testing.T) {
	t.Run("HTTP/2", func(t *testing.T) {
		framer := beginPOST(t, dialTCP(t, rejectingLarge(t)))
		sendData(t, framer, largeBody)
		if endOfStream(t, framer) {
			t.Error("the stream was reset, want its end alone")
		}
	})
	data := make([]byte, largeBody)
	for name, request := range map[string]string{
		"HTTP/1.1":                    fmt.Sprintf("Content-Length: %d\r\n\r\n%s", largeBody, data),
		"HTTP/1.1 after 100 Continue": fmt.Sprintf("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", largeBody, data),
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialTCP(t, rejectingLarge(t))
			if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+request); err != nil {
				t.Errorf("sending the body: %v", err)
			}
			all, err := io.ReadAll(conn)
			if err != nil || !bytes.Contains(all, []byte("HTTP/1.1 413")) {
				t.Errorf("got %q, %v", all, err)
			}
		})
	}
}

// sendData sends a body of n bytes within the windows of the server.
func sendData(t *testing.T, framer *http2.Framer, n int) {
	t.Helper()
	const initial, size = 65_535, 16 << 10
	stream, conn, perStream := initial, initial, initial
	for n > 0 {
		for n > 0 && min(stream, conn) > 0 {
			part := min(n, size, stream, conn)
			n, stream, conn = n-part, stream-part, conn-part
			if err := framer.WriteData(1, n == 0, make([]byte, part)); err != nil {
				t.Fatal(err)
			}
		}
		if n == 0 {
			return
		}
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if value, ok := f.Value(http2.SettingInitialWindowSize); ok {
				stream, perStream = stream+int(value)-perStream, int(value)
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				conn += int(f.Increment)
			} else {
				stream += int(f.Increment)
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			t.Fatalf("got %v with %d bytes to send", frame, n)
		}
	}
}
