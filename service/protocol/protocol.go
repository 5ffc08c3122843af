// Package protocol determines the protocol of a request from its method, path and header.
package protocol

import (
	"net/http"
	"strings"
)

const (
	// RESTPrefix is the path prefix of REST.
	RESTPrefix = "/api/v1/"
	// HealthPath is the path prefix of health checks.
	HealthPath = "/grpc.health.v1.Health/"
	// HealthWatchPath is the path of the stream of health.
	HealthWatchPath = HealthPath + "Watch"
	// ReflectionPath is the path prefix of all versions of reflection.
	ReflectionPath = "/grpc.reflection."
)

// Protocol is the protocol of a request.
type Protocol uint8

// Protocols.
const (
	Other         Protocol = iota
	GRPC                   // gRPC
	GRPCWeb                // gRPC-Web, binary or text
	Connect                // a unary Connect call
	ConnectStream          // a Connect stream
	REST

	Count
)

// String returns the name in logs, which package connect uses too.
func (p Protocol) String() string {
	return [Count]string{"other", "grpc", "grpcweb", "connect", "connect", "rest"}[p]
}

// IsGRPC reports whether the status of a response is in trailers: GRPC and GRPCWeb.
func (p Protocol) IsGRPC() bool { return p == GRPC || p == GRPCWeb }

// IsEnveloped reports whether a body is a sequence of length-prefixed messages. The status of an
// enveloped response is in the body or in trailers, and its HTTP status is 200.
func (p Protocol) IsEnveloped() bool { return p.IsGRPC() || p == ConnectStream }

// EncodingHeader returns the name of the header with the compression of the messages.
func (p Protocol) EncodingHeader() string {
	switch p {
	case GRPC, GRPCWeb:
		return "Grpc-Encoding"
	case ConnectStream:
		return "Connect-Content-Encoding"
	default:
		return "Content-Encoding"
	}
}

// Of returns the protocol of a request by the rules of the handlers. A request with a media type
// of gRPC is gRPC on every path.
func Of(r *http.Request) Protocol {
	kind := ""
	if r.Method == http.MethodPost {
		kind = mediaType(r.Header.Get("Content-Type"))
		if suffix, ok := strings.CutPrefix(kind, "application/grpc"); ok {
			switch {
			case suffix == "" || suffix[0] == '+':
				return GRPC
			case strings.HasPrefix(suffix, "-web"):
				return GRPCWeb
			}
		}
	}
	switch {
	case strings.HasPrefix(r.URL.Path, RESTPrefix):
		return REST
	case strings.HasPrefix(kind, "application/connect+"):
		return ConnectStream
	case kind == "application/json" || kind == "application/proto",
		r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "encoding="):
		return Connect
	}
	return Other
}

// mediaType returns a Content-Type without parameters, in lower case.
func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(kind))
}
