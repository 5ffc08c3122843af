package http2

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// headerBlock is a field section that is being received (section 4.3). It belongs to the reading goroutine.
type headerBlock struct {
	stream    uint32 // 0: no block is open
	endStream bool
	selfDep   bool  // the HEADERS frame depends on its own stream
	encoded   int   // encoded bytes so far
	size      int64 // size of the list (section 10.5.1)
	count     int

	tooLarge   bool   // the list exceeds a limit; further fields are dropped
	malformed  string // why the section is malformed (section 8.1.1)
	sawRegular bool
	hasPseudo  bool

	method, scheme, authority, path string

	seen   uint8 // bits of pseudo-header fields
	fields []hpack.HeaderField
}

// Bits of headerBlock.seen.
const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
)

// maxKeptFields bounds the capacity of headerBlock.fields between blocks.
const maxKeptFields = 64

func (b *headerBlock) begin(stream uint32, endStream bool) {
	fields := b.fields
	clear(fields)
	if cap(fields) > maxKeptFields {
		fields = nil
	}
	*b = headerBlock{stream: stream, endStream: endStream, fields: fields[:0]}
}

// fragment decodes a fragment of the block.
func (c *conn) fragment(p []byte) error {
	b := &c.block
	if b.encoded += len(p); int64(b.encoded) > 2*c.srv.maxHeaderList {
		return c.exceeded(CloseHeaders)
	}
	if _, err := c.decoder.Write(p); err != nil {
		return connError{errCompression, "header block: " + err.Error()}
	}
	return nil
}

// field is called by the decoder for each field.
func (c *conn) field(f hpack.HeaderField) {
	b := &c.block
	switch {
	case strings.HasPrefix(f.Name, ":"):
		b.pseudo(f)
	case !validName(f.Name):
		b.invalid("invalid field name")
	case connectionSpecific(f):
		b.invalid("connection-specific field " + f.Name)
	default:
		b.sawRegular = true
	}
	if !httpguts.ValidHeaderFieldValue(f.Value) {
		b.invalid("invalid value of field " + f.Name)
	}
	b.count++
	b.size += int64(f.Size())
	if f.Name == "trailer" { // each name becomes a map entry
		n := strings.Count(f.Value, ",")
		b.count += n
		b.size += int64(n) * fieldOverhead
	}
	if b.size > c.srv.maxHeaderList || c.srv.maxHeaderFields > 0 && b.count > c.srv.maxHeaderFields {
		b.tooLarge = true
	}
	if b.tooLarge || b.malformed != "" {
		c.decoder.SetEmitEnabled(false)
		return
	}
	if f.Name[0] != ':' {
		b.fields = append(b.fields, f)
	}
}

func (b *headerBlock) invalid(reason string) {
	if b.malformed == "" {
		b.malformed = reason
	}
}

func (b *headerBlock) pseudo(f hpack.HeaderField) {
	var bit uint8
	var value *string
	switch f.Name {
	case ":method":
		bit, value = seenMethod, &b.method
	case ":scheme":
		bit, value = seenScheme, &b.scheme
	case ":authority":
		bit, value = seenAuthority, &b.authority
	case ":path":
		bit, value = seenPath, &b.path
	default:
		b.invalid("unknown pseudo-header field")
		return
	}
	switch {
	case b.sawRegular:
		b.invalid("pseudo-header field after a regular field")
	case b.seen&bit != 0:
		b.invalid("repeated pseudo-header field")
	}
	b.seen |= bit
	*value = f.Value
	b.hasPseudo = true
}

// replacePseudo replaces the pseudo-header fields of a list over the limit: some of them may have been dropped. No handler sees them.
func (b *headerBlock) replacePseudo() {
	if b.method != http.MethodHead {
		b.method = http.MethodGet
	}
	b.scheme, b.path = "http", "/"
}

// validName reports whether a field name is a token in lower case (section 8.2.1).
func validName(name string) bool {
	if name == "" {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' || !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return true
}

// connectionSpecific reports whether HTTP/2 prohibits a field (section 8.2.2).
func connectionSpecific(f hpack.HeaderField) bool {
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return true
	case "te":
		return f.Value != "trailers"
	}
	return false
}

// endBlock handles a complete header block.
func (c *conn) endBlock() error {
	b := &c.block
	stream := b.stream
	b.stream = 0
	c.decoder.SetEmitEnabled(true)
	if err := c.decoder.Close(); err != nil {
		return connError{errCompression, "header block: " + err.Error()}
	}
	if b.selfDep {
		b.invalid("stream depends on itself")
	}
	c.mu.Lock()
	st, known := c.streams[stream], stream <= c.maxStream
	how := c.closed.find(stream)
	ignored := c.goAwaySent && stream > c.goAwayLast
	c.mu.Unlock()
	switch {
	case st != nil:
		return c.trailers(st, b)
	case !known:
		return c.openStream(stream, b, ignored)
	case how == closedByServer:
		return nil // sent before the client received the reset (section 5.1)
	case how == closedNormally:
		return connError{errStreamClosed, "HEADERS on a closed stream"}
	}
	return connError{errProtocol, "stream identifier is not increasing"}
}
