package server

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strconv"
	"strings"
)

// longestProfile bounds the seconds parameter of profiles and traces. Each second costs the
// process time and memory.
const longestProfile = 60

// profiles serves /debug/pprof/ to tools and to pages of the same origin. A page of
// another origin could otherwise have a visitor's browser profile this process.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case fromOtherSite(r):
			http.Error(w, "profiles are not served to pages of another origin", http.StatusForbidden)
		case !boundedSeconds(r):
			http.Error(w, fmt.Sprintf("seconds: must be more than 0 and at most %d", longestProfile), http.StatusBadRequest)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// fromOtherSite reports whether a browser made the request for a page of another origin.
// Browsers say so in Sec-Fetch-Site, but not to plain HTTP addresses other than loopback;
// there Origin or Referer name the page.
func fromOtherSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		return otherHost(r, r.Header.Get("Origin")) || otherHost(r, r.Header.Get("Referer"))
	}
	return true
}

// otherHost reports whether an address that a browser has sent is one of another host.
func otherHost(r *http.Request, address string) bool {
	if address == "" {
		return false
	}
	u, err := url.Parse(address)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// boundedSeconds reports whether the parameter is missing or within its bound.
func boundedSeconds(r *http.Request) bool {
	text := r.FormValue("seconds") // as the profiles read it
	if text == "" {
		return true
	}
	seconds, err := strconv.ParseFloat(text, 64)
	return err == nil && seconds > 0 && seconds <= longestProfile
}
