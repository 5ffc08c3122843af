package server

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/yourorg/userservice/service/throttle"
	"github.com/yourorg/userservice/service/user"
)

// refusal responds to a request whose host or origin is not allowed.
type refusal func(http.ResponseWriter, *http.Request, *user.Error)

// refuseLogged returns respond with a log line, at most one per second and reason. The cause is usually
// a proxy or page that is missing in the configuration; the error names the flag.
func refuseLogged(log *slog.Logger, respond refusal) refusal {
	lines := throttle.New(sampleInterval, 1)
	return func(w http.ResponseWriter, r *http.Request, err *user.Error) {
		if skipped, ok := lines.Allow(string(err.Reason), time.Now()); ok {
			log.LogAttrs(r.Context(), slog.LevelWarn, "request refused",
				slog.String("reason", string(err.Reason)), slog.String("error", err.Message),
				slog.String("peer", r.RemoteAddr), slog.Int64("skipped", skipped))
		}
		respond(w, r, err)
	}
}

// refuseText responds in plain text on the admin listener.
func refuseText(w http.ResponseWriter, _ *http.Request, err *user.Error) {
	http.Error(w, err.Message, http.StatusMisdirectedRequest)
}
