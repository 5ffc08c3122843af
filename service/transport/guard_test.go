package transport_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/transport"
)

var errLate = errors.New("late")

// flusher is the control over flushes that a handler finds in its context.
type flusher struct{}

func options() transport.GuardOptions {
	return transport.GuardOptions{
		StallTimeout: time.Minute, BodyTimeout: time.Minute,
		MaxMessageBytes: func(*http.Request) int64 { return 1 << 20 },
		TooLarge:        func(*http.Request, int64) error { return errors.New("too large") },
		Late:            func() error { return errLate },
		Streams:         func(r *http.Request) bool { return r.URL.Path == "/stream" },
		Context: func(r *http.Request, x *transport.Exchange) context.Context {
			return context.WithValue(r.Context(), flusher{}, x)
		},
		Logger: slog.New(slog.DiscardHandler),
	}
}

// serve runs a guarded handler on a port until the test ends.
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

func TestHeldFlush(t *testing.T) {
	guard := transport.NewGuard(options())
	defer guard.Close()
	recorder := &countingRecorder{ResponseRecorder: httptest.NewRecorder()}
	guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, ok := r.Context().Value(flusher{}).(*transport.Exchange)
		if !ok {
			t.Fatal("no control in the context")
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
		x.Hold()
		send()
		send()
		expect(1)
		x.Release()
		expect(2)
		x.Release() // there is nothing more to send
		expect(2)
		send()
		expect(3)
	})).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if recorder.Body.Len() != 4*len("row") {
		t.Errorf("got %q", recorder.Body)
	}
}

type countingRecorder struct {
	*httptest.ResponseRecorder

	flushes int
}

func (r *countingRecorder) Flush() { r.flushes++ }

// A body that does not come ends the request, over both versions of HTTP; one that is
// a stream may take its time.
func TestBodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		opts := options()
		opts.BodyTimeout = 100 * time.Millisecond
		read := make(chan error, 1)
		guard, addr := serve(t, opts, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
		})
		never, end := io.Pipe()
		sent := send(t, http2, addr, "/call", never)
		if err := <-read; !errors.Is(err, errLate) {
			t.Errorf("HTTP/2 %v: the body ended with %v", http2, err)
		}
		if guard.LateBodies() != 1 {
			t.Errorf("HTTP/2 %v: got %d late bodies", http2, guard.LateBodies())
		}
		_ = end.Close()
		<-sent

		never, end = io.Pipe()
		sent = send(t, http2, addr, "/stream", never)
		if _, err := io.WriteString(end, "slow"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * opts.BodyTimeout) // a caller who thinks
		_ = end.Close()
		if err := <-read; err != nil {
			t.Errorf("HTTP/2 %v: a stream was cut: %v", http2, err)
		}
		<-sent
	}
}

// A handler that does not read the body of an HTTP/1.1 request leaves that to
// net/http, which must not wait for ever either.
func TestBodyThatNobodyReads(t *testing.T) {
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
		t.Errorf("the connection stays open: %v", err)
	}
}

// pipeListener accepts what it is sent.
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

// The last chunk of an HTTP/1.1 answer, which net/http writes when the handler has
// returned, is not waited for either once the peer takes nothing.
func TestLastChunkThatNobodyTakes(t *testing.T) {
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
	here, there := net.Pipe() // which buffers nothing
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
		t.Error("the connection stays open")
	}
}

// send begins a request; the channel is closed when it has ended in whatever way.
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
		answer, err := client.RoundTrip(request)
		if err == nil {
			_ = answer.Body.Close()
		}
	}()
	return sent
}

// The controller of a request is not touched once its handler has returned: net/http
// reuses or drops what is behind it.
func TestAnswersAreWholeAndGuardForgets(t *testing.T) {
	t.Parallel()
	opts := options()
	opts.StallTimeout, opts.BodyTimeout = 100*time.Millisecond, 100*time.Millisecond
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
	end := time.Now().Add(500 * time.Millisecond)
	for time.Now().Before(end) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/call", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || len(got) != len(big) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	if guard.Stalls() != 0 || guard.LateBodies() != 0 {
		t.Errorf("got %d stalls, %d late bodies", guard.Stalls(), guard.LateBodies())
	}
}

// A handler that panics has failed, whatever it had sent by then; one that cuts the
// connection has not.
func TestAPanicIsNoticed(t *testing.T) {
	type seen struct {
		status int
		broken bool
	}
	opts := options()
	done := make(chan seen, 1)
	opts.Done = func(_ *http.Request, x *transport.Exchange) { done <- seen{x.Status(), x.Broken()} }
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
	for path, want := range map[string]seen{"/early": {500, true}, "/late": {500, true}, "/cut": {200, false}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		if err == nil {
			_ = answer.Body.Close()
		}
		if got := <-done; got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
}

// A request without a body over HTTP/2 has a body all the same, of no bytes. It is not
// waited for, however long the answer takes.
func TestNoBodyIsNotLate(t *testing.T) {
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
	// One that came after it, and whose body does not come, is cut; so the stream would
	// have been.
	never, end := io.Pipe()
	late := make(chan struct{})
	go func() {
		defer close(late)
		if answer, err := send(http.MethodPost, never); err == nil {
			_ = answer.Body.Close()
		}
	}()
	if err := <-read; err == nil {
		t.Error("the body was read to its end")
	}
	if n := guard.LateBodies(); n != 1 {
		t.Errorf("%d requests were cut", n)
	}
	_ = end.Close()
	<-late
	close(done)
	_ = stream.Body.Close()
}

// What is left of a body over HTTP/1.1 is waited for no longer than the answer may take.
func TestAnswerIsNotTooLateForItsBody(t *testing.T) {
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
