package transport

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect"
)

// Media types of gRPC-Web. Handlers speak the binary form; the text form is its base64 encoding.
const (
	webBinary = "application/grpc-web"
	webText   = "application/grpc-web-text"
)

// textBytes is the number of bytes encoded or decoded at a time.
const textBytes = 768

var errNotBase64 = connect.NewError(connect.CodeInvalidArgument,
	errors.New("application/grpc-web-text body: must be base64 with padding"))

// textForm converts a gRPC-Web text request to the binary form and returns the encoder of its
// response; nil for other requests.
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

// textDecoder decodes base64 in several padded parts, because clients encode each message
// separately.
type textDecoder struct {
	io.ReadCloser

	buffer  [textBytes / 3 * 4]byte
	encoded int    // undecoded bytes in buffer
	decoded []byte // unread part of space
	space   [textBytes]byte
	err     error
}

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

// decode decodes all complete groups of four characters.
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

// textEncoder encodes a response in base64. A flush adds padding, so that the client can decode it;
// the next part starts a new group.
type textEncoder struct {
	rest    [3]byte // bytes of an incomplete group
	pending int
}

// setType sets the text media type in the response header.
func (e *textEncoder) setType(header http.Header) {
	if suffix, ok := strings.CutPrefix(header.Get("Content-Type"), webBinary); ok && !strings.HasPrefix(suffix, "-text") {
		header.Set("Content-Type", webText+suffix)
		header.Del("Content-Length")
	}
}

// encode writes p to w, except the rest that does not fill a group.
func (e *textEncoder) encode(p []byte, w io.Writer) (written int, err error) {
	var text [textBytes / 3 * 4]byte
	var part [textBytes]byte
	for written < len(p) {
		n := copy(part[:], e.rest[:e.pending])
		consumed := copy(part[n:], p[written:])
		n += consumed
		whole := n / 3 * 3
		base64.StdEncoding.Encode(text[:], part[:whole])
		e.pending = copy(e.rest[:], part[whole:n])
		if whole > 0 {
			if _, err := w.Write(text[:whole/3*4]); err != nil {
				return written, err
			}
		}
		written += consumed
	}
	return written, nil
}

// pad writes the rest with padding to w.
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
