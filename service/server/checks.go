package server

import "net/http"

// A check responds to a request that must not go on, and reports whether it goes on.
type check = func(http.ResponseWriter, *http.Request) bool

// checked returns next after checks, in their order. They are no middleware, because the frames of middleware make up much of the
// stack of a stream that waits.
func checked(next http.Handler, checks ...check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, check := range checks {
			if !check(w, r) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
