package server

import "net/http"

// resources returns the REST side of the RPC handler.
func (s *Server) resources(rpc http.Handler) (http.Handler, error) { return nil, nil }
