package server

import (
	"log/slog"
	"net/http"
	"time"
)

const (
	adminHeaderTimeout = 10 * time.Second
	adminIdleTimeout   = 3 * time.Minute
	// adminConnections and adminHeaderBytes bound the memory of the admin listener, which
	// does not draw on the memory budget.
	adminConnections = 64
	adminHeaderBytes = 16 << 10
)

// newAdmin returns the HTTP server of the admin listener.
func (s *Server) newAdmin() *http.Server {
	return &http.Server{
		Handler:           checkHost(s.admin.listener, s.cfg.AllowHost, refuseText, adminRoutes(s.ready, s.metrics.Handler(s.log))),
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		MaxHeaderBytes:    adminHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// adminRoutes returns the handler for metrics, liveness, readiness and profiles.
func adminRoutes(ready func() (ok bool, reason string), metrics http.Handler) *http.ServeMux {
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
