package transport

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect"
)

// The media types of gRPC-Web. The handlers speak the binary form; the text form is the
// same in base64.
const (
	webBinary = "application/grpc-web"
	webText   = "application/grpc-web-text"
)

// textBytes is the number of bytes that are encoded or decoded at once.
const textBytes = 768

var errNotBase64 = connect.NewError(connect.CodeInvalidArgument,
	errors.New("the body of an application/grpc-web-text request must be base64 with padding"))

// textForm makes the binary form of a request in the text form of gRPC-Web, and returns
// what encodes its response; nil: the request is none.
func textForm(r *http.Request) *textEncoder {
	suffix, ok := strings.CutPrefix(r.Header.Get("Content-Type"), webText)
	if !ok || r.Method != http.MethodPost || suffix != "" && suffix[0] != '+' {
		return nil
	}
	r.Header.Set("Content-Type", webBinary+suffix)
	if r.ContentLength > 0 {
		r.ContentLength = -1
	}
	r.Header.Del("Content-Length")
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &textDecoder{ReadCloser: r.Body}
	}
	return new(textEncoder)
}

// textDecoder decodes base64, which may consist of several padded parts: a client encodes
// each message by itself.
type textDecoder struct {
	io.ReadCloser

	buffer  [textBytes / 3 * 4]byte
	encoded int    // bytes in the buffer that are not decoded
	decoded []byte // what Read has yet to return, at the end of the buffer's decoded part
	space   [textBytes]byte
	err     error
}

// Read returns decoded bytes.
func (d *textDecoder) Read(p []byte) (int, error) {
	for len(d.decoded) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		n, err := d.ReadCloser.Read(d.buffer[d.encoded:])
		d.encoded += n
		d.err = err
		if failed := d.decode(); failed != nil {
			d.err = failed
		} else if errors.Is(err, io.EOF) && d.encoded > 0 {
			d.err = errNotBase64
		}
	}
	n := copy(p, d.decoded)
	d.decoded = d.decoded[n:]
	return n, nil
}

// decode decodes all whole groups of four characters.
func (d *textDecoder) decode() error {
	whole := d.encoded / 4 * 4
	length := 0
	for group := 0; group < whole; group += 4 {
		n, err := base64.StdEncoding.Strict().Decode(d.space[length:], d.buffer[group:group+4])
		if err != nil || n == 0 {
			return errNotBase64
		}
		length += n
	}
	d.encoded = copy(d.buffer[:], d.buffer[whole:d.encoded])
	d.decoded = d.space[:length]
	return nil
}

// textEncoder encodes a response in base64. What is flushed is padded, so that the client
// can decode it; the next part begins a new group.
type textEncoder struct {
	rest    [3]byte // bytes that do not fill a group
	pending int
}

// setType gives the header of the response the media type of the text form.
func (e *textEncoder) setType(header http.Header) {
	if suffix, ok := strings.CutPrefix(header.Get("Content-Type"), webBinary); ok && !strings.HasPrefix(suffix, "-text") {
		header.Set("Content-Type", webText+suffix)
		header.Del("Content-Length")
	}
}

// encode writes the bytes to w, but for a rest that does not fill a group.
func (e *textEncoder) encode(p []byte, w io.Writer) (written int, err error) {
	var text [textBytes / 3 * 4]byte
	var part [textBytes]byte
	for written < len(p) {
		n := copy(part[:], e.rest[:e.pending])
		taken := copy(part[n:], p[written:])
		n += taken
		whole := n / 3 * 3
		base64.StdEncoding.Encode(text[:], part[:whole])
		e.pending = copy(e.rest[:], part[whole:n])
		if whole > 0 {
			if _, err := w.Write(text[:whole/3*4]); err != nil {
				return written, err
			}
		}
		written += taken
	}
	return written, nil
}

// pad writes the rest to w.
func (e *textEncoder) pad(w io.Writer) error {
	if e.pending == 0 {
		return nil
	}
	var text [4]byte
	base64.StdEncoding.Encode(text[:], e.rest[:e.pending])
	e.pending = 0
	_, err := w.Write(text[:])
	return err
}
