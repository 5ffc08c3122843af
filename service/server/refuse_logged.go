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

// refusal responds to a request that is refused because of its host or its origin.
type refusal func(http.ResponseWriter, *http.Request, *user.Error)

// refuseLogged returns respond with a log line for operators, one a second for each
// reason: such a refusal is usually a proxy or a page that the configuration does not
// know, and the message names the flag.
func refuseLogged(log *slog.Logger, respond refusal) refusal {
	lines := intercept.NewSampler(sampleEvery, 1)
	return func(w http.ResponseWriter, r *http.Request, err *user.Error) {
		if skipped, ok := lines.Take(string(err.Reason), time.Now()); ok {
			log.LogAttrs(r.Context(), slog.LevelWarn, "request refused",
				slog.String("reason", string(err.Reason)), slog.String("error", err.Message),
				slog.String("peer", r.RemoteAddr), slog.Int64("skipped", skipped))
		}
		respond(w, r, err)
	}
}

// refuseText responds in plain text, on the admin port.
func refuseText(w http.ResponseWriter, _ *http.Request, err *user.Error) {
	http.Error(w, err.Message, http.StatusMisdirectedRequest)
}

// maxEchoed is how much of what a caller sent a refusal repeats.
const maxEchoed = 128

// shorten bounds a text of the caller's that goes into a message.
func shorten(text string) string {
	if text = strings.ToValidUTF8(text, string(utf8.RuneError)); len(text) <= maxEchoed {
		return text
	}
	return strings.ToValidUTF8(text[:maxEchoed], "") + "…"
}
