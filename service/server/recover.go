package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// recovering returns the handler with an answer for whoever meets a panic outside the
// interceptors' own Recover: in the middleware, in what turns REST into RPCs, in an
// interceptor. It belongs just inside the guard.
func recovering(log *slog.Logger, next http.Handler) http.Handler {
	refusals := newRefusals()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { //nolint:contextcheck // it is the request's own
			value := recover()
			if value == nil {
				return
			}
			if value == http.ErrAbortHandler { //nolint:errorlint // the very value; it is no fault
				panic(value)
			}
			incident := logPanic(r.Context(), log, "a request panicked", value, slog.String("path", r.URL.Path))
			x, ok := w.(*transport.Exchange)
			if ok {
				x.MarkPanicked()
			}
			if !ok || x.Started() {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			answerFault(w, r, refusals, incident)
		}()
		next.ServeHTTP(w, r)
	})
}

// answerFault answers in the caller's own protocol. What the answer that failed has set
// of its header does not describe this one.
func answerFault(w http.ResponseWriter, r *http.Request, refusals *refusals, incident string) {
	for name := range w.Header() {
		if strings.HasPrefix(name, "Content-") || name == "Etag" {
			w.Header().Del(name)
		}
	}
	refusals.refuse(w, r, user.NewInternalError(incident))
}

// logPanic logs a panic under a new incident.
func logPanic(ctx context.Context, log *slog.Logger, what string, value any, attrs ...slog.Attr) (incident string) {
	incident = rand.Text()
	log.LogAttrs(ctx, slog.LevelError, what, append(attrs, slog.String("incident", incident),
		slog.Any("panic", value), slog.String("stack", string(debug.Stack())))...)
	return incident
}

// nextRound is deferred by one round of work that is done again and again in the
// background. A panic ends the round, and neither the work nor the process.
func nextRound(ctx context.Context, log *slog.Logger, work string) {
	if value := recover(); value != nil {
		logPanic(ctx, log, "work in the background panicked", value, slog.String("work", work))
	}
}

// caught returns the function with an error for its panic.
func caught(log *slog.Logger, work string, do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		defer func() {
			if value := recover(); value != nil {
				err = fmt.Errorf("a panic, incident %s", logPanic(ctx, log, "work in the background panicked", value, slog.String("work", work)))
			}
		}()
		return do(ctx)
	}
}
