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

// endless serves a handler that writes until it cannot, and tells that error.
func endless(t *testing.T) (guard *transport.Guard, addr string, ended <-chan error) {
	t.Helper()
	errs := make(chan error, 1)
	guard, addr = serve(t, options(), func(w http.ResponseWriter, r *http.Request) {
		if x, ok := r.Context().Value(flusher{}).(*transport.Exchange); ok {
			x.Flows()
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

// request asks for an answer.
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

// A reader that takes nothing is cut soon once the server is in a hurry, although the
// stall limit is a minute.
func TestHurryCutsWhoTakesNothing(t *testing.T) {
	t.Parallel()
	guard, addr, ended := endless(t)
	request(t, addr)
	select {
	case err := <-ended:
		t.Fatalf("cut without a hurry: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	guard.Hurry(time.Hour) // more than the stall limit: nothing changes
	guard.Hurry(100 * time.Millisecond)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the write succeeded")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("not cut")
	}
	if guard.Stalls() != 1 {
		t.Errorf("got %d stalls", guard.Stalls())
	}
}

// A reader that takes something now and then is not cut.
func TestHurryLeavesSlowReaders(t *testing.T) {
	t.Parallel()
	guard, addr, ended := endless(t)
	conn := request(t, addr)
	guard.Hurry(time.Second)
	reader := bufio.NewReaderSize(conn, 1<<20)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if _, err := reader.Discard(1 << 20); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("cut: %v", err)
		case <-time.After(100 * time.Millisecond): // what a slow reader does
		}
	}
	_ = conn.Close()
	if err := <-ended; err == nil {
		t.Error("the write succeeded")
	}
}

// A stream that has no row yet flushes its header alone. If that is held, Release owes
// it: the caller waits for it.
func TestReleaseSendsTheHeader(t *testing.T) {
	guard := transport.NewGuard(options())
	defer guard.Close()
	recorder := &countingRecorder{ResponseRecorder: httptest.NewRecorder()}
	guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, ok := r.Context().Value(flusher{}).(*transport.Exchange)
		if !ok {
			t.Fatal("no control in the context")
		}
		x.Hold()
		_ = http.NewResponseController(w).Flush()
		x.Release()
	})).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if recorder.flushes != 1 {
		t.Errorf("got %d flushes", recorder.flushes)
	}
}
