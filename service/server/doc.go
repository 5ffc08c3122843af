// Package server assembles the service: configuration, interceptors, routes, health,
// housekeeping, startup and shutdown.
//
// It is the only package that imports all others. Each ordering decision is one list: the
// interceptors in chain.go, the routes in mux.go, the steps of the shutdown in drain.go.
package server
