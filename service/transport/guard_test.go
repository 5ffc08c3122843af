package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/transport"
)

var errBodyTimeout = errors.New("body timeout")

// flusher is the context key of the Exchange.
type flusher struct{}

func options() transport.GuardOptions {
	return transport.GuardOptions{
		StallTimeout: time.Minute, BodyTimeout: time.Minute,
		MaxMessageBytes: func(*http.Request) int64 { return 1 << 20 },
		TooLarge:        func(*http.Request, int64) error { return errors.New("too large") },
		BodyTimedOut:    func() error { return errBodyTimeout },
		IsStream:        func(r *http.Request) bool { return r.URL.Path == "/stream" },
		Context: func(ctx context.Context, _ *http.Request, x *transport.Exchange) context.Context {
			return context.WithValue(ctx, flusher{}, x)
		},
		Logger: slog.New(slog.DiscardHandler),
	}
}

// guarded returns a handler behind a guard, which is closed when the test ends.
func guarded(t *testing.T, handler http.Handler) http.Handler {
	t.Helper()
	guard := transport.NewGuard(options())
	t.Cleanup(guard.Close)
	return guard.Wrap(handler)
}

// serve runs a guarded handler until the test ends.
func serve(t *testing.T, opts transport.GuardOptions, handler http.HandlerFunc) (guard *transport.Guard, addr string) {
	t.Helper()
	guard = transport.NewGuard(opts)
	server := transport.NewServer(guard.Wrap(handler), transport.ServerOptions{
		MaxConcurrentStreams: 10, Logger: opts.Logger,
	})
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := guard.WaitIdle(context.Background()); err != nil {
			t.Error(err)
		}
		guard.Close()
	})
	return guard, listener.Addr().String()
}

func TestCorkSuppressesFlush(t *testing.T) {
	guard := transport.NewGuard(options())
	defer guard.Close()
	recorder := &countingRecorder{ResponseRecorder: httptest.NewRecorder()}
	guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, ok := r.Context().Value(flusher{}).(*transport.Exchange)
		if !ok {
			t.Fatal("no Exchange in the context")
		}
		send := func() {
			_, _ = io.WriteString(w, "row")
			_ = http.NewResponseController(w).Flush()
		}
		expect := func(want int) {
			t.Helper()
			if recorder.flushes != want {
				t.Errorf("got %d flushes, want %d", recorder.flushes, want)
			}
		}
		send()
		expect(1)
		x.Cork()
		send()
		send()
		expect(1)
		x.Uncork()
		expect(2)
		x.Uncork() // nothing pending
		expect(2)
		send()
		expect(3)
	})).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if recorder.Body.Len() != 4*len("row") {
		t.Errorf("body = %q, want 4 rows", recorder.Body)
	}
}

type countingRecorder struct {
	*httptest.ResponseRecorder

	flushes int
}

func (r *countingRecorder) Flush() { r.flushes++ }

// A body that does not arrive is aborted, over HTTP/1.1 and HTTP/2. A stream has no timeout between
// messages.
func TestBodyTimeout(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		opts := options()
		opts.BodyTimeout = 100 * time.Millisecond
		read := make(chan error, 1)
		guard, addr := serve(t, opts, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
		})
		pipe, end := io.Pipe()
		sent := send(t, http2, addr, "/call", pipe)
		if err := <-read; !errors.Is(err, errBodyTimeout) {
			t.Errorf("HTTP/2 %v: Read(body) = %v, want %v", http2, err, errBodyTimeout)
		}
		if guard.BodyTimeouts() != 1 {
			t.Errorf("HTTP/2 %v: BodyTimeouts() = %d, want 1", http2, guard.BodyTimeouts())
		}
		_ = end.Close()
		<-sent

		pipe, end = io.Pipe()
		sent = send(t, http2, addr, "/stream", pipe)
		if _, err := io.WriteString(end, "slow"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * opts.BodyTimeout) // idle client
		_ = end.Close()
		if err := <-read; err != nil {
			t.Errorf("HTTP/2 %v: Read(stream) = %v, want nil", http2, err)
		}
		<-sent
	}
}

