package transport_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/yourorg/userservice/service/transport"
)

// A body without progress is aborted after the drain timeout, although the body timeout is a
// minute. A slow body is not.
func TestShortenTimeoutsAbortsStalledBody(t *testing.T) {
	t.Parallel()
	read := make(chan error, 2)
	guard, addr := serve(t, options(), func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	})
	begin := func() net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	slow := begin()
	guard.ShortenTimeouts(500 * time.Millisecond)
	for range 20 { // slow client, for two seconds
		if _, err := slow.Write([]byte{'x'}); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
	if err := <-read; err != nil {
		t.Errorf("Read(slow body) = %v, want nil", err)
	}
	begin()
	if err := <-read; !errors.Is(err, errBodyTimeout) {
		t.Errorf("Read(stalled body) = %v, want %v", err, errBodyTimeout)
	}
}

// The drain timeout does not apply to a unary response.
func TestShortenTimeoutsKeepsUnaryResponse(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	guard, addr := serve(t, options(), func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, size))
	})
	guard.ShortenTimeouts(50 * time.Millisecond)
	conn := request(t, addr)
	<-time.After(time.Second) // the client reads nothing
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
		t.Errorf("response has %d bytes, %v, want %d", n, err, size)
	}
}

// Drain returns when no connection is left that can carry a request. When its context ends, it
// closes connections without a request.
func TestConnectionsDrain(t *testing.T) {
	t.Parallel()
	guard := transport.NewGuard(options())
	defer guard.Close()
	connections := transport.NewConnections()
	server := transport.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "response")
	})), transport.ServerOptions{MaxConcurrentStreams: 10, Logger: options().Logger})
	arrived := make(chan struct{}, 10)
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		connections.Track(conn, state)
		if state == http.StateNew {
			arrived <- struct{}{}
		}
	}
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(transport.Listen(inner, transport.ListenOptions{StallTimeout: time.Minute}))
	}()
	defer func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	connections.Drain(t.Context()) // no connections

	kept := request(t, inner.Addr().String())
	responses := bufio.NewReader(kept)
	ask := func() (ends bool) {
		resp, err := http.ReadResponse(responses, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }() // fully read
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.Close
	}
	if ask() {
		t.Error("first response has Connection: close, want keep-alive")
	}
	<-arrived
	guard.DisableKeepAlives()
	drained := make(chan struct{})
	go func() {
		connections.Drain(t.Context())
		close(drained)
	}()
	if _, err := fmt.Fprint(kept, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if !ask() {
		t.Error("response after DisableKeepAlives has no Connection: close")
	}
	<-drained

	silent, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	<-arrived
	over, cancel := context.WithCancel(t.Context())
	cancel()
	connections.Drain(over)
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read(connection without a request) = %v, want EOF", err)
	}
}

// Drain notifies HTTP/2 clients with a GOAWAY that rejects no stream, so a request in transit is served.
func TestDrainServesStreamsInTransit(t *testing.T) {
	t.Parallel()
	connections := transport.NewConnections()
	server := transport.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "response")
	}), transport.ServerOptions{MaxConcurrentStreams: 10, Logger: options().Logger})
	server.ConnState = connections.Track
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(transport.Listen(inner, transport.ListenOptions{StallTimeout: time.Minute}))
	}()
	defer func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	request := func(stream uint32) {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/"}} {
			if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
			t.Fatal(err)
		}
	}
	// await returns the last stream of the GOAWAY before the end of a stream; 0: none.
	await := func(stream uint32) (last uint32) {
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if goAway, ok := frame.(*http2.GoAwayFrame); ok {
				last = goAway.LastStreamID
			}
			if frame.Header().StreamID == stream && frame.Header().Flags.Has(http2.FlagDataEndStream) {
				return last
			}
		}
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	request(1)
	if last := await(1); last != 0 {
		t.Errorf("GOAWAY with the last stream %d before Drain", last)
	}
	connections.Drain(t.Context())
	request(3)
	if last := await(3); last != 1<<31-1 {
		t.Errorf("last stream of the GOAWAY = %d, want %d", last, 1<<31-1)
	}
}
