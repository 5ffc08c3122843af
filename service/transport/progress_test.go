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

// A reader over a slow connection takes what comes and is not cut, although what has
// been gathered for it takes longer than the stall limit to be written.
func TestSlowConnectionIsNotCut(t *testing.T) {
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
		reading.Go(func() { // a small part of what is gathered each tenth of the limit
			for piece := make([]byte, 1<<10); ; time.Sleep(stall / 10) {
				if _, err := io.ReadFull(here, piece); err != nil {
					return
				}
			}
		})
		ask(t, here)
		if err := <-written; err != nil || guard.Stalls() != 0 {
			t.Errorf("got %v, %d stalls", err, guard.Stalls())
		}
		_ = here.Close()
		_ = server.Close()
		if err := <-serving; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		reading.Wait()
	})
}

// ask makes a request over HTTP/2, with windows wide open.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	var wire, block bytes.Buffer
	packed := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"}, {Name: ":path", Value: "/"},
	} {
		_ = packed.WriteField(f) // into memory
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
