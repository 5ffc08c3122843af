package server

import (
	"net/http"
	"strings"

	"connectrpc.com/cors"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// allowedHeaders are what pages of an allowed origin may send, beside what a page asks
// for in its preflight.
var allowedHeaders = append(cors.AllowedHeaders(), // never changed
	"Authorization", "Baggage", "Cache-Control", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID",
	"Traceparent", "Tracestate", "X-Request-Id", intercept.MinPositionHeader)

// exposedHeaders are what such a page may read of a response.
var exposedHeaders = append(cors.ExposedHeaders(), // never changed
	"ETag", "Retry-After", "WWW-Authenticate", intercept.PositionHeader)

// crossOrigin lets pages of the allowed origins call the handler. What a browser sends
// for a page of any other origin is refused: a page from anywhere could otherwise use a
// visitor's browser to write to a service that only the visitor can reach.
func crossOrigin(allowed origins, refuse refusal, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	methods := strings.Join(append(cors.AllowedMethods(), "PATCH", "PUT", "DELETE"), ", ")
	headers, exposed := strings.Join(allowedHeaders, ", "), strings.Join(exposedHeaders, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, origin := w.Header(), r.Header.Get("Origin")
		preflight := origin != "" && r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
		if len(allowed) > 0 {
			header.Add("Vary", "Origin")
		}
		switch {
		case allowed.allow(origin):
			header.Set("Access-Control-Allow-Origin", origin)
		case preflight, otherPage(r), protection.Check(r) != nil:
			refuse(w, r, newOriginNotAllowedError(origin))
			return
		default:
			next.ServeHTTP(w, r)
			return
		}
		if preflight {
			header.Set("Access-Control-Allow-Methods", methods)
			header.Set("Access-Control-Allow-Headers", joined(headers, r.Header.Get("Access-Control-Request-Headers")))
			header.Set("Access-Control-Max-Age", "7200") // the most that a browser keeps
			noteOf(r.Context()).plain = true
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Set("Access-Control-Expose-Headers", exposed)
		next.ServeHTTP(w, r)
	})
}

func joined(headers, asked string) string {
	if asked == "" {
		return headers
	}
	return headers + ", " + asked
}

// otherPage reports whether a browser says that the request is for a page of another
// origin that is to read the response. Without a permission the browser would keep the
// response from the page, whatever the method.
func otherPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") != "" && (site == "cross-site" || site == "same-site")
}

func newOriginNotAllowedError(origin string) *user.Error {
	if origin == "" {
		origin = "unknown"
	}
	origin = shorten(origin)
	return &user.Error{
		Code: user.PermissionDenied, Reason: user.OriginNotAllowed, Metadata: map[string]string{"origin": origin},
		Message: "pages of the origin " + origin + " may not call this service: --cors-origin allows an origin",
	}
}
