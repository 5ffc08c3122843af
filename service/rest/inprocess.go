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

// inProcess is the HTTP client of the in-process Connect clients. It calls the handler directly.
type inProcess struct{ opts Options }

// inProcessCall is the state of one in-process stream, stored in the context of the call.
type inProcessCall struct {
	outer    *http.Request    // the client's request
	idle     func(waits bool) // see pipe
	done     sync.WaitGroup
	panicErr error // panic of the handler; valid after done
}

type inProcessCallKey struct{}

// Do runs the handler on another goroutine, and returns when it has sent the header.
func (c inProcess) Do(r *http.Request) (*http.Response, error) {
	p, ok := r.Context().Value(inProcessCallKey{}).(*inProcessCall)
	if !ok {
		return nil, errors.New("in-process call without its state in the context")
	}
	body := newPipe(p.idle)
	w := &streamWriter{pipe: body, header: make(http.Header), sent: make(chan struct{})}
	in := r.WithContext(c.opts.WithFlusher(r.Context(), w))
	in.URL = &url.URL{Path: r.URL.Path}
	in.RequestURI = r.URL.Path
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	in.Host, in.RemoteAddr, in.TLS = p.outer.Host, p.outer.RemoteAddr, p.outer.TLS
	p.done.Go(func() {
		// There is no net/http here to recover from a panic.
		defer func() {
			var err error
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v", v)
				p.panicErr = fmt.Errorf("%w\n%s", err, debug.Stack())
			}
			w.WriteHeader(http.StatusOK)
			body.end(err)
		}()
		c.opts.Handler.ServeHTTP(w, in)
	})
	select {
	case <-w.sent:
	case <-r.Context().Done():
		_ = body.Close() // unblocks the handler
		return nil, r.Context().Err()
	}
	return &http.Response{
		StatusCode: w.status, Status: http.StatusText(w.status), Header: w.final,
		Proto: "HTTP/2.0", ProtoMajor: 2, ContentLength: -1, Body: body, Request: r,
	}, nil
}

// streamWriter is the http.ResponseWriter of the handler. header belongs to the handler's
// goroutine; final and status are valid once sent is closed.
type streamWriter struct {
	pipe   *pipe
	header http.Header

	sent   chan struct{}
	begun  bool
	held   bool // by the handler
	status int
	final  http.Header
}

// Header returns the response header.
func (w *streamWriter) Header() http.Header { return w.header }

// WriteHeader makes Do return.
func (w *streamWriter) WriteHeader(status int) {
	if w.begun || status < http.StatusOK {
		return
	}
	w.begun = true
	w.status, w.final = status, w.header.Clone()
	close(w.sent)
}

// Write writes to the pipe. It blocks while the pipe is full.
func (w *streamWriter) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(data)
}

// Flush sends the header and the written data, unless the handler holds them.
func (w *streamWriter) Flush() {
	w.WriteHeader(http.StatusOK)
	if !w.held {
		w.pipe.hold(false, false)
	}
}

// Cork reports that the handler has more data ready.
func (w *streamWriter) Cork() {
	w.held = true
	w.pipe.hold(true, false)
}

// Uncork reports that the handler waits for data.
func (w *streamWriter) Uncork() {
	w.held = false
	w.WriteHeader(http.StatusOK)
	w.pipe.hold(false, true)
}

// ownHeaders belong to the exchange with the client, and are not forwarded.
var ownHeaders = []string{
	"Accept", "Accept-", "Cache-Control", "Connect-", "Connection", "Content-", "Expect",
	"Grpc-", "If-", "Keep-Alive", "Last-Event-Id", "Pragma", "Proxy-", "Range", "Te",
	"Trailer", "Transfer-Encoding", "Upgrade", "X-Server-Timeout",
}

// forward copies the end-to-end headers.
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
