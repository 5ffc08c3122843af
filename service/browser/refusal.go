// Package browser protects a service from web pages that its visitors did not trust with it: pages of other
// origins, and names that resolve to a loopback address (DNS rebinding). It implements CORS for the origins that are
// allowed.
package browser

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/yourorg/userservice/service/throttle"
	"github.com/yourorg/userservice/service/user"
)

// maxEchoed is the maximum length of a text of the client in an error message.
const maxEchoed = 128

// Refusal responds to a request whose host or origin is not allowed.
type Refusal func(http.ResponseWriter, *http.Request, *user.Error)

// LogRefusals returns respond with a log line, at most one per second and reason. The cause is usually
// a proxy or page that is missing in the configuration; the error names the flag.
func LogRefusals(log *slog.Logger, respond Refusal) Refusal {
	lines := throttle.New(time.Second, 1)
	return func(w http.ResponseWriter, r *http.Request, err *user.Error) {
		if skipped, ok := lines.Allow(string(err.Reason), time.Now()); ok {
			log.LogAttrs(r.Context(), slog.LevelWarn, "request refused",
				slog.String("reason", string(err.Reason)), slog.String("error", err.Message),
				slog.String("peer", r.RemoteAddr), slog.Int64("skipped", skipped))
		}
		respond(w, r, err)
	}
}

// RefuseText responds in plain text.
func RefuseText(w http.ResponseWriter, _ *http.Request, err *user.Error) {
	http.Error(w, err.Message, http.StatusMisdirectedRequest)
}
