//go:build go1.27

package transport

import "net/http"

// limitHeaderFields bounds the fields of a header. Before Go 1.27 only the size of
// the header, of which each field is a part, bounds them.
func limitHeaderFields(server *http.Server) { server.MaxHeaderValueCount = maxHeaderFields }
