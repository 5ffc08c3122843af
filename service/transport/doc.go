// Package transport contains the layers below the mux: connections, protocols, limits on input, and
// stall detection.
//
// Guard bounds the time for which a client can occupy a handler: a response write that is stalled
// for the stall timeout is aborted, and so is a request body that does not arrive within the body
// timeout. Listener limits connections and their memory, service/http2 the frames of HTTP/2.
//
// The package does not depend on users, service errors or configuration; errors to respond with are
// passed in as options.
package transport
