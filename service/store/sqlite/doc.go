// Package sqlite implements [user.Store] in one SQLite database file.
//
//   - Acknowledged writes are durable: WAL mode with synchronous=FULL. Concurrent
//     writes share one transaction and one sync (group commit).
//   - One goroutine writes on one connection. Reads run concurrently on a small pool
//     of connections, in short read transactions.
//   - The database file is locked while the store is open, so a second process cannot
//     open it, also not through a symbolic link, a hard link or a bind mount.
//   - The database and the files that SQLite keeps beside it have mode 0600.
//   - After a failed sync the store is read-only until it is opened again, because a
//     later sync does not write the pages that the failed one lost. The outcome of
//     the writes of the failed sync is unknown: they may be in the write-ahead log.
//
// The package uses driver connections directly instead of database/sql: a statement is
// prepared once for each connection, and readers share no lock.
package sqlite
