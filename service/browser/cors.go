package browser

import (
	"net/http"
	"strings"

	"connectrpc.com/cors"

	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// allowedHeaders are the request headers that a preflight response allows, in addition to the headers
// of the preflight request.
var allowedHeaders = append(cors.AllowedHeaders(), // never changed
	"Authorization", "Baggage", "Cache-Control", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID",
	"Traceparent", "Tracestate", "X-Request-Id", user.MinPositionHeader)

// exposedHeaders are the response headers that pages can read.
var exposedHeaders = append(cors.ExposedHeaders(), // never changed
	"ETag", "Retry-After", "WWW-Authenticate", user.PositionHeader)

// CrossOrigin returns a check that implements CORS for the allowed origins and rejects cross-origin requests of others. It reports
// whether the request goes on; otherwise it has responded. Without the rejection any web page could write to a service that only
// its visitor can reach.
func CrossOrigin(allowed Origins, refuse Refusal) func(http.ResponseWriter, *http.Request) bool {
	protection := http.NewCrossOriginProtection()
	methods := strings.Join(append(cors.AllowedMethods(), "PATCH", "PUT", "DELETE"), ", ")
	headers, exposed := strings.Join(allowedHeaders, ", "), strings.Join(exposedHeaders, ", ")
	return func(w http.ResponseWriter, r *http.Request) bool {
		header, origin := w.Header(), r.Header.Get("Origin")
		preflight := origin != "" && r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
		if len(allowed) > 0 {
			header.Add("Vary", "Origin")
		}
		switch {
		case allowed.allow(origin):
			header.Set("Access-Control-Allow-Origin", origin)
		case preflight, readsCrossOrigin(r), protection.Check(r) != nil:
			refuse(w, r, newOriginNotAllowedError(origin))
			return false
		default:
			return true
		}
		if preflight {
			header.Set("Access-Control-Allow-Methods", methods)
			header.Set("Access-Control-Allow-Headers", joinHeaders(headers, r.Header.Get("Access-Control-Request-Headers")))
			header.Set("Access-Control-Max-Age", "7200") // the maximum of Chromium
			w.WriteHeader(http.StatusNoContent)
			return false
		}
		header.Set("Access-Control-Expose-Headers", exposed)
		return true
	}
}

func joinHeaders(headers, requested string) string {
	if requested == "" {
		return headers
	}
	return headers + ", " + requested
}

// readsCrossOrigin reports whether a browser sent the request for a page of another origin that wants to
// read the response. Without CORS headers the browser would withhold the response from the page.
func readsCrossOrigin(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") != "" && (site == "cross-site" || site == "same-site")
}

func newOriginNotAllowedError(origin string) *user.Error {
	if origin == "" {
		origin = "unknown"
	}
	origin = rpcstatus.Truncate(origin, maxEchoed)
	return &user.Error{
		Code: user.PermissionDenied, Reason: user.OriginNotAllowed, Metadata: map[string]string{"origin": origin},
		Message: "origin " + origin + " not allowed: add it with --cors-origin",
	}
}
