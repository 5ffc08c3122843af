package admin

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"

	"github.com/yourorg/userservice/service/browser"
)

// maxProfileSeconds bounds the seconds parameter of profiles and traces, which cost CPU time and
// memory.
const maxProfileSeconds = 60

// profiles serves /debug/pprof/ to tools and to pages of the same origin. Without this check
// any web page could start a profile through the browser of an operator.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case browser.IsCrossSite(r):
			http.Error(w, "profiles are not served to pages of another origin", http.StatusForbidden)
		case !validSeconds(r):
			http.Error(w, fmt.Sprintf("seconds: must be more than 0 and at most %d", maxProfileSeconds), http.StatusBadRequest)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// validSeconds reports whether the seconds parameter is absent or in range.
func validSeconds(r *http.Request) bool {
	text := r.FormValue("seconds") // like net/http/pprof
	if text == "" {
		return true
	}
	seconds, err := strconv.ParseFloat(text, 64)
	return err == nil && seconds > 0 && seconds <= maxProfileSeconds
}
