//go:build !unix

package http2

// initRaw does nothing: connections keep a buffer while they wait.
func (*input) initRaw() {}
