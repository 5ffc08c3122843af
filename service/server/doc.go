// Package server puts the service together: configuration, the chain of
// interceptors and its order, the routes, health, housekeeping, and the order in
// which all of it starts and stops.
//
// It is the one package that sees all the others, and the only one that decides what
// goes where. Each decision of that kind is one list: the chain in chain.go, the
// routes in mux.go, the steps of the drain in run.go.
package server
