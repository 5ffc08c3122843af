// Package bounds cuts a message down before it is decoded.
//
// The rules of the proto say how many elements a list or a map may have, but they are
// checked on the decoded message. An element takes two bytes on the wire and a hundred
// in memory, so that a message within its limit in bytes, and tiny when it is
// compressed, could fill the memory before a rule is asked. Bounds looks at the bytes.
// Where there are more elements than a rule allows it keeps one more than that and
// drops the rest of the message: the rule then refuses what is left, with the path of
// the field, as if all had come. It promises that what no rule refuses passes as it is.
//
// What is wrong with a message otherwise is for the decoder to say, so bytes that
// cannot be read pass as they are.
package bounds
