package codec

import (
	"net/http"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/protocol"
)

// Outgoing is the response of a request. After Open(true) it holds the response, a single message,
// until the handler has returned: a handler blocked in Write would hold the message, its buffers
// and its compressor.
type Outgoing struct {
	http.ResponseWriter

	memory      *budget.Reservation
	trailers    bool // the status is sent in trailers
	buffered    bool
	status      int
	body        []byte
	savedHeader http.Header // as of NewOutgoing
	noMemory    bool
}

// NewOutgoing returns the response of a request, with memory reserved from the request's context.
func NewOutgoing(w http.ResponseWriter, r *http.Request) *Outgoing {
	trailers := r.ProtoMajor > 1 && protocol.Of(r).IsGRPC()
	o := &Outgoing{ResponseWriter: w, memory: budget.FromContext(r.Context()), trailers: trailers}
	if header := w.Header(); len(header) > 0 {
		o.savedHeader = header.Clone()
	}
	return o
}

// Unwrap is for http.ResponseController.
func (o *Outgoing) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// Open starts a buffered response, or a stream. It must be called before WriteHeader.
func (o *Outgoing) Open(buffered bool) {
	if o.buffered = buffered; !buffered {
		o.savedHeader = nil // a stream holds no copy while it is open
	}
}

// WriteHeader sends or stores the status.
func (o *Outgoing) WriteHeader(status int) {
	if !o.buffered || status < http.StatusOK {
		o.ResponseWriter.WriteHeader(status)
	} else if o.status == 0 {
		o.status = status
	}
}

// Write sends or buffers p. It returns a *budget.Error if there is no memory.
func (o *Outgoing) Write(p []byte) (int, error) {
	if !o.buffered {
		return o.ResponseWriter.Write(p)
	}
	o.WriteHeader(http.StatusOK)
	if need := len(o.body) + len(p); need > cap(o.body) {
		size := max(need, 5*cap(o.body)/4)
		if err := o.memory.Grow(budget.Response, int64(size-cap(o.body))); err != nil {
			o.noMemory = true
			return 0, err
		}
		o.body = append(make([]byte, 0, size), o.body...)
	}
	o.body = append(o.body, p...)
	return len(p), nil
}

// send stores the whole body of a buffered response, without a copy.
func (o *Outgoing) send(body []byte) error {
	o.WriteHeader(http.StatusOK)
	if err := o.memory.Grow(budget.Response, int64(cap(body))); err != nil {
		o.noMemory = true
		return err
	}
	o.body = body
	return nil
}

// Flush flushes the response unless it is buffered.
func (o *Outgoing) Flush() { _ = o.FlushError() }

// FlushError is Flush with an error.
func (o *Outgoing) FlushError() error {
	if o.buffered {
		o.WriteHeader(http.StatusOK) // Finish sends the header, also of an empty body
		return nil
	}
	return http.NewResponseController(o.ResponseWriter).Flush()
}

// Finish sends the buffered response. If memory was exhausted, it sends nothing, restores the
// header as of NewOutgoing, and returns true.
func (o *Outgoing) Finish() (noMemory bool) {
	if !o.buffered {
		return false
	}
	o.buffered = false
	if o.noMemory {
		header := o.Header()
		clear(header)
		for name, values := range o.savedHeader {
			header[name] = values
		}
		return true
	}
	if o.status == 0 {
		return false
	}
	// The message and the encoder buffers are garbage now.
	o.memory.Shrink(budget.Response, o.memory.Held(budget.Response)-int64(cap(o.body)))
	if o.trailers {
		// Prevents net/http from adding a length: proxies drop the trailers of a response with
		// Content-Length: 0.
		o.Header()["Content-Length"] = nil
	}
	o.ResponseWriter.WriteHeader(o.status)
	if len(o.body) > 0 {
		_, _ = o.ResponseWriter.Write(o.body) // the error is irrelevant, the handler has returned
	}
	return false
}
