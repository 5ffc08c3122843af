package server_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// Who may see which RPCs there are is for the configuration to say.
func TestWhoMayReflect(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string][2]connect.Code{ // for nobody in particular, and for a caller
		"":        {connect.CodeUnauthenticated, 0},
		"callers": {connect.CodeUnauthenticated, 0},
		"open":    {0, 0},
		"off":     {connect.CodeUnauthenticated, connect.CodePermissionDenied},
	} {
		g := startGuarded(t, servertest.Parallel(), servertest.Config(func(c *server.Config) { c.Reflection = setting }))
		for i, token := range []string{"", g.token(t, "ann", time.Hour)} {
			stream := grpcreflect.NewClient(g.as(true, token), "http://userd.test", connect.WithGRPC()).NewStream(t.Context())
			_, err := stream.ListServices()
			code := connect.Code(0)
			if err != nil {
				code = connect.CodeOf(err)
			}
			if code != want[i] {
				t.Errorf("%q: got %v, want %v", setting, err, want[i])
			}
			_, _ = stream.Close()
		}
	}
}
