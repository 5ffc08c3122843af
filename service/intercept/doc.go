// Package intercept holds what every call passes between the wire and its handler:
// the log line, the one table from errors to answers, the recovery from panics, the
// deadline, the position that an answer reflects, and the rules of the proto.
//
// Each type is a connect.Interceptor that covers unary calls and streams alike; a
// stream that slips past one of them would be a hole. The order is not decided here
// but in package server, as one list. What happens before a message is decoded, and
// what cannot be decoded, is seen by none of them: unary messages are decoded before
// the first interceptor runs.
package intercept

import "connectrpc.com/connect"

// serverOnly is the client half of interceptors that belong to a server.
type serverOnly struct{}

// WrapStreamingClient returns next as it is.
func (serverOnly) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
