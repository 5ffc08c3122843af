//go:build go1.27

package transport

import "net/http"

// limitHeaderFields limits the number of header fields. Before Go 1.27 only maxHeaderBytes does.
func limitHeaderFields(server *http.Server) { server.MaxHeaderValueCount = maxHeaderFields }
