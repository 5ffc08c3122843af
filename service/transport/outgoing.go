package transport

import (
	"net/http"
	"strings"

	"github.com/yourorg/userservice/service/budget"
)

// Outgoing is the response of a request. After Buffer it keeps the response, which is one
// message, until the handler has returned: a handler that waited for its peer would keep
// the message, its buffers and its compressor meanwhile.
type Outgoing struct {
	http.ResponseWriter

	memory   *budget.Reservation
	trailers bool // the status is in the trailers
	buffered bool
	status   int
	body     []byte
	before   http.Header // as of Buffer
	refused  bool
}

// NewOutgoing returns the response of the request, whose bytes are reserved.
func NewOutgoing(w http.ResponseWriter, r *http.Request) *Outgoing {
	trailers := r.ProtoMajor > 1 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return &Outgoing{ResponseWriter: w, memory: budget.FromContext(r.Context()), trailers: trailers}
}

// Unwrap returns the next writer, for http.ResponseController.
func (o *Outgoing) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// Buffer keeps what is written from now on. It comes before the header.
func (o *Outgoing) Buffer() {
	if !o.buffered {
		o.buffered, o.before = true, o.Header().Clone()
	}
}

// WriteHeader sends the status, or keeps it.
func (o *Outgoing) WriteHeader(status int) {
	if !o.buffered || status < http.StatusOK {
		o.ResponseWriter.WriteHeader(status)
	} else if o.status == 0 {
		o.status = status
	}
}

// Write sends bytes, or keeps them. Its error is an *budget.Error where there is no room.
func (o *Outgoing) Write(p []byte) (int, error) {
	if !o.buffered {
		return o.ResponseWriter.Write(p)
	}
	o.WriteHeader(http.StatusOK)
	if need := len(o.body) + len(p); need > cap(o.body) {
		size := max(need, 5*cap(o.body)/4)
		if err := o.memory.Grow(budget.Response, int64(size-cap(o.body))); err != nil {
			o.refused = true
			return 0, err
		}
		o.body = append(make([]byte, 0, size), o.body...)
	}
	o.body = append(o.body, p...)
	return len(p), nil
}

// Flush sends what was written, unless it is kept.
func (o *Outgoing) Flush() { _ = o.FlushError() }

// FlushError is Flush with its error.
func (o *Outgoing) FlushError() error {
	if o.buffered {
		o.WriteHeader(http.StatusOK) // Finish owes the header, even if there is nothing more
		return nil
	}
	return http.NewResponseController(o.ResponseWriter).Flush()
}

// Finish sends what was kept. It reports whether there was no room for it: nothing was
// sent then, and the header is as it was before.
func (o *Outgoing) Finish() (refused bool) {
	if !o.buffered {
		return false
	}
	o.buffered = false
	if o.refused {
		header := o.Header()
		clear(header)
		for name, values := range o.before {
			header[name] = values
		}
		return true
	}
	if o.status == 0 {
		return false
	}
	// The message and the buffers of its encoders are garbage now.
	o.memory.Shrink(budget.Response, o.memory.Held(budget.Response)-int64(cap(o.body)))
	if o.trailers {
		// net/http adds no length then. Proxies drop the trailers of a response that says it has
		// no content.
		o.Header()["Content-Length"] = nil
	}
	o.ResponseWriter.WriteHeader(o.status)
	if len(o.body) > 0 {
		_, _ = o.ResponseWriter.Write(o.body) // a peer that has gone cannot be told
	}
	return false
}
