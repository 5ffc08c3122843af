package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// recoverPanics responds with INTERNAL to a panic outside of connect.WithRecover: in middleware, REST
// conversion or an interceptor. It belongs just inside the guard.
func recoverPanics(log *slog.Logger, next http.Handler) http.Handler {
	refusals := newRefusals()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { //nolint:contextcheck // the context of the request
			value := recover()
			if value == nil {
				return
			}
			if value == http.ErrAbortHandler { //nolint:errorlint // net/http compares the value, too
				panic(value)
			}
			incident := logPanic(r.Context(), log, "panic in request handler", panics.New(value), slog.String("path", r.URL.Path))
			x, ok := w.(*transport.Exchange)
			if ok {
				x.MarkPanicked()
			}
			if !ok || x.Started() {
				panic(http.ErrAbortHandler) // aborts the partial response
			}
			writeInternalError(w, r, refusals, incident)
		}()
		next.ServeHTTP(w, r)
	})
}

// writeInternalError responds in the protocol of the request, without the headers that describe the failed
// response.
func writeInternalError(w http.ResponseWriter, r *http.Request, refusals *refusals, incident string) {
	for name := range w.Header() {
		if strings.HasPrefix(name, "Content-") || name == "Etag" {
			w.Header().Del(name)
		}
	}
	refusals.refuse(w, r, user.NewInternalError(incident))
}

// logPanic logs a panic with a new incident id.
func logPanic(ctx context.Context, log *slog.Logger, message string, p *panics.Error, attrs ...slog.Attr) (incident string) {
	incident = rand.Text()
	log.LogAttrs(ctx, slog.LevelError, message, append(attrs, slog.String("incident", incident),
		slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))...)
	return incident
}

// recoverTask returns do with panics logged and converted to errors.
func recoverTask(log *slog.Logger, task string, do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := panics.Catch(func() error { return do(ctx) })
		if p := (*panics.Error)(nil); errors.As(err, &p) {
			return fmt.Errorf("panic, incident %s", logPanic(ctx, log, "panic in background task", p, slog.String("task", task)))
		}
		return err
	}
}
