package transport

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/yourorg/userservice/service/http2"
)

const (
	// maxHeaderBytes fits a Connect GET or a REST query with a thousand ids, maxHeaderFields the
	// headers of browsers and proxies.
	maxHeaderBytes  = 32 << 10
	maxHeaderFields = 100
	// streamWindow and connWindow bound the unread request body bytes of an HTTP/2 stream and
	// connection.
	streamWindow = 64 << 10
	connWindow   = 256 << 10
	// readFrameSize is the minimum SETTINGS_MAX_FRAME_SIZE. Each connection holds a buffer of that
	// size.
	readFrameSize = 16 << 10
)

// ServerOptions are the settings of NewServer.
type ServerOptions struct {
	// StdHTTP2 serves HTTP/2 by net/http in place of service/http2. It has the limits of net/http only: control frames,
	// incomplete header blocks, unread bodies and queued responses are neither limited nor accounted further.
	StdHTTP2             bool
	MaxConcurrentStreams int // per HTTP/2 connection
	// HeaderTimeout bounds the time from the first byte of a request to the end of its header, and
	// the time of a TLS handshake.
	HeaderTimeout time.Duration
	// IdleTimeout closes connections without a request. 0 means no timeout.
	IdleTimeout time.Duration
	PingAfter   time.Duration // idle time before an HTTP/2 ping is sent
	PingTimeout time.Duration // time to wait for the ping acknowledgement
	// WriteTimeout closes a connection on which no byte can be written for so long. It does not
	// bound the duration of a response.
	WriteTimeout time.Duration
	Logger       *slog.Logger // receives the errors of net/http
}

// NewServer returns a server for HTTP/1.1 and HTTP/2 with prior knowledge on one port. TLS is
// terminated by the listener, see ListenOptions. There is no timeout for a whole request or
// response, because streams are long-lived.
func NewServer(handler http.Handler, opts ServerOptions) *Server {
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
		ErrorLog: slog.NewLogLogger(newLimitedHandler(opts.Logger.Handler()), slog.LevelWarn),
	}
	limitHeaderFields(server)
	s := &Server{Server: server}
	if !opts.StdHTTP2 {
		s.own = useHTTP2(server)
	}
	return s
}

// Server is an http.Server, of which HTTP/2 may be that of service/http2.
type Server struct {
	*http.Server

	own *http2.Server // nil: HTTP/2 is that of net/http
}

// Shutdown is that of http.Server. It also waits for the connections of service/http2.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.Server.Shutdown(ctx)
	if err == nil && s.own != nil {
		err = s.own.Wait(ctx)
	}
	return err
}

// Close closes all connections.
func (s *Server) Close() error {
	err := s.Server.Close()
	if s.own != nil {
		s.own.Close()
	}
	return err
}
