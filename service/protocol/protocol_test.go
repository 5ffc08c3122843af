package protocol_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/yourorg/userservice/service/protocol"
)

func TestOf(t *testing.T) {
	const call, rest = "/user.v1.UserService/GetUser", "/api/v1/users"
	for _, c := range []struct {
		method, path, contentType string
		want                      protocol.Protocol
	}{
		{http.MethodPost, call, "application/grpc", protocol.GRPC},
		{http.MethodPost, call, "Application/gRPC+proto; charset=utf-8", protocol.GRPC},
		{http.MethodPost, rest, "application/grpc+json", protocol.GRPC},
		{http.MethodPost, call, "application/grpcfoo", protocol.Other},
		{http.MethodGet, call, "application/grpc", protocol.Other},
		{http.MethodPost, call, "application/grpc-web", protocol.GRPCWeb},
		{http.MethodPost, call, "application/grpc-web+proto", protocol.GRPCWeb},
		{http.MethodPost, call, "application/grpc-web-text", protocol.GRPCWeb},
		{http.MethodPost, call, "application/json; charset=utf-8", protocol.Connect},
		{http.MethodPost, call, "application/proto", protocol.Connect},
		{http.MethodPost, call, "application/xml", protocol.Other},
		{http.MethodGet, call + "?encoding=json&message=%7B%7D", "", protocol.Connect},
		{http.MethodGet, call, "", protocol.Other},
		{http.MethodPost, call, "application/connect+json", protocol.ConnectStream},
		{http.MethodPost, rest, "application/json", protocol.REST},
		{http.MethodGet, rest + "?filter=encoding=", "", protocol.REST},
		{http.MethodGet, "/", "", protocol.Other},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, http.NoBody)
		r.Header.Set("Content-Type", c.contentType)
		if got := protocol.Of(r); got != c.want {
			t.Errorf("Of(%s %s, %s) = %v, want %v", c.method, c.path, c.contentType, got, c.want)
		}
	}
}
