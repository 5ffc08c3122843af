package sqlite

import (
	"database/sql/driver"
	"slices"
	"strings"
)

// insertRows is the number of rows that a rowWriter inserts with one statement.
const insertRows = 32

// rowWriter inserts rows into a table, several with one statement, which takes half of the time. flush must precede a
// statement that depends on the rows.
type rowWriter struct {
	columns   int
	values    []driver.Value // of rows that are not inserted yet
	one, many *stmt
}

// newRowWriter returns a writer for statements that begin with insert, such as INSERT INTO.
func newRowWriter(err *error, c *conn, insert, table, columns string) rowWriter {
	n := 1 + strings.Count(columns, ",")
	row := "(?" + strings.Repeat(", ?", n-1) + ")"
	one := insert + " " + table + " (" + columns + ") VALUES " + row
	return rowWriter{columns: n, one: c.prepare(err, one), many: c.prepare(err, one+strings.Repeat(", "+row, insertRows-1))}
}

// add adds a row.
func (w *rowWriter) add(values ...driver.Value) error {
	w.values = append(w.values, values...)
	if len(w.values) < insertRows*w.columns {
		return nil
	}
	if err := w.many.exec(w.values...); err != nil {
		return err
	}
	w.drop()
	return nil
}

// flush inserts the rows that are not inserted yet.
func (w *rowWriter) flush() error {
	for row := range slices.Chunk(w.values, w.columns) {
		if err := w.one.exec(row...); err != nil {
			return err
		}
	}
	w.drop()
	return nil
}

// drop drops the rows that are not inserted yet.
func (w *rowWriter) drop() {
	clear(w.values)
	w.values = w.values[:0]
}
