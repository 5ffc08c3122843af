package transport_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/http2"
	"github.com/yourorg/userservice/service/transport"
)

// memoryServer is a server with a small memory budget.
type memoryServer struct {
	addr   string
	budget *budget.Budget
	closed chan http2.CloseReason // reasons of closed connections
}

// serveMemory serves the handler with memory for conns connections of one peer.
func serveMemory(t *testing.T, conns int64, handler http.HandlerFunc) *memoryServer {
	t.Helper()
	const connBytes = 32 << 10
	s := &memoryServer{
		// One caller has a quarter of 60 %.
		budget: budget.New(budget.Options{
			Limit: (conns*connBytes + connBytes/2) * 4 * 10 / 6, InUse: func() (int64, int64) { return 0, 0 },
		}),
		closed: make(chan http2.CloseReason, 1000),
	}
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = inner.Addr().String()
	opts := transport.ListenOptions{
		Memory: s.budget, Class: budget.Known, StallTimeout: 10 * time.Second,
		OnClose: func(_ net.Addr, reason http2.CloseReason) { s.closed <- reason },
	}
	guard := transport.NewGuard(transport.GuardOptions{
		StallTimeout: 10 * time.Second, BodyTimeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler),
		MaxMessageBytes: func(*http.Request) int64 { return 1 << 20 }, IsStream: func(*http.Request) bool { return true },
		Memory:     s.budget,
		Class:      func(*http.Request) budget.Class { return budget.Known },
		Overloaded: func(*http.Request) error { return errors.New("overloaded") },
	})
	server := transport.NewServer(guard.Wrap(handler), transport.ServerOptions{
		MaxConcurrentStreams: 100, HeaderTimeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	server.ConnContext = transport.ConnContext
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(transport.Listen(inner, opts)) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		guard.Close()
	})
	return s
}

// dial connects from a loopback address, with a deadline.
func (s *memoryServer) dial(t *testing.T, from string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// get sends an HTTP/1.1 request and returns the first line of the response.
func get(conn net.Conn) (string, error) {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return "", err
	}
	line := make([]byte, len("HTTP/1.1 200 OK"))
	_, err := io.ReadFull(conn, line)
	return string(line), err
}

// startHTTP2 sends the preface.
func startHTTP2(t *testing.T, conn net.Conn) *xhttp2.Framer {
	t.Helper()
	framer := xhttp2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, xhttp2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return framer
}

func headerBlock(t *testing.T) []byte {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for name, value := range map[string]string{":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": "/"} {
		if err := encoder.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	return block.Bytes()
}

// goAwayText reads to the end and returns the debug data and the last stream of the last GOAWAY.
func goAwayText(framer *xhttp2.Framer) (text string, lastStream uint32, err error) {
	for {
		frame, err := framer.ReadFrame()
		if goAway, ok := frame.(*xhttp2.GoAwayFrame); ok {
			text, lastStream = string(goAway.DebugData()), goAway.LastStreamID
		}
		if err != nil {
			return text, lastStream, err
		}
	}
}

// A peer that holds its share of connections does not affect other peers. Its own new connections
// replace unused ones.
func TestConnectionShareOfPeer(t *testing.T) {
	t.Parallel()
	const share = 5
	s := serveMemory(t, share, func(http.ResponseWriter, *http.Request) {})
	for range 3 * share {
		s.dial(t, "127.0.0.1")
	}
	if line, err := get(s.dial(t, "127.0.0.2")); err != nil || line != "HTTP/1.1 200 OK" {
		t.Errorf("response to another peer = %q, %v, want 200", line, err)
	}
	if line, err := get(s.dial(t, "127.0.0.1")); err != nil || line != "HTTP/1.1 200 OK" {
		t.Errorf("response to the same peer = %q, %v, want 200", line, err)
	}
	if got := <-s.closed; got != http2.CloseMemory {
		t.Errorf("an unused connection was closed for %q, want %q", got, http2.CloseMemory)
	}
	if held, most := s.budget.Reserved(budget.Connection), s.budget.CallerShare(budget.Known); held > most+64<<10 {
		t.Errorf("connections hold %d bytes, want at most the share %d and one more", held, most)
	}
}

// A connection with a request is not evicted for the same peer.
func TestConnectionInUseIsNotEvicted(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	s := serveMemory(t, 3, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			entered <- struct{}{}
			<-leave
		}
	})
	busy := s.dial(t, "127.0.0.1")
	if _, err := io.WriteString(busy, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	for range 20 {
		s.dial(t, "127.0.0.1")
	}
	for range 3 {
		<-s.closed
	}
	close(leave)
	line := make([]byte, len("HTTP/1.1 200 OK"))
	if _, err := io.ReadFull(busy, line); err != nil || string(line) != "HTTP/1.1 200 OK" {
		t.Errorf("response on the connection in use = %q, %v, want 200", line, err)
	}
}

