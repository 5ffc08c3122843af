// Package budget is the memory budget of the process: one ledger of bytes. Whatever a
// peer can make large is reserved in it before it is allocated, and returned when it is
// garbage.
//
// A Budget guarantees that the reservations of all callers together, of all callers
// without credentials, and of each caller stay within their shares. It reserves what it
// is asked to reserve: estimates are the business of the code that allocates, and a test
// compares them with the heap in use. As a safety net the level of a Budget also follows
// the memory that the process really uses.
//
// A nil *Budget, a nil *Reservation and a zero Reservation have no limit.
package budget
