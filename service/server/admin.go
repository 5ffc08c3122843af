package server

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"
)

const (
	adminHeaderTimeout = 10 * time.Second
	adminIdleTimeout   = 3 * time.Minute
)

// newAdmin returns the server of the operator's port.
func (s *Server) newAdmin() *http.Server {
	return &http.Server{
		Handler:           forOperators(s.admin.listener.Addr(), adminRoutes(s.health.ready, s.metrics.Handler(s.log))),
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// forOperators refuses what a browser on this machine sends on behalf of a page from
// elsewhere, whose name was made to mean this machine. Only the Host tells: to the
// browser the page and the port are of one origin. A port that other machines reach has
// names that are not known here, and is open to whoever reaches it anyway.
func forOperators(at net.Addr, next http.Handler) http.Handler {
	if !loopback(at.String()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "0")
		}
		if !loopback(host) {
			answer(w, http.StatusMisdirectedRequest, "this port serves its own machine: ask for localhost or 127.0.0.1\n")
			return
		}
		next.ServeHTTP(w, r)
	})
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
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the asker has gone if it fails
}
