// Package admin is the handler of the admin listener: metrics, liveness, readiness and profiles.
package admin

import (
	"log/slog"
	"net/http"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 3 * time.Minute
	// MaxConnections and maxHeaderBytes bound the memory of the admin listener, which
	// does not draw on the memory budget.
	MaxConnections = 64
	maxHeaderBytes = 16 << 10
)

// NewServer returns the HTTP server of the admin listener. Its listener must be limited to MaxConnections.
func NewServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// Routes returns the handler for metrics, liveness, readiness and profiles. ready returns whether the server is
// ready, and the reasons why it is not or is degraded.
func Routes(ready func() (ok bool, reason string), metrics http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "alive\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ok, reason := ready()
		if reason != "" {
			reason += "\n"
		}
		if ok {
			writeText(w, http.StatusOK, "ready\n"+reason)
			return
		}
		writeText(w, http.StatusServiceUnavailable, "not ready\n"+reason)
	})
	mux.Handle("/debug/pprof/", profiles())
	return mux
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // fails only if the client has disconnected
}
