// Package budget is the memory budget of the process: one ledger of bytes. All memory that a client
// can grow is reserved before it is allocated, and released when it is garbage.
//
// A Budget bounds the reservations of each caller, of all anonymous callers, and of all callers
// together. The code that allocates estimates the sizes; a test compares the estimates with the
// heap in use. As a safety net, the level of a Budget also follows the memory in use.
//
// A nil *Budget, a nil *Reservation and a zero Reservation have no limit.
package budget
