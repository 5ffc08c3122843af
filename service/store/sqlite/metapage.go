package sqlite

import (
	"encoding/binary"
	"math"
)

// metaRow is the row of the meta table, without the head of the log.
type metaRow struct {
	epoch             string
	copied            bool
	session, previous int64
	commits           int64
	place             string
	hasSession        bool // the columns session to place exist
}

// newMetaRow decodes the columns of the meta table.
func newMetaRow(columns []any) metaRow {
	text := func(i int) string {
		s, _ := column(columns, i).(string)
		return s
	}
	number := func(i int) int64 {
		n, _ := column(columns, i).(int64)
		return n
	}
	return metaRow{
		epoch: text(1), copied: number(4) != 0,
		session: number(6), previous: number(7), commits: number(8), place: text(9),
		hasSession: len(columns) > 9,
	}
}

func column(columns []any, i int) any {
	if i < len(columns) {
		return columns[i]
	}
	return nil
}

// parseMetaPage decodes the row of the meta table from its b-tree page, see
// https://www.sqlite.org/fileformat2.html#b_tree_pages. It reads pages of write-ahead log
// frames, which SQLite cannot read without applying the log.
func parseMetaPage(page []byte) (metaRow, bool) {
	const leafOfTable, cellPointers = 0x0d, 8
	if len(page) < cellPointers+2 || page[0] != leafOfTable || binary.BigEndian.Uint16(page[3:]) != 1 {
		return metaRow{}, false
	}
	cell := int(binary.BigEndian.Uint16(page[cellPointers:]))
	if cell >= len(page) {
		return metaRow{}, false
	}
	b := page[cell:]
	size, n := uvarint(b)
	_, m := uvarint(b[n:]) // the rowid
	if n == 0 || m == 0 || size > uint64(len(b)-n-m) {
		return metaRow{}, false
	}
	columns, ok := parseRecord(b[n+m : n+m+int(size)])
	return newMetaRow(columns), ok
}

// parseRecord decodes the integers and strings of a record, see
// https://www.sqlite.org/fileformat2.html#record_format. Other values are nil.
func parseRecord(b []byte) (columns []any, ok bool) {
	size, n := uvarint(b)
	if n == 0 || size < uint64(n) || size > uint64(len(b)) {
		return nil, false
	}
	types, body := b[n:size], b[size:]
	for len(types) > 0 {
		kind, n := uvarint(types)
		if n == 0 {
			return nil, false
		}
		types = types[n:]
		width := recordWidth(kind)
		if width > len(body) {
			return nil, false
		}
		columns = append(columns, recordValue(kind, body[:width]))
		body = body[width:]
	}
	return columns, true
}

// recordWidth returns the size of a value in bytes, by its serial type.
func recordWidth(kind uint64) int {
	switch {
	case kind <= 4:
		return int(kind)
	case kind == 5:
		return 6
	case kind <= 7:
		return 8
	case kind < 12:
		return 0
	default:
		return int(min((kind-12)/2, math.MaxInt32))
	}
}

func recordValue(kind uint64, b []byte) any {
	switch {
	case kind >= 1 && kind <= 6:
		n := int64(int8(b[0])) // sign-extended
		for _, c := range b[1:] {
			n = n<<8 | int64(c)
		}
		return n
	case kind == 8, kind == 9:
		return int64(kind - 8)
	case kind >= 13 && kind%2 == 1:
		return string(b)
	}
	return nil
}

// uvarint decodes a SQLite varint: big-endian, at most nine bytes. n is 0 if b is too short.
func uvarint(b []byte) (value uint64, n int) {
	for i, c := range b {
		if i == 8 {
			return value<<8 | uint64(c), 9
		}
		value = value<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return value, i + 1
		}
	}
	return 0, 0
}
