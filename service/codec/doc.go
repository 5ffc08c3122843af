// Package codec contains the codecs and the compression of connect, and the messages that they read
// and write: a request message is decompressed, measured and reserved before it is decoded, and the
// response of a unary call is buffered.
//
// The package does not depend on users or service errors; errors to respond with are passed in as
// options.
package codec