func TestHTTP1HeaderWithoutMemory(t *testing.T) {
	t.Parallel()
	s := serveMemory(t, 2, func(http.ResponseWriter, *http.Request) {})
	conn := s.dial(t, "127.0.0.1")
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nX-Long: "+strings.Repeat("x", 30<<10)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 503 ") || !strings.Contains(string(text), "Retry-After: 1\r\n") {
		t.Errorf("got %q, %v, want 503 with Retry-After", text, err)
	}
}

// Unread body bytes are reserved until the stream ends.
func TestUnreadBodyReservation(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	s := serveMemory(t, 20, func(http.ResponseWriter, *http.Request) { <-ctx.Done() })
	framer := startHTTP2(t, s.dial(t, "127.0.0.1"))
	if err := framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: headerBlock(t), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := framer.WriteData(1, false, make([]byte, 16<<10)); err != nil {
			t.Fatal(err)
		}
	}
	ping(t, framer)
	if n := s.budget.Reserved(budget.Body); n < 40<<10 || n > 48<<10 {
		t.Errorf("%d bytes are reserved for 48 KiB of unread body", n)
	}
	leave()
	awaitFrame(t, framer, func(frame xhttp2.Frame) bool {
		headers, ok := frame.(*xhttp2.HeadersFrame)
		return ok && headers.StreamEnded()
	})
	for s.budget.Reserved(budget.Body) > 4<<10 { // until the deadline of the connection
		ping(t, framer)
	}
}

// ping waits until the server has processed the frames before.
func ping(t *testing.T, framer *xhttp2.Framer) {
	t.Helper()
	if err := framer.WritePing(false, [8]byte{}); err != nil {
		t.Fatal(err)
	}
	awaitFrame(t, framer, func(frame xhttp2.Frame) bool {
		ping, ok := frame.(*xhttp2.PingFrame)
		return ok && ping.IsAck()
	})
}

func awaitFrame(t *testing.T, framer *xhttp2.Framer, is func(xhttp2.Frame) bool) {
	t.Helper()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if is(frame) {
			return
		}
	}
}

// At the critical level connections without progress are closed, the largest first. The GOAWAY names the
// last stream that was handled, so that clients repeat later requests.
func TestCriticalLevelClosesConnections(t *testing.T) {
	t.Parallel()
	s := serveMemory(t, 20, func(http.ResponseWriter, *http.Request) {})
	conn := s.dial(t, "127.0.0.1")
	framer := startHTTP2(t, conn)
	if err := framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 5, BlockFragment: headerBlock(t), EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	awaitFrame(t, framer, func(frame xhttp2.Frame) bool {
		return frame.Header().StreamID == 5 && frame.Header().Flags.Has(xhttp2.FlagDataEndStream)
	})
	for i := range 4 { // other callers use up the rest
		var other budget.Reservation
		other.Open(s.budget, nil, budget.Known, string(rune('a'+i)))
		if err := other.Grow(budget.Write, s.budget.CallerShare(budget.Known)*97/100); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(other.Release)
	}
	if text, last, err := goAwayText(framer); text != "server overloaded" || last != 5 {
		t.Errorf("GOAWAY says %q, last stream %d, %v, want %q, last stream 5", text, last, err, "server overloaded")
	}
}
