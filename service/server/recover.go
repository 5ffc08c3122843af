package server

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/yourorg/userservice/service/httperror"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// recovered returns the hook of the guard that responds with INTERNAL to a panic outside of intercept.Errors: in a check,
// REST conversion or an interceptor.
func recovered(log *slog.Logger) func(*http.Request, *transport.Exchange, any) {
	return func(r *http.Request, x *transport.Exchange, value any) {
		if value == http.ErrAbortHandler { //nolint:errorlint // net/http compares the value, too
			panic(value)
		}
		incident := panics.Log(r.Context(), log, "panic in request handler", panics.New(value), slog.String("path", r.URL.Path))
		x.MarkPanicked()
		if x.Started() {
			panic(http.ErrAbortHandler) // aborts the partial response
		}
		writeInternalError(x, r, incident)
	}
}

// writeInternalError responds in the protocol of the request, without the headers that describe the failed
// response.
func writeInternalError(w http.ResponseWriter, r *http.Request, incident string) {
	for name := range w.Header() {
		if strings.HasPrefix(name, "Content-") || name == "Etag" {
			w.Header().Del(name)
		}
	}
	httperror.Write(w, r, user.NewInternalError(incident))
}
