package rest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
)

// inProcess calls a handler as if it were a server: it is the http client of the
// streams' Connect clients.
type inProcess struct{ opts Options }

// passage is one stream within the process. It comes along in the context of the
// call.
type passage struct {
	outer *http.Request    // of the caller
	idle  func(waits bool) // see pipe
	done  sync.WaitGroup
	fault error // what the handler panicked with; read after done
}

type passageKey struct{}

// Do runs the handler in a goroutine of its own, and returns when it has sent the
// header.
func (c inProcess) Do(r *http.Request) (*http.Response, error) {
	p, ok := r.Context().Value(passageKey{}).(*passage)
	if !ok {
		return nil, errors.New("a call within the process without its passage")
	}
	body := newPipe(p.idle)
	w := &streamWriter{pipe: body, header: make(http.Header), sent: make(chan struct{})}
	in := r.WithContext(c.opts.WithFlusher(r.Context(), w))
	in.URL = &url.URL{Path: r.URL.Path}
	in.RequestURI = r.URL.Path
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	in.Host, in.RemoteAddr, in.TLS = p.outer.Host, p.outer.RemoteAddr, p.outer.TLS
	p.done.Go(func() {
		// net/http would catch a panic of a handler; here nobody else does.
		defer func() {
			var err error
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v", v)
				p.fault = fmt.Errorf("%w\n%s", err, debug.Stack())
			}
			w.WriteHeader(http.StatusOK)
			body.end(err)
		}()
		c.opts.Handler.ServeHTTP(w, in)
	})
	select {
	case <-w.sent:
	case <-r.Context().Done():
		_ = body.Close() // there will be no reader whom the handler could wait for
		return nil, r.Context().Err()
	}
	return &http.Response{
		StatusCode: w.status, Status: http.StatusText(w.status), Header: w.final,
		Proto: "HTTP/2.0", ProtoMajor: 2, ContentLength: -1, Body: body, Request: r,
	}, nil
}

// streamWriter is the handler's end. Its header is for the handler's goroutine; final
// and status are set once, before sent is closed.
type streamWriter struct {
	pipe   *pipe
	header http.Header

	sent   chan struct{}
	begun  bool
	held   bool // by the handler
	status int
	final  http.Header
}

// Header gives the handler's header.
func (w *streamWriter) Header() http.Header { return w.header }

// WriteHeader lets the caller of the handler go on.
func (w *streamWriter) WriteHeader(status int) {
	if w.begun || status < http.StatusOK {
		return
	}
	w.begun = true
	w.status, w.final = status, w.header.Clone()
	close(w.sent)
}

// Write hands on what the handler writes, and waits while too much is ahead.
func (w *streamWriter) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(data)
}

// Flush sends the header and what was written, unless the handler holds it. It says
// nothing of what comes next, which may be the end.
func (w *streamWriter) Flush() {
	w.WriteHeader(http.StatusOK)
	if !w.held {
		w.pipe.hold(false, false)
	}
}

// Hold says that the handler has more at hand.
func (w *streamWriter) Hold() {
	w.held = true
	w.pipe.hold(true, false)
}

// Release says that the handler is about to wait.
func (w *streamWriter) Release() {
	w.held = false
	w.WriteHeader(http.StatusOK)
	w.pipe.hold(false, true)
}

// ownHeaders belong to the caller's exchange with this server, and not to the call
// within it.
var ownHeaders = []string{
	"Accept", "Accept-", "Cache-Control", "Connect-", "Connection", "Content-", "Expect",
	"Grpc-", "If-", "Keep-Alive", "Last-Event-Id", "Pragma", "Proxy-", "Range", "Te",
	"Trailer", "Transfer-Encoding", "Upgrade", "X-Server-Timeout",
}

// forward copies the headers that are of use to the other side.
func forward(to, from http.Header) {
	for name, values := range from {
		if !isOwn(name) {
			to[name] = values
		}
	}
}

func isOwn(name string) bool {
	for _, own := range ownHeaders {
		if name == own || strings.HasSuffix(own, "-") && strings.HasPrefix(name, own) {
			return true
		}
	}
	return false
}
