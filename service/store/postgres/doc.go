// Package postgres implements [user.Store] in a PostgreSQL database, which any number of nodes share.
//
//   - Acknowledged writes are committed. The waiting writes of a node share a transaction of two round trips (group commit):
//     the first locks the counter row and reads the users and request ids of the group, the second writes and commits.
//   - The transactions that append to the log lock the counter row first, so they run one after another: positions have no
//     gaps and are in commit order, the times of rows do not decrease, and no write fails by a conflict with another node.
//   - If the connection is lost during a commit, what the database has of the transaction decides the outcome.
//   - Each node observes the commits of all nodes in order. NOTIFY wakes the nodes; a poll makes up for a lost notification.
//
// It uses no savepoints. An advisory lock of a transaction protects the migration of the schema. Sessions have no state but the
// parameters with which they are opened, and LISTEN on one connection. A server with synchronous_commit = off may lose
// acknowledged writes in a crash.
package postgres
