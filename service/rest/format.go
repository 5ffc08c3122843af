package rest

import (
	"errors"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
)

// reconnectDelay is how long an EventSource waits before it comes back.
const reconnectDelay = 2 * time.Second

// A format is how a stream looks. Each function appends to dst.
type format struct {
	contentType string
	// events: it is read by an EventSource, which comes back by itself when the stream
	// has ended, unless a response is 204.
	events bool

	begin     func(dst []byte) []byte
	row       func(dst []byte, id string, data []byte) []byte
	anchor    func(dst []byte, id string) []byte // moves the place to resume from
	heartbeat func(dst []byte) []byte
	// failure is the end. final: the caller shall not resume.
	failure func(dst []byte, s *status.Status, final bool) []byte
}

// formats are the formats by media type.
//
// Server-sent events: each row is an event of the default type. Progress that the
// caller did not ask for is a block with an id and no data, which moves the place to
// resume from and is dispatched as no event. A bad end is an event named error; its id
// is endEvent where resuming would fail again, and the response to that is 204.
//
// NDJSON: each row is a line, and a heartbeat an empty one. A bad end is a last line
// {"error": Status}; a body that ends without one ended well.
var formats = map[string]format{
	typeEvents: {
		contentType: typeEvents, events: true,
		begin:  func(dst []byte) []byte { return appendRetry(dst, reconnectDelay) },
		row:    appendEvent,
		anchor: appendAnchor,
		heartbeat: func(dst []byte) []byte {
			return append(dst, ": \n\n"...)
		},
		failure: func(dst []byte, s *status.Status, final bool) []byte {
			id := ""
			if final {
				id = endEvent
			}
			if retry := detail[*errdetails.RetryInfo](s).GetRetryDelay(); retry != nil {
				dst = appendRetry(dst, retry.AsDuration())
			}
			dst = append(dst, "event: error\n"...)
			return appendEvent(dst, id, marshalStatus(s))
		},
	},
	typeLines: {
		contentType: typeLines,
		begin:       func(dst []byte) []byte { return dst },
		row: func(dst []byte, _ string, data []byte) []byte {
			return append(append(dst, data...), '\n')
		},
		anchor:    func(dst []byte, _ string) []byte { return dst },
		heartbeat: func(dst []byte) []byte { return append(dst, '\n') },
		failure: func(dst []byte, s *status.Status, _ bool) []byte {
			dst = append(dst, `{"error":`...)
			return append(append(dst, marshalStatus(s)...), "}\n"...)
		},
	},
}

func appendRetry(dst []byte, delay time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, delay.Milliseconds(), 10)
	return append(dst, "\n\n"...)
}

// appendEvent appends an event. JSON is one line.
func appendEvent(dst []byte, id string, data []byte) []byte {
	if id != "" {
		dst = append(append(append(dst, "id: "...), id...), '\n')
	}
	dst = append(append(dst, "data: "...), data...)
	return append(dst, "\n\n"...)
}

func appendAnchor(dst []byte, id string) []byte {
	if id == "" {
		return append(dst, ": \n\n"...)
	}
	return append(append(append(dst, "id: "...), id...), "\n\n"...)
}

// asSent returns the error that the handler sent, if err is one.
func asSent(err error) (*connect.Error, bool) {
	var sent *connect.Error
	ok := errors.As(err, &sent) && connect.IsWireError(err)
	return sent, ok
}
