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

// recoverPanics responds with INTERNAL to a panic outside of connect.WithRecover: in middleware, REST
// conversion or an interceptor. It belongs just inside the guard.
func recoverPanics(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { //nolint:contextcheck // the context of the request
			value := recover()
			if value == nil {
				return
			}
			if value == http.ErrAbortHandler { //nolint:errorlint // net/http compares the value, too
				panic(value)
			}
			incident := panics.Log(r.Context(), log, "panic in request handler", panics.New(value), slog.String("path", r.URL.Path))
			x, ok := w.(*transport.Exchange)
			if ok {
				x.MarkPanicked()
			}
			if !ok || x.Started() {
				panic(http.ErrAbortHandler) // aborts the partial response
			}
			writeInternalError(w, r, incident)
		}()
		next.ServeHTTP(w, r)
	})
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
