package transport_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/transport"
)

// endless serves a handler that writes until an error, which it sends to ended.
func endless(t *testing.T) (guard *transport.Guard, addr string, ended <-chan error) {
	t.Helper()
	errs := make(chan error, 1)
	guard, addr = serve(t, options(), func(w http.ResponseWriter, r *http.Request) {
		if x, ok := r.Context().Value(flusher{}).(*transport.Exchange); ok {
			x.MarkStreaming()
		}
		row := make([]byte, 64<<10)
		for {
			if _, err := w.Write(row); err != nil {
				errs <- err
				return
			}
		}
	})
	return guard, addr, errs
}

func request(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A stalled write is aborted after the drain timeout, although the stall timeout is a minute.
func TestShortenTimeoutsAbortsStalledWrite(t *testing.T) {
	t.Parallel()
	guard, addr, ended := endless(t)
	request(t, addr)
	select {
	case err := <-ended:
		t.Fatalf("Write() = %v before ShortenTimeouts", err)
	case <-time.After(200 * time.Millisecond):
	}
	guard.ShortenTimeouts(time.Hour) // above the stall timeout: no effect
	guard.ShortenTimeouts(100 * time.Millisecond)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Write() = nil, want an error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("write not aborted within 20 s")
	}
	if guard.StalledWrites() != 1 {
		t.Errorf("StalledWrites() = %d, want 1", guard.StalledWrites())
	}
}

// A slow reader is not aborted.
func TestShortenTimeoutsKeepsSlowReader(t *testing.T) {
	t.Parallel()
	guard, addr, ended := endless(t)
	conn := request(t, addr)
	guard.ShortenTimeouts(time.Second)
	reader := bufio.NewReaderSize(conn, 1<<20)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if _, err := reader.Discard(1 << 20); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("Write() to a slow reader = %v", err)
		case <-time.After(100 * time.Millisecond): // slow reader
		}
	}
	_ = conn.Close()
	if err := <-ended; err == nil {
		t.Error("Write() = nil, want an error")
	}
}

// Uncork sends a header that was flushed while corked, although the stream has no data yet.
func TestUncorkSendsHeader(t *testing.T) {
	guard := transport.NewGuard(options())
	defer guard.Close()
	recorder := &countingRecorder{ResponseRecorder: httptest.NewRecorder()}
	guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, ok := r.Context().Value(flusher{}).(*transport.Exchange)
		if !ok {
			t.Fatal("no Exchange in the context")
		}
		x.Cork()
		_ = http.NewResponseController(w).Flush()
		x.Uncork()
	})).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if recorder.flushes != 1 {
		t.Errorf("%d flushes, want 1", recorder.flushes)
	}
}
