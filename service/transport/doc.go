// Package transport is what lies below the mux: the set-up of connections and
// protocols, the limits on what comes in, and the guards against peers that stall.
//
// It promises that no peer holds a handler for longer than it should: one that takes
// nothing of its answer for the stall limit is cut, and so is one whose request body
// does not come. It promises that no message grows beyond its limit, before or
// after decompression, and that what is beyond is neither read nor inflated further.
// It promises that no connection keeps the server busy with frames that move no call
// on, and that connections, requests and memory stay within their bounds, as far as
// whoever sets it up asks for them.
//
// It knows nothing of users, errors or configuration; what it answers with is
// passed in.
package transport
