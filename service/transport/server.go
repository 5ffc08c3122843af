package transport

import (
	"log/slog"
	"net/http"
	"time"
)

const (
	// maxHeaderBytes has room for a Connect GET or a REST query with a thousand ids, and
	// maxHeaderFields for what browsers and proxies send.
	maxHeaderBytes  = 32 << 10
	maxHeaderFields = 100
	// streamWindow and connWindow bound the body bytes of one stream, and of all streams of
	// one HTTP/2 connection, that no handler has read.
	streamWindow = 64 << 10
	connWindow   = 256 << 10
	// firstConnWindow is the window of a connection before the server enlarges it (RFC
	// 9113, section 6.9.2).
	firstConnWindow = 64<<10 - 1
	// readFrameSize is the least that HTTP/2 allows. More pins a buffer of that size
	// to each connection.
	readFrameSize = 16 << 10
)

// ServerOptions are the settings of connections.
type ServerOptions struct {
	MaxConcurrentStreams int // of one HTTP/2 connection
	// HeaderTimeout bounds the time from a connection's first byte of a request, or of
	// its handshake, to the end of the header.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection without a request stays open. Zero would
	// mean for ever.
	IdleTimeout time.Duration
	PingAfter   time.Duration // silence after which an HTTP/2 peer is pinged
	PingTimeout time.Duration // how long it may take to answer
	// WriteTimeout is how long a connection may take no byte at all before it is
	// closed. It is not a bound on the time of an answer.
	WriteTimeout time.Duration
	Logger       *slog.Logger // for what net/http has to say
}

// NewServer returns a server for HTTP/1.1 and HTTP/2 on one port, told apart by how a
// connection begins. TLS is the listener's, see ListenOptions.
// It has no timeout for a whole request or answer: streams last.
func NewServer(handler http.Handler, opts ServerOptions) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: opts.HeaderTimeout,
		IdleTimeout:       opts.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: opts.MaxConcurrentStreams,
			MaxReadFrameSize:     readFrameSize,

			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connWindow,

			SendPingTimeout:  opts.PingAfter,
			PingTimeout:      opts.PingTimeout,
			WriteByteTimeout: opts.WriteTimeout,
		},
		ErrorLog: slog.NewLogLogger(newFewLines(opts.Logger.Handler()), slog.LevelWarn),
	}
	limitHeaderFields(server)
	return server
}
