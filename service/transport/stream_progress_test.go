package transport_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/yourorg/userservice/service/transport"
)

// A slow reader that makes progress is not aborted, although writing a batch takes longer than the
// stall timeout.
func TestSlowConnectionIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall, size = time.Second, 512 << 10
		opts := options()
		opts.StallTimeout = stall
		guard := transport.NewGuard(opts)
		defer guard.Close()
		written := make(chan error, 1)
		server := transport.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, size))
			written <- err
		})), transport.ServerOptions{WriteTimeout: stall, Logger: opts.Logger})
		server.ConnContext = transport.ConnContext
		here, there := net.Pipe()
		inner := pipeListener(make(chan net.Conn, 1))
		inner <- there
		serving := make(chan error, 1)
		go func() { serving <- server.Serve(transport.Listen(inner, transport.ListenOptions{StallTimeout: stall})) }()
		var reading sync.WaitGroup
		reading.Go(func() { // a small part of a batch per tenth of the timeout
			for piece := make([]byte, 1<<10); ; time.Sleep(stall / 10) {
				if _, err := io.ReadFull(here, piece); err != nil {
					return
				}
			}
		})
		ask(t, here)
		if err := <-written; err != nil || guard.StalledWrites() != 0 {
			t.Errorf("Write() = %v with %d stalled writes, want nil and 0", err, guard.StalledWrites())
		}
		_ = here.Close()
		_ = server.Close()
		if err := <-serving; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		reading.Wait()
	})
}

// ask sends an HTTP/2 request with large flow-control windows.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	var wire, block bytes.Buffer
	compressed := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"}, {Name: ":path", Value: "/"},
	} {
		_ = compressed.WriteField(f) // into memory
	}
	wire.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&wire, nil)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	_ = framer.WriteWindowUpdate(0, 1<<30)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	if _, err := conn.Write(wire.Bytes()); err != nil {
		t.Fatal(err)
	}
}
