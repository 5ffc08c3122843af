package transport

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// Nothing is kept of an HTTP/2 connection that has ended, neither in the set of connections nor in the context of all calls.
func TestEndedConnectionsAreForgotten(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]bool{"http2": true, "net/http": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connections := NewConnections()
			server := NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "response")
			}), ServerOptions{StdHTTP2: !own, MaxConcurrentStreams: 10, Logger: slog.New(slog.DiscardHandler)})
			const conns = 20
			closed := make(chan bool, 4*conns)
			server.ConnContext = ConnContext
			server.ConnState = func(conn net.Conn, state http.ConnState) {
				connections.Track(conn, state)
				if state == http.StateClosed {
					closed <- true
				}
			}
			inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(Listen(inner, ListenOptions{StallTimeout: time.Minute})) }()
			defer func() {
				_ = server.Close()
				if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			}()
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			for range conns {
				transport := &http.Transport{Protocols: &protocols}
				client := &http.Client{Transport: transport}
				res, err := client.Get("http://" + inner.Addr().String()) //nolint:noctx // local
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				transport.CloseIdleConnections()
			}
			timeout := time.After(time.Minute)
			for {
				connections.mu.Lock()
				left := len(connections.http2)
				connections.mu.Unlock()
				if left == 0 {
					return
				}
				select {
				case <-closed:
				case <-timeout:
					t.Fatalf("%d of %d connections are kept after their end", left, conns)
				}
			}
		})
	}
}
