// Package user is the domain of the service: users, changes, log rows, and the contract of
// a store.
//
// An [Op] is a pure function from the current user to the changed user and its log rows, so
// all stores and the reference model of their tests share one set of rules. A [Store]
// applies the decisions of ops, each in one transaction with its rows.
//
// The package imports only the standard library, golang.org/x/text and golang.org/x/net/idna.
package user
