package sqlite

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
)

// walIndexHeaderSize is the size of one of the two copies of the header of a WAL index, see
// https://www.sqlite.org/walformat.html#the_wal_index_file_format.
const walIndexHeaderSize = 48

// walIndex is the end of the write-ahead log in the WAL index. A commit writes it after the sync of the log.
type walIndex struct {
	frames uint32 // 0: none, or the index is not valid
	salt   [8]byte
}

// readWALIndex reads the WAL index at path, which a killed process leaves.
func readWALIndex(path string) (index walIndex) {
	f, err := os.Open(path) //nolint:gosec // path given by the operator
	if err != nil {
		return index
	}
	defer func() { _ = f.Close() }()
	var copies [2 * walIndexHeaderSize]byte
	if _, err := io.ReadFull(f, copies[:]); err != nil {
		return index
	}
	header := copies[:walIndexHeaderSize]
	sum := walChecksum{order: binary.NativeEndian}
	sum.add(header[:40])
	if !bytes.Equal(header, copies[walIndexHeaderSize:]) ||
		binary.NativeEndian.Uint32(header[40:]) != sum.s0 || binary.NativeEndian.Uint32(header[44:]) != sum.s1 {
		return index
	}
	index.frames = binary.NativeEndian.Uint32(header[16:])
	copy(index.salt[:], header[32:40])
	return index
}

// exceeds reports whether transactions were committed after those in a log with the salt and the number of frames. The first half
// of the salt is incremented when the log starts again.
func (i walIndex) exceeds(frames uint32, salt []byte) bool {
	if bytes.Equal(i.salt[:], salt) {
		return i.frames > frames
	}
	return i.frames > 0 && int32(binary.BigEndian.Uint32(i.salt[:])-binary.BigEndian.Uint32(salt)) > 0 // wraps around
}
