package rest

import (
	"strconv"
	"time"

	"github.com/yourorg/userservice/service/rpcstatus"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
)

// reconnectDelay is the delay after which an EventSource reconnects.
const reconnectDelay = 2 * time.Second

// A format encodes a stream. Its functions append to dst.
type format struct {
	contentType string
	// events is set for server-sent events. An EventSource reconnects after the end of a
	// stream unless the response is 204.
	events bool

	begin     func(dst []byte) []byte
	row       func(dst []byte, id string, data []byte) []byte
	anchor    func(dst []byte, id string) []byte // an id without a row
	heartbeat func(dst []byte) []byte
	// failure ends the stream. If final is set the client must not resume.
	failure func(dst []byte, s *status.Status, final bool) []byte
}

// formats maps media types to formats.
//
// Server-sent events: a row is an event of the default type. Progress that the client did not ask for
// is a block with an id and without data, which updates the last event id without an event. An error
// is an event named error. If resuming would fail again its id is endEvent, and the response to a
// reconnect is 204.
//
// NDJSON: a row is a line and a heartbeat is an empty line. An error is a last line
// {"error": Status}.
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
			if retry := rpcstatus.Detail[*errdetails.RetryInfo](s).GetRetryDelay(); retry != nil {
				dst = appendRetry(dst, retry.AsDuration())
			}
			dst = append(dst, "event: error\n"...)
			return appendEvent(dst, id, rpcstatus.JSON(s))
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
			return append(append(dst, rpcstatus.JSON(s)...), "}\n"...)
		},
	},
}

func appendRetry(dst []byte, delay time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, delay.Milliseconds(), 10)
	return append(dst, "\n\n"...)
}

// appendEvent appends an event; data is JSON without line breaks.
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