// If the handler does not read the body of an HTTP/1.1 request, net/http does, and must not wait
// longer than the timeout.
func TestUnreadBodyTimeoutOverHTTP1(t *testing.T) {
	t.Parallel()
	opts := options()
	opts.BodyTimeout = 100 * time.Millisecond
	_, addr := serve(t, opts, http.NotFound)
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("Read(connection) = %v, want EOF", err)
	}
}

// pipeListener accepts the connections sent to it.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	if conn, ok := <-l; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (l pipeListener) Close() error {
	close(l)
	return nil
}

func (pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// The last chunk of an HTTP/1.1 response, which net/http writes after the handler returned, is
// subject to the stall timeout.
func TestLastChunkStallTimeout(t *testing.T) {
	t.Parallel()
	opts := options()
	opts.StallTimeout = 100 * time.Millisecond
	guard := transport.NewGuard(opts)
	defer guard.Close()
	server := transport.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "all of it")
		_ = http.NewResponseController(w).Flush()
	})), transport.ServerOptions{Logger: opts.Logger})
	closed := make(chan struct{})
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	here, there := net.Pipe() // unbuffered
	defer func() { _ = here.Close() }()
	listener := pipeListener(make(chan net.Conn, 1))
	listener <- there
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	if _, err := io.WriteString(here, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	const end = "all of it\r\n"
	for got := ""; !strings.HasSuffix(got, end); {
		piece := make([]byte, 1)
		if _, err := here.Read(piece); err != nil {
			t.Fatal(err)
		}
		got += string(piece)
	}
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("connection not closed within 20 s")
	}
}

// send starts a request. The channel is closed when it has ended.
func send(t *testing.T, http2 bool, addr, path string, body io.Reader) <-chan struct{} {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	client := &http.Transport{Protocols: &protocols}
	t.Cleanup(client.CloseIdleConnections)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		response, err := client.RoundTrip(request)
		if err == nil {
			_ = response.Body.Close()
		}
	}()
	return sent
}

// The guard does not use the controller of a request after its handler has returned.
func TestControllerIsUnusedAfterHandler(t *testing.T) {
	t.Parallel()
	opts := options()
	opts.StallTimeout, opts.BodyTimeout = time.Second, time.Second // a loaded machine may stop the client for 100 ms
	big := strings.Repeat("x", 1<<20)
	guard, addr := serve(t, opts, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, big)
	})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	defer client.CloseIdleConnections()
	end := time.Now().Add(1500 * time.Millisecond)
	for time.Now().Before(end) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/call", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || len(got) != len(big) {
			t.Fatalf("response has %d bytes, %v, want %d", len(got), err, len(big))
		}
	}
	if guard.StalledWrites() != 0 || guard.BodyTimeouts() != 0 {
		t.Errorf("StalledWrites(), BodyTimeouts() = %d, %d, want 0, 0", guard.StalledWrites(), guard.BodyTimeouts())
	}
}

// A panic counts as a failure, with or without a partial response. http.ErrAbortHandler does not.
func TestPanicked(t *testing.T) {
	type result struct {
		status int
		broken bool
	}
	opts := options()
	done := make(chan result, 1)
	opts.Done = func(_ *http.Request, x *transport.Exchange) { done <- result{x.Status(), x.Panicked()} }
	var lines bytes.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	_, addr := serve(t, opts, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			_, _ = io.WriteString(w, "so far so good")
			fallthrough
		case "/early":
			panic("planted")
		default:
			panic(http.ErrAbortHandler)
		}
	})
	for path, want := range map[string]result{"/early": {500, true}, "/late": {500, true}, "/abort": {200, false}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		if err == nil {
			_ = response.Body.Close()
		}
		if got := <-done; got != want {
			t.Errorf("%s: Done called with %+v, want %+v", path, got, want)
		}
	}
}

