// Package bounds returns upper bounds of the memory that decoding a message allocates.
//
// A list element can take two bytes on the wire and a hundred in memory, so the encoded size
// is no bound. Binary and JSON count the elements of the encoded message. They do not validate
// it: the decoder rejects malformed data.
package bounds
