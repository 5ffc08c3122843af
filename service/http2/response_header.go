package http2

import (
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// headerWriter collects the output of the HPACK encoder in conn.out.
type headerWriter struct{ c *conn }

// Write appends p to the output.
func (w headerWriter) Write(p []byte) (int, error) {
	w.c.out = append(w.c.out, p...)
	return len(p), nil
}

// beginBlock starts a HEADERS frame and returns its position. c.mu is held.
func (c *conn) beginBlock(stream uint32) (start int) {
	start = len(c.output())
	c.out = appendFrameHeader(c.output(), 0, frameHeaders, 0, stream)
	return start
}

// endHeaderBlock completes the frame, with CONTINUATION frames if it is too large. c.mu is held.
func (c *conn) endHeaderBlock(start int, stream uint32, flags uint8) {
	c.budget.headersSent.Add(1)
	size, most := len(c.out)-start-frameHeaderLen, int(min(c.peerMaxFrame, maxChunk))
	if size <= most {
		appendFrameHeader(c.out[:start], size, frameHeaders, flags|flagEndHeaders, stream)
		return
	}
	block := append([]byte(nil), c.out[start+frameHeaderLen:]...)
	c.out = c.out[:start]
	for kind := frameHeaders; len(block) > 0; kind = frameContinuation {
		n := min(len(block), most)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		c.out = append(appendFrameHeader(c.out, n, kind, flags, stream), block[:n]...)
		block, flags = block[n:], 0
	}
}

// encode encodes a field. c.mu is held.
func (c *conn) encode(name, value string) {
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // headerWriter has no errors
}

// encodeField encodes a field of a response. Invalid ones are omitted, like by net/http. c.mu is held.
func (c *conn) encodeField(name string, values []string) {
	known, ok := lowerNames[name]
	if !ok {
		if known = strings.ToLower(name); !validName(known) {
			return
		}
	}
	for _, value := range values {
		if !httpguts.ValidHeaderFieldValue(value) || connectionSpecific(hpack.HeaderField{Name: known, Value: value}) {
			continue
		}
		c.encode(known, value)
	}
}

// appendResponse queues the header of a response (section 8.3.2). c.mu is held.
//
// Unlike net/http it does not add Content-Length to a response with trailers: proxies drop the trailers of a response with
// length 0.
func (c *conn) appendResponse(w *responseWriter, end bool) {
	start := c.beginBlock(w.stream.id)
	c.encode(":status", statusText(w.status))
	for _, f := range w.snapshot {
		if !strings.HasPrefix(f.name, http.TrailerPrefix) {
			c.encodeField(f.name, f.values)
		}
	}
	if !w.snapshot.has("Content-Type") && len(w.first) > 0 && bodyAllowed(w.status) && w.snapshot.first("Content-Encoding") == "" {
		c.encode("content-type", http.DetectContentType(w.first))
	}
	if !w.snapshot.has("Content-Length") && w.ended && !w.hasTrailers() && bodyAllowed(w.status) && (len(w.buf) > 0 || !w.head) {
		c.encode("content-length", strconv.Itoa(len(w.buf)))
	}
	if !w.snapshot.has("Date") {
		c.encode("date", c.srv.date.get())
	}
	flags := uint8(0)
	if end {
		flags = flagEndStream
	}
	c.endHeaderBlock(start, w.stream.id, flags)
}

// appendTrailers queues the trailers, which end the response. c.mu is held.
func (c *conn) appendTrailers(w *responseWriter) {
	start := c.beginBlock(w.stream.id)
	for _, name := range w.trailers {
		c.encodeField(name, w.header[name])
	}
	c.endHeaderBlock(start, w.stream.id, flagEndStream)
}

// appendInformational queues a response with a status below 200. c.mu is held.
func (c *conn) appendInformational(stream uint32, status int, header http.Header) {
	start := c.beginBlock(stream)
	c.encode(":status", statusText(status))
	for name, values := range header {
		if name != "Content-Length" && name != "Transfer-Encoding" && !strings.HasPrefix(name, http.TrailerPrefix) {
			c.encodeField(name, values)
		}
	}
	c.endHeaderBlock(start, stream, 0)
}

// sendContinue queues "100 Continue", unless the response has begun. c.mu is held.
func (w *responseWriter) sendContinue() {
	if !w.stream.closed && !w.stream.headerQueued {
		c := w.stream.conn
		c.appendInformational(w.stream.id, http.StatusContinue, nil)
		c.kick()
	}
}

func statusText(status int) string {
	switch status {
	case http.StatusOK:
		return "200"
	case http.StatusNotModified:
		return "304"
	}
	return strconv.Itoa(status)
}
