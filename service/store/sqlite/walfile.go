package sqlite

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// The format of a write-ahead log, see https://www.sqlite.org/fileformat2.html#walformat.
const (
	walHeaderSize   = 32
	walFrameHeader  = 24
	walMagic        = 0x377f0682 // lowest bit set: big-endian checksums
	maxWALPageBytes = 65536
)

// walContent describes the committed transactions in a write-ahead log.
type walContent struct {
	exists   bool
	short    bool // the WAL index has later transactions: they are lost
	commits  int
	frames   uint32    // of the transactions
	metaRows []metaRow // of each transaction that wrote the meta table
	pages    map[uint32]bool
}

// readWAL reads the write-ahead log at path. metaPage is the root page of the meta table. A
// log that SQLite would ignore has no commits.
func readWAL(path string, metaPage uint32) (content walContent, err error) {
	index := readWALIndex(strings.TrimSuffix(path, "-wal") + "-shm") // first: a server may append to the log
	f, err := os.Open(path)                                          //nolint:gosec // path given by the operator
	if errors.Is(err, fs.ErrNotExist) {
		return content, nil
	}
	if err != nil {
		return content, err
	}
	defer func() { _ = f.Close() }()
	content.exists, content.pages = true, make(map[uint32]bool)
	r := bufio.NewReaderSize(f, 1<<20)
	var header [walHeaderSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return content, ignoreEnd(err)
	}
	sum, pageBytes := newWALChecksum(header[:]), binary.BigEndian.Uint32(header[8:])
	if sum == nil || pageBytes < 512 || pageBytes > maxWALPageBytes {
		return content, nil
	}
	err = content.readFrames(r, sum, header[16:24], make([]byte, walFrameHeader+pageBytes), metaPage)
	content.short = content.commits > 0 && index.exceeds(content.frames, header[16:24])
	return content, ignoreEnd(err)
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// readFrames reads frames up to the first one with a wrong salt or checksum.
func (c *walContent) readFrames(r io.Reader, sum *walChecksum, salt, frame []byte, metaPage uint32) error {
	var meta *metaRow // of the current transaction
	for frames := uint32(1); ; frames++ {
		if _, err := io.ReadFull(r, frame); err != nil {
			return err
		}
		sum.add(frame[:8])
		sum.add(frame[walFrameHeader:])
		if !bytes.Equal(frame[8:16], salt) || !sum.equals(frame[16:walFrameHeader]) {
			return nil
		}
		number := binary.BigEndian.Uint32(frame)
		c.pages[number] = true
		if number == metaPage {
			if row, ok := parseMetaPage(frame[walFrameHeader:]); ok {
				meta = &row
			}
		}
		if binary.BigEndian.Uint32(frame[4:]) == 0 {
			continue // not a commit frame
		}
		c.commits, c.frames = c.commits+1, frames
		if meta != nil {
			c.metaRows = append(c.metaRows, *meta)
			meta = nil
		}
	}
}

// walChecksum is the running checksum of a write-ahead log.
type walChecksum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

// newWALChecksum returns the checksum after the header, or nil if the header is invalid.
func newWALChecksum(header []byte) *walChecksum {
	sum := &walChecksum{order: binary.LittleEndian}
	switch binary.BigEndian.Uint32(header) {
	case walMagic:
	case walMagic | 1:
		sum.order = binary.BigEndian
	default:
		return nil
	}
	sum.add(header[:24])
	if !sum.equals(header[24:]) {
		return nil
	}
	return sum
}

func (s *walChecksum) add(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		s.s0 += s.order.Uint32(b) + s.s1
		s.s1 += s.order.Uint32(b[4:]) + s.s0
	}
}

func (s *walChecksum) equals(b []byte) bool {
	return binary.BigEndian.Uint32(b) == s.s0 && binary.BigEndian.Uint32(b[4:]) == s.s1
}
