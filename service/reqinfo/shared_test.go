package reqinfo_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/yourorg/userservice/service/reqinfo"
)

// layer passes messages on, unless it is closed.
type layer struct {
	connect.StreamingHandlerConn

	closed bool
}

func (l *layer) Share(any, *reqinfo.SharedSends) connect.StreamingHandlerConn {
	if l.closed {
		return nil
	}
	return l.StreamingHandlerConn
}

// other is a layer of another package.
type other struct{ connect.StreamingHandlerConn }

// Streams share bytes if all of their layers permit it and the request asks for the same encoding.
func TestSharedSendsOf(t *testing.T) {
	t.Parallel()
	form := func(contentType string, wrap func(connect.StreamingHandlerConn) connect.StreamingHandlerConn) (form reqinfo.Form) {
		handler := connect.NewBidiStreamHandler("/test/Stream",
			func(_ context.Context, stream *connect.BidiStream[emptypb.Empty, emptypb.Empty]) error {
				form = reqinfo.SharedSendsOf(wrap(stream.Conn()), nil).Form
				return nil
			})
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/test/Stream", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.ProtoMajor = 2
		request.Header.Set("Content-Type", contentType)
		handler.ServeHTTP(httptest.NewRecorder(), request)
		return form
	}
	plain := func(conn connect.StreamingHandlerConn) connect.StreamingHandlerConn { return conn }
	want := form("application/grpc", plain)
	if want == reqinfo.NoForm {
		t.Fatal("form of a stream without layers = none")
	}
	for name, row := range map[string]struct {
		contentType string
		wrap        func(connect.StreamingHandlerConn) connect.StreamingHandlerConn
		same, none  bool
	}{
		"the same request": {"application/grpc", plain, true, false},
		"open layers": {"application/grpc", func(c connect.StreamingHandlerConn) connect.StreamingHandlerConn {
			return &layer{StreamingHandlerConn: &layer{StreamingHandlerConn: c}}
		}, true, false},
		"another codec": {"application/grpc+json", plain, false, false},
		"a closed layer": {"application/grpc", func(c connect.StreamingHandlerConn) connect.StreamingHandlerConn {
			return &layer{StreamingHandlerConn: c, closed: true}
		}, false, true},
		"an unknown layer": {"application/grpc", func(c connect.StreamingHandlerConn) connect.StreamingHandlerConn {
			return &layer{StreamingHandlerConn: &other{c}}
		}, false, true},
	} {
		got := form(row.contentType, row.wrap)
		if (got == want) != row.same || (got == reqinfo.NoForm) != row.none {
			t.Errorf("%s: same form = %t, no form = %t, want %t, %t", name, got == want, got == reqinfo.NoForm, row.same, row.none)
		}
	}
}
