package transport_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/transport"
)

// A body that brings nothing is cut soon once the server is in a hurry, although it could
// take a minute. One that goes on coming is not.
func TestHurryCutsBodiesThatBringNothing(t *testing.T) {
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
	guard.Hurry(500 * time.Millisecond)
	for range 20 { // as a slow peer does, for two seconds
		if _, err := slow.Write([]byte{'x'}); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
	if err := <-read; err != nil {
		t.Errorf("a body that came slowly: %v", err)
	}
	begin()
	if err := <-read; !errors.Is(err, errLate) {
		t.Errorf("a body that did not come: %v", err)
	}
}

// The answer to a call is not cut in a hurry: its caller cannot resume it elsewhere.
func TestHurryLeavesAnswersTheirTime(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	guard, addr := serve(t, options(), func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, size))
	})
	guard.Hurry(50 * time.Millisecond)
	conn := request(t, addr)
	<-time.After(time.Second) // in which the reader takes nothing
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// SeeOff returns when nobody is left who could bring a request, or closes those who have
// brought none when its time is over.
func TestSeeOff(t *testing.T) {
	t.Parallel()
	guard := transport.NewGuard(options())
	defer guard.Close()
	connections := transport.NewConnections()
	server := transport.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "answer")
	})), transport.ServerOptions{MaxConcurrentStreams: 10, Logger: options().Logger})
	arrived := make(chan struct{}, 10)
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		connections.Watch(conn, state)
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
	connections.SeeOff(t.Context()) // there is nobody

	kept := request(t, inner.Addr().String())
	answers := bufio.NewReader(kept)
	ask := func() (ends bool) {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }() // read to its end
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.Close
	}
	if ask() {
		t.Error("the connection was to be kept")
	}
	<-arrived
	guard.Depart()
	quiet := make(chan struct{})
	go func() {
		connections.SeeOff(t.Context())
		close(quiet)
	}()
	if _, err := fmt.Fprint(kept, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if !ask() {
		t.Error("the answer does not say that the connection ends")
	}
	<-quiet

	silent, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	<-arrived
	over, cancel := context.WithCancel(t.Context())
	cancel()
	connections.SeeOff(over)
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection without a request: %v", err)
	}
}
