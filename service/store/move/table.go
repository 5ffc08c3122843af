package move

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/yourorg/userservice/service/store/encoding"
)

// Kind is the type of the values of a column.
type Kind int

// The kinds of columns. Stores have their own types for them.
const (
	Integer Kind = iota
	Text
	Key   // a text that is compared by its bytes
	Bytes // an encoded value; no bytes are the same as no value
)

// Column is a column of a table.
type Column struct {
	Name string
	Kind Kind
}

// Table is a table that all stores have, with the same columns.
type Table struct {
	Name    string
	Columns []Column
	// Key are columns that identify a row. All stores have an index in their order.
	Key []string
}

// Row has a value for each column: int64, string, []byte or nil.
type Row []any

// Names of tables that stores treat separately.
const (
	Log      = "log"
	Users    = "users"
	Requests = "request_ids"
)

// Tables returns the tables of a store, in the order in which they are moved.
func Tables() []*Table {
	return []*Table{
		{Log, []Column{{"position", Integer}, {"user_id", Integer}, {"time", Integer}, {"action", Text}, {"details", Bytes}}, []string{"position"}},
		{Users, userColumns(), []string{"user_id"}},
		{
			"request_users",
			[]Column{{"user_id", Integer}, {"version", Integer}, {"status_time", Integer}, {"kept_until", Integer}, {"answer", Bytes}},
			[]string{"user_id", "version", "status_time"},
		},
		{
			Requests,
			[]Column{
				{"id", Key}, {"procedure", Key}, {"caller", Key}, {"fingerprint", Bytes}, {"created_at", Integer}, {"user_id", Integer}, {"answer", Bytes},
			},
			[]string{"id", "procedure", "caller"},
		},
	}
}

// userColumns are the stored fields of a user, and its keys.
func userColumns() (columns []Column) {
	for _, f := range encoding.Fields(0) {
		kind := Integer
		switch {
		case f.Text != nil:
			kind = Text
		case f.List != nil, f.Map != nil:
			kind = Bytes
		}
		columns = append(columns, Column{f.Name, kind})
	}
	return append(columns, Column{"username_key", Key}, Column{"email_key", Key})
}

// ColumnNames returns the names of the columns.
func (t *Table) ColumnNames() []string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	return names
}

// Select returns a query of the next rows in the order of key, a unique list of columns: the columns of the table, then key. The
// parameters, which begin with mark, are the values of key unless it is the first query, and the limit.
func (t *Table) Select(key []string, first bool, mark string) string {
	var where string
	n := 0
	if !first {
		parameters := make([]string, len(key))
		for n = range key {
			parameters[n] = mark + strconv.Itoa(n+1)
		}
		n++
		where = " WHERE (" + strings.Join(key, ", ") + ") > (" + strings.Join(parameters, ", ") + ")"
	}
	return "SELECT " + strings.Join(slices.Concat(t.ColumnNames(), key), ", ") + " FROM " + t.Name + where +
		" ORDER BY " + strings.Join(key, ", ") + " LIMIT " + mark + strconv.Itoa(n+1)
}

// describe names a row by its key.
func (t *Table) describe(row Row) string {
	var parts []string
	for i, c := range t.Columns {
		if slices.Contains(t.Key, c.Name) {
			parts = append(parts, fmt.Sprintf("%s %v", c.Name, row[i]))
		}
	}
	return t.Name + ": row with " + strings.Join(parts, ", ")
}

const (
	defaultChunkRows = 2000
	// chunkBytes is the size at which a chunk ends.
	chunkBytes = 4 << 20
)

// Chunk is a part of the rows of a table.
type Chunk struct {
	Rows []Row
	Last Row // values of the columns by which the rows are ordered, in the last row
	size int
}

// Add adds a row as Select returns it. It reports whether there is room for more.
func (c *Chunk) Add(t *Table, key []string, values []any) (more bool) {
	row := make(Row, len(values))
	for i, v := range values {
		var kind Kind
		if n := len(t.Columns); i < n {
			kind = t.Columns[i].Kind
		} else {
			kind = t.KindOf(key[i-n])
		}
		row[i] = canonical(v, kind)
		c.size += 8
		switch v := row[i].(type) {
		case string:
			c.size += len(v)
		case []byte:
			c.size += len(v)
		}
	}
	n := len(t.Columns)
	c.Rows, c.Last = append(c.Rows, row[:n:n]), row[n:]
	return c.size < chunkBytes
}

// KindOf returns the kind of a column by its name.
func (t *Table) KindOf(name string) Kind {
	for _, c := range t.Columns {
		if c.Name == name {
			return c.Kind
		}
	}
	return Integer
}

// canonical returns a copy of a value: text of the kind Key may be bytes, and no bytes are nil.
func canonical(v any, kind Kind) any {
	b, isBytes := v.([]byte)
	switch {
	case !isBytes:
		return v
	case kind != Bytes:
		return string(b)
	case len(b) == 0:
		return nil
	}
	return bytes.Clone(b)
}

func equalRows(a, b Row) bool {
	return slices.EqualFunc(a, b, func(x, y any) bool {
		if b, isBytes := x.([]byte); isBytes {
			other, same := y.([]byte)
			return same && bytes.Equal(b, other)
		}
		_, isBytes := y.([]byte)
		return !isBytes && x == y
	})
}

// Types of values in an encoded row.
const (
	encodedNumber = 'n'
	encodedText   = 't'
)

// encode encodes the values of Chunk.Last.
func (r Row) encode() (b []byte) {
	for _, v := range r {
		switch v := v.(type) {
		case int64:
			b = binary.AppendVarint(append(b, encodedNumber), v)
		case string:
			b = append(binary.AppendUvarint(append(b, encodedText), uint64(len(v))), v...)
		}
	}
	return b
}

var errCursor = errors.New("unknown encoding of a cursor")

// decodeRow is the inverse of encode.
func decodeRow(b []byte) (r Row, err error) {
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		switch kind {
		case encodedNumber:
			number, n := binary.Varint(b)
			if n <= 0 {
				return nil, errCursor
			}
			r, b = append(r, number), b[n:]
		case encodedText:
			length, n := binary.Uvarint(b)
			if n <= 0 || length > uint64(len(b)-n) {
				return nil, errCursor
			}
			r, b = append(r, string(b[n:n+int(length)])), b[n+int(length):] //nolint:gosec,nolintlint // at most len(b)
		default:
			return nil, errCursor
		}
	}
	return r, nil
}
