// Package sqlite is the embedded store: users and their log in one SQLite file.
//
// It promises what [user.Store] asks for, for one process and one file:
//
//   - An acknowledged write is on disk: write-ahead log, synchronous=FULL. Writers
//     that wait at the same time share one transaction and one sync.
//   - One goroutine writes, on one connection; reads go on beside it, on a small
//     pool of connections, each a short read of its own.
//   - A second process is refused, by whatever name it opens the file: the database
//     file itself is locked for as long as the store is open.
//   - The database and every file beside it have the mode 0600.
//   - After a failed sync the store takes no more writes until it is opened again,
//     because what a failed sync has lost a later one does not bring back. The
//     writes that this sync was for are answered as unknown: a start anew may find them.
//
// It talks to the driver's connections directly and not through database/sql: a
// statement is prepared once for each connection, and a read costs no lock shared
// by all readers. It leaves alone who may do what, waking readers of the log, and
// when to purge.
package sqlite
