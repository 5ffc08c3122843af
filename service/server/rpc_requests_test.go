package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/servertest"
)

// Requests that package connect would reject without a reason get an error message.
func TestInvalidRPCRequests(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	const rpc = "/user.v1.UserService/"
	for name, test := range map[string]struct {
		request

		code int
		want string // in the response body
	}{
		"bad base64":           {request{method: "GET", path: rpc + "GetUser?connect=v1&encoding=json&base64=1&message=%25%25"}, 400, "message: must be URL-safe base64"},
		"base64 cut short":     {request{method: "GET", path: rpc + "GetUser?connect=v1&encoding=json&base64=1&message=eyJ1c2V"}, 400, "unexpected end"},
		"one letter of base64": {request{method: "GET", path: rpc + "GetUser?connect=v1&encoding=proto&base64=1&message=e"}, 400, "message: must be URL-safe base64"},
		"standard base64":      {request{method: "GET", path: rpc + "GetUser?connect=v1&encoding=json&base64=1&message=%2B%2F%2B%2F"}, 400, "message: must be URL-safe base64"},
		"base64 of no JSON":    {request{method: "GET", path: rpc + "GetUser?connect=v1&encoding=json&base64=1&message=AAAA"}, 400, "invalid JSON"},
		"no gzip":              {request{method: "GET", path: rpc + "GetUser?connect=v1&encoding=json&base64=1&compression=gzip&message=AAAA"}, 400, "decompress"},
		"no message":           {request{method: "GET", path: rpc + "GetUser?connect=v1&encoding=json"}, 400, "message"},
		"bidi over HTTP/1.1": {request{method: "POST", path: rpc + "SyncUserStatus", header: http.Header{
			"Content-Type": {"application/connect+json"}}}, 505, "require HTTP/2"},
		"reflection over HTTP/1.1": {request{method: "POST", path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", header: http.Header{
			"Content-Type": {"application/grpc-web+proto"}}}, 505, "require HTTP/2"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := test.send(t, s.HTTP(false))
			if code != test.code || !strings.Contains(body, test.want) {
				t.Errorf("%s %s = %d %s, want %d with %q", test.method, test.path, code, body, test.code, test.want)
			}
		})
	}
}
