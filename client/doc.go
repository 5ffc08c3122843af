// Package client is the Go client of the user service.
//
// A Client balances calls over the healthy nodes of its targets, retries failed calls, and continues streams
// after a lost connection. It is safe for concurrent use.
//
// # Retries
//
// A call that fails because its node or the connection failed is retried on another node, up to three attempts
// in total. Reads have no side effects. Each write gets a request id, with which the server applies it once and
// returns the first result again. An error of the service that a retry cannot change is returned at once.
//
// # Streams
//
// StreamUserActivities, WatchUserStatus, SyncUserStatus, BatchCreateUsers, BatchUpdateUsers and Mirror continue on
// another node when a connection is lost, a node is drained or a node fails, until their context ends. Rows are
// resumed after the last one delivered to the caller: none is missing, none is delivered twice.
//
// # Errors
//
// A failed call returns an *Error. It matches the value of its reason, such as ErrUserNotFound, with errors.Is, and
// has the code, the metadata and the field violations of the server.
package client
