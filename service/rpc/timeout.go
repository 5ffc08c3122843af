package rpc

import (
	"net/http"
	"strconv"
	"time"
)

// timeoutOf returns the timeout in a header of the request. set is false if there is none, ok if it is invalid.
func timeoutOf(header http.Header, name string, parse func(string) (time.Duration, bool)) (timeout time.Duration, set, ok bool) {
	values := header[name]
	if len(values) == 0 || values[0] == "" {
		return 0, false, true
	}
	timeout, ok = parse(values[0])
	return timeout, true, ok
}

// grpcTimeout parses a Grpc-Timeout: up to 8 digits and a unit. A timeout in hours is left to connect.
// See https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
func grpcTimeout(text string) (time.Duration, bool) {
	digits, unit := text[:len(text)-1], time.Duration(0)
	switch text[len(text)-1] {
	case 'n':
		unit = time.Nanosecond
	case 'u':
		unit = time.Microsecond
	case 'm':
		unit = time.Millisecond
	case 'S':
		unit = time.Second
	case 'M':
		unit = time.Minute
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return time.Duration(n) * unit, err == nil && unit > 0 && len(digits) <= 8
}

// connectTimeout parses a Connect-Timeout-Ms: up to 10 digits. See https://connectrpc.com/docs/protocol.
func connectTimeout(text string) (time.Duration, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return time.Duration(n) * time.Millisecond, err == nil && len(text) <= 10
}
