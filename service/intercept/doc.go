// Package intercept contains the interceptors of the server: logging, metrics, error mapping,
// panic recovery, authorization, deadlines, limits, log positions and validation.
//
// Each interceptor covers unary calls and streams. Package server defines their order.
// Interceptors run after a unary message is decoded, so a message that cannot be decoded
// reaches none of them.
package intercept

import "connectrpc.com/connect"

// serverOnly implements the client half of connect.Interceptor.
type serverOnly struct{}

// WrapStreamingClient returns next unchanged.
func (serverOnly) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
