package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/cors"

	"github.com/yourorg/userservice/service/intercept"
)

// crossOrigin lets pages of the origins call the handler, and refuses what a browser
// sends on behalf of any other: without that, a page from anywhere could have a
// visitor's browser write to a service that only the visitor can reach.
func crossOrigin(origins []string, next http.Handler) (http.Handler, error) {
	protection := http.NewCrossOriginProtection()
	for _, origin := range origins {
		if err := protection.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("--cors-origin: %w", err)
		}
	}
	protected := protection.Handler(next)
	if len(origins) == 0 {
		return protected, nil
	}
	allowMethods := strings.Join(append(cors.AllowedMethods(), "PATCH", "PUT", "DELETE"), ", ")
	allowHeaders := strings.Join(append(cors.AllowedHeaders(),
		"Authorization", "If-Match", "If-None-Match", "Last-Event-ID", "Traceparent", "Tracestate", "X-Request-Id",
		intercept.MinPositionHeader), ", ")
	exposeHeaders := strings.Join(append(cors.ExposedHeaders(), "ETag", intercept.PositionHeader), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if origin == "" || !slices.Contains(origins, origin) {
			protected.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			header.Set("Access-Control-Allow-Methods", allowMethods)
			header.Set("Access-Control-Allow-Headers", allowHeaders)
			header.Set("Access-Control-Max-Age", "7200") // the most that a browser keeps
			noteOf(r.Context()).plain = true
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Set("Access-Control-Expose-Headers", exposeHeaders)
		protected.ServeHTTP(w, r)
	}), nil
}
