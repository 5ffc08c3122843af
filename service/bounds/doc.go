// Package bounds estimates what a message takes in memory when it is decoded.
//
// An element of a list takes two bytes on the wire and a hundred in memory, so the length
// of a message says little. Binary and JSON count elements, and return at least what the
// decoder allocates for the message. They do not judge the message: a message is decoded
// as it came or not at all, and malformed data are for the decoder to refuse.
package bounds
