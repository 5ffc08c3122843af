package server

import (
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// refusal responds to a request whose host or origin is not allowed.
type refusal func(http.ResponseWriter, *http.Request, *user.Error)

// refuseLogged returns respond with a log line, at most one per second and reason. The cause is usually
// a proxy or page that is missing in the configuration; the error names the flag.
func refuseLogged(log *slog.Logger, respond refusal) refusal {
	lines := intercept.NewSampler(sampleInterval, 1)
	return func(w http.ResponseWriter, r *http.Request, err *user.Error) {
		if skipped, ok := lines.Take(string(err.Reason), time.Now()); ok {
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

// maxEchoed is the maximum length of a text of the client in an error message.
const maxEchoed = 128

// shorten truncates a text of the client for an error message.
func shorten(text string) string {
	if text = strings.ToValidUTF8(text, string(utf8.RuneError)); len(text) <= maxEchoed {
		return text
	}
	return strings.ToValidUTF8(text[:maxEchoed], "") + "…"
}
