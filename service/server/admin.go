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

// newAdmin returns the server of the operator's port.
func (s *Server) newAdmin() *http.Server {
	return &http.Server{
		Handler:           ownHosts(s.admin.listener, s.cfg.AllowHost, refuseText, adminRoutes(s.ready, s.metrics.Handler(s.log))),
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		MaxHeaderBytes:    adminHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// adminRoutes are what the operator's port serves: whether the process lives,
// whether it is ready for calls and what it does not serve, what it counts, and what it
// is busy with.
func adminRoutes(ready func() (ok bool, why string), metrics http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "alive\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ok, why := ready()
		if why != "" {
			why += "\n"
		}
		if ok {
			answer(w, http.StatusOK, "ready\n"+why)
			return
		}
		answer(w, http.StatusServiceUnavailable, "not ready\n"+why)
	})
	mux.Handle("/debug/pprof/", profiles())
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the asker has gone if it fails
}
