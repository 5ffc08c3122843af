// Package http2 is an HTTP/2 server (RFC 9113) for any http.Handler. Configure installs it into an
// http.Server through TLSNextProto, so HTTP/1.1, TLS, ALPN and the handler stay those of net/http.
//
// It supports requests and responses of any kind: bodies and trailers in both directions, streaming,
// informational responses, http.ResponseController, "Expect: 100-continue", responses before the body
// was read, and graceful shutdown. It leaves out server push, priorities (received and ignored), the
// upgrade from HTTP/1.1, and extended CONNECT.
//
// # Goroutines and state
//
// A connection has one reading goroutine, the one of net/http or its own (Hooks.Context). It decodes frames from a buffer and
// never writes to the connection. Handlers run on workers, which are reused with their grown stacks.
//
//   - The reading goroutine alone owns the input buffer, the HPACK decoder, the incomplete header block and
//     the frame budget.
//   - conn.mu guards everything that is shared: the streams with their bodies and windows, the windows of
//     the connection, the HPACK encoder and the queued output. There is one lock per connection, so no
//     state is kept twice.
//   - The goroutine of a handler owns its response writer up to the point where bytes are queued.
//   - One goroutine at a time writes to the connection (conn.writing). It writes everything that was queued,
//     until nothing is left: a worker whose response is complete, else a goroutine started for it.
//
// A request whose end is already in the input buffer starts its handler after its body was received, so
// reads of the body do not wait. The response of a handler that does not flush is queued at once: HEADERS, DATA
// and trailers are one write.
//
// # Bounds
//
// A connection has at most MaxConcurrentStreams open streams and as many running handlers; streams of which the
// handler must wait are queued and count as open. Unread body bytes are bounded by the
// receive windows. Queued DATA is bounded by maxQueued and queued control frames by maxControl; the reading goroutine
// blocks at the latter. Header lists are bounded in bytes and fields; a list over the limit is
// answered with 431, and header blocks over twice the limit end the connection. Declared trailers have up to 4 KiB. FrameLimits bounds
// frames that do not advance any stream. Idle connections hold no output buffers, and no
// input buffer if they are files or TLS.
//
// HTTP2Config.WriteByteTimeout bounds the time for which a connection accepts no output. A response whose client opens no
// window is bounded by http.Server.WriteTimeout and ResponseController.SetWriteDeadline only: how long a
// stream may wait is known to the handler. Progress tells a handler or middleware what the client has received.
//
// # Files
//
// In the order of RFC 9113: frame.go (section 4), header_block.go and request.go (4.3, 8.3), stream.go (5.1),
// flow.go (5.2, 6.9), receive.go (6), body.go (6.1), settings.go (6.5), goaway.go (6.8), send.go (frames out), response.go
// (8.1), tls.go (9.2), limits.go and timeouts.go (10.5), worker.go, conn.go and server.go.
package http2
