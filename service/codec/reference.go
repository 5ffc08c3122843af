package codec

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"

	"github.com/yourorg/userservice/service/budget"
)

// A reference replaces a message between Incoming and a codec. It consists of a mark, a secret of
// the process and a number. The mark starts with field number 0, so it is neither valid protobuf
// nor JSON. The secret prevents clients from referring to messages of other requests in the query
// of a Connect GET.
const (
	referenceMark  = "\x00ref"
	secretBytes    = 16
	referenceBytes = len(referenceMark) + secretBytes + 8
)

func newSecret() (secret [secretBytes]byte) {
	_, _ = rand.Read(secret[:])
	return secret
}

// refer sets out to what connect reads in place of the message: a reference, behind a prefix if the body has messages with prefixes.
// An empty message is not replaced.
func (in *Incoming) refer() {
	in.referred = true
	if in.out = in.buffer[:0]; in.frames {
		size := 0
		if len(in.data) > 0 {
			size = referenceBytes
		}
		in.out = binary.BigEndian.AppendUint32(append(in.out, 0), uint32(size))
	}
	if len(in.data) == 0 {
		return
	}
	m := in.messages
	m.mu.Lock()
	defer m.mu.Unlock()
	if !in.released {
		m.last++
		delete(m.held, in.reference)
		in.reference = m.last
		m.held[in.reference] = in
	}
	in.out = append(append(in.out, referenceMark...), m.secret[:]...)
	in.out = binary.BigEndian.AppendUint64(in.out, in.reference)
}

// resolve returns the message for a reference, or data itself. The message must be released with releaseData after it
// was decoded, if in is not nil.
func (m *Messages) resolve(data []byte) (message []byte, in *Incoming) {
	rest, ok := bytes.CutPrefix(data, []byte(referenceMark))
	if !ok || len(data) != referenceBytes || subtle.ConstantTimeCompare(rest[:secretBytes], m.secret[:]) != 1 {
		return data, nil
	}
	reference := binary.BigEndian.Uint64(rest[secretBytes:])
	m.mu.Lock()
	in = m.held[reference]
	delete(m.held, reference)
	m.mu.Unlock()
	if in == nil {
		return data, nil // the request has ended
	}
	return in.data, in
}

// releaseData releases the bytes of a decoded message. in may be nil.
func (in *Incoming) releaseData() {
	if in == nil {
		return
	}
	in.data = nil
	in.memory.Shrink(budget.Decompressed, in.reservedData)
	in.reservedData = 0
}
