package transport

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"

	"github.com/yourorg/userservice/service/budget"
)

// A reference stands for a message on its way to a codec: a mark, a secret of the process
// and a number. The mark begins with a tag of field number 0, and so is neither a message
// in binary form nor JSON. The secret keeps a peer from naming the message of another
// request, which it could in the query of a Connect GET.
const (
	referenceMark  = "\x00ref"
	secretBytes    = 16
	referenceBytes = len(referenceMark) + secretBytes + 8
)

func newSecret() (secret [secretBytes]byte) {
	_, _ = rand.Read(secret[:]) // it never fails
	return secret
}

// refer returns what the handler reads in the place of the message: the prefix, if there
// is one, and a reference. An empty message stands for itself.
func (in *Incoming) refer(prefix []byte) []byte {
	if len(in.data) == 0 {
		if prefix != nil {
			binary.BigEndian.PutUint32(prefix[1:], 0)
		}
		return append(in.buffer[:0], prefix...)
	}
	if prefix != nil {
		binary.BigEndian.PutUint32(prefix[1:], uint32(referenceBytes))
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
	in.buffer = append(append(in.buffer[:0], prefix...), referenceMark...)
	in.buffer = append(in.buffer, m.secret[:]...)
	in.buffer = binary.BigEndian.AppendUint64(in.buffer, in.reference)
	return in.buffer
}

// resolve returns the message that data refers to, which is data itself where it is no
// reference. done is to be called when the message is decoded.
func (m *Messages) resolve(data []byte) (message []byte, done func()) {
	rest, ok := bytes.CutPrefix(data, []byte(referenceMark))
	if !ok || len(data) != referenceBytes || subtle.ConstantTimeCompare(rest[:secretBytes], m.secret[:]) != 1 {
		return data, func() {}
	}
	reference := binary.BigEndian.Uint64(rest[secretBytes:])
	m.mu.Lock()
	in := m.held[reference]
	delete(m.held, reference)
	m.mu.Unlock()
	if in == nil {
		return data, func() {} // the request has ended
	}
	return in.data, in.decodedData
}

// decodedData lets go of the bytes of a message that is decoded.
func (in *Incoming) decodedData() {
	in.data = nil
	in.memory.Shrink(budget.Decompressed, in.kept)
	in.kept = 0
}