// Over HTTP/2 a request without a body has an empty one. The body timeout does not apply to it.
func TestEmptyBodyHasNoTimeout(t *testing.T) {
	opts := options()
	opts.BodyTimeout = 50 * time.Millisecond
	done, read := make(chan struct{}), make(chan error, 1)
	guard, addr := serve(t, opts, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, err := io.ReadAll(r.Body)
			read <- err
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-done
	})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	defer client.CloseIdleConnections()
	send := func(method string, body io.Reader) (*http.Response, error) {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+"/", body)
		if err != nil {
			return nil, err
		}
		return client.Do(request)
	}
	stream, err := send(http.MethodGet, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	// A later request whose body does not arrive is aborted, so the stream would have been.
	pipe, end := io.Pipe()
	late := make(chan struct{})
	go func() {
		defer close(late)
		if response, err := send(http.MethodPost, pipe); err == nil {
			_ = response.Body.Close()
		}
	}()
	if err := <-read; err == nil {
		t.Error("Read(body) = nil, want a timeout")
	}
	if n := guard.BodyTimeouts(); n != 1 {
		t.Errorf("BodyTimeouts() = %d, want 1", n)
	}
	_ = end.Close()
	<-late
	close(done)
	_ = stream.Body.Close()
}

// The rest of an HTTP/1.1 body is not awaited longer than the response may take.
func TestResponseDoesNotWaitForBody(t *testing.T) {
	opts := options()
	opts.StallTimeout = 400 * time.Millisecond
	_, addr := serve(t, opts, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	line, err := io.ReadAll(io.LimitReader(conn, 12))
	if err != nil || string(line) != "HTTP/1.1 418" {
		t.Errorf("got %q, %v", line, err)
	}
}

// A request runs in a slot from its first instruction to Done, and waits without one for its body and
// for the flush of its response.
func TestRequestsRunInASlot(t *testing.T) {
	opts := options()
	opts.Scheduler = fair.NewScheduler()
	held := func(x *transport.Exchange) bool { was := x.Slot().Release(); x.Slot().Resume(was); return was }
	var inContext, inHandler, afterBody, flushed, inDone bool
	inner, done := opts.Context, make(chan struct{})
	opts.Context = func(ctx context.Context, r *http.Request, x *transport.Exchange) context.Context {
		inContext = held(x)
		return inner(ctx, r, x)
	}
	opts.Done = func(_ *http.Request, x *transport.Exchange) { inDone = held(x); close(done) }
	guard, addr := serve(t, opts, func(w http.ResponseWriter, r *http.Request) {
		x, _ := r.Context().Value(flusher{}).(*transport.Exchange)
		inHandler = held(x)
		_, _ = io.ReadAll(r.Body) // its error is not of interest
		afterBody = held(x)
		_ = http.NewResponseController(w).Flush()
		flushed = held(x)
	})
	<-send(t, true, addr, "/call", strings.NewReader("hello"))
	<-done
	if !inContext || !inHandler || !afterBody || flushed || !inDone {
		t.Errorf("slot held in Context, the handler, after the body, after a flush, in Done: %t, %t, %t, %t, %t, want all but the fourth",
			inContext, inHandler, afterBody, flushed, inDone)
	}
	if err := guard.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if running, _, _ := opts.Scheduler.Stats(); running != 0 {
		t.Errorf("slots held after the request: %d, want 0", running)
	}
}

// WaitIdle waits for a request that has no slot yet.
func TestWaitIdleWaitsForRequestsWithoutASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := options()
		opts.Scheduler = fair.NewScheduler()
		others := make([]fair.Slot, fair.Processors())
		for i := range others {
			others[i].Open(opts.Scheduler, fmt.Sprint("other", i))
			others[i].Acquire()
		}
		guard, served := transport.NewGuard(opts), false
		defer guard.Close()
		handler := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true }))
		go handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
		synctest.Wait()
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if err := guard.WaitIdle(canceled); err == nil || served {
			t.Errorf("WaitIdle with a waiting request = %v, served = %t, want an error before it is served", err, served)
		}
		for i := range others {
			others[i].Close()
		}
		if err := guard.WaitIdle(t.Context()); err != nil || !served {
			t.Errorf("WaitIdle = %v, served = %t, want nil after the request was served", err, served)
		}
	})
}
