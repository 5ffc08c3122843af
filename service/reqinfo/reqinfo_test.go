package reqinfo_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/yourorg/userservice/service/reqinfo"
)

type name string

// The header of a response is that of the server, else of connect, else of nothing.
func TestHeaderOfResponse(t *testing.T) {
	t.Parallel()
	reqinfo.HeaderOfResponse(t.Context()).Set("X", "of nothing")
	server := make(http.Header)
	reqinfo.HeaderOfResponse(reqinfo.With(t.Context(), reqinfo.ResponseHeader(server))).Set("X", "server")
	if got := server.Get("X"); got != "server" {
		t.Errorf("header of the server = %q, want server", got)
	}
	response := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/test/Call", strings.NewReader("{}"))
	request.Header.Set("Content-Type", "application/json")
	connect.NewUnaryHandlerSimple("/test/Call", func(ctx context.Context, in *emptypb.Empty) (*emptypb.Empty, error) {
		reqinfo.HeaderOfResponse(ctx).Set("X", "connect")
		return in, nil
	}).ServeHTTP(response, request)
	if got := response.Header().Get("X"); got != "connect" {
		t.Errorf("header of connect = %q, want connect", got)
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if got := reqinfo.From[name](ctx); got != "" {
		t.Errorf("From(empty context) = %q, want none", got)
	}
	ctx = reqinfo.With(ctx, name("outer"))
	ctx = reqinfo.With(ctx, "of another type")
	ctx = reqinfo.With[io.Reader](ctx, strings.NewReader("of an interface"))
	inner, cancel := context.WithCancel(reqinfo.With(ctx, name("inner")))
	defer cancel()
	if got := reqinfo.From[name](ctx); got != "outer" {
		t.Errorf("From(ctx) = %q, want outer", got)
	}
	if got := reqinfo.From[name](inner); got != "inner" {
		t.Errorf("From(inner) = %q, want inner", got)
	}
	if got := reqinfo.From[string](inner); got != "of another type" {
		t.Errorf("From[string](inner) = %q, want the value of that type", got)
	}
	if reqinfo.From[io.Reader](inner) == nil || reqinfo.From[io.Writer](inner) != nil {
		t.Error("From of an interface: want the value set as io.Reader, and none as io.Writer")
	}
}
