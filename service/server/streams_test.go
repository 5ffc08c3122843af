package server_test

import (
	"net/http"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/yourorg/userservice/service/servertest"
)

// Streamed responses have headers that disable buffering and caching in proxies, over all protocols.
func TestStreamsPassProxies(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for _, path := range []string{
		"/user.v1.UserService/StreamUserActivities", "/user.v1.UserService/WatchUserStatus", "/user.v1.UserService/WatchUsers", "/user.v1.UserService/SyncUserStatus",
		"/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	} {
		for _, kind := range []string{"application/grpc", "application/grpc-web", "application/connect+proto"} {
			t.Run(path+" over "+kind, func(t *testing.T) {
				t.Parallel()
				peer := dialHTTP2(t, s)
				peer.contentType = kind
				peer.call(t, 1, path, new(emptypb.Empty))
				frame := peer.await(t, func(f http2.Frame) bool {
					_, ok := f.(*http2.MetaHeadersFrame)
					return ok
				})
				headers, _ := frame.(*http2.MetaHeadersFrame)
				got := http.Header{}
				for _, field := range headers.Fields {
					got.Add(field.Name, field.Value)
				}
				if got.Get("Cache-Control") != "no-store" || got.Get("X-Accel-Buffering") != "no" {
					t.Errorf("header = %v, want Cache-Control: no-store and X-Accel-Buffering: no", got)
				}
			})
		}
	}
}
