//go:build !go1.27

package transport

import "net/http"

func limitHeaderFields(*http.Server) {}
