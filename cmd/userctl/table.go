package main

import (
	"io"
	"slices"
	"strings"

	"github.com/rivo/uniseg"
)

const (
	columnSpace = 2
	minColumn   = 6 // to which columns are shortened
	ellipsis    = "…"
)

// table aligns rows. On a terminal, texts are shortened so that a row fits a line.
type table struct {
	style

	out   io.Writer
	head  bool   // the next row is the header
	fixed []bool // columns that are not shortened
	rows  [][]string
}

// newTable returns a table of a list. Ids, times and statuses are not shortened.
func newTable(style style, out io.Writer, head []string) table {
	t := table{style: style, out: out, head: true}
	for _, name := range head {
		whole := strings.HasSuffix(name, " ID") || slices.Contains([]string{"TIME", "UPDATED", "STATUS", "RESULT", "CURRENT"}, name)
		t.fixed = append(t.fixed, whole)
	}
	return t
}

func (t *table) add(row ...string) {
	cells := make([]string, len(row))
	for i, cell := range row {
		cells[i] = printable(cell)
	}
	t.rows = append(t.rows, cells)
}

// flush writes the rows.
func (t *table) flush() error {
	widths := t.widths()
	var text strings.Builder
	for _, row := range t.rows {
		end := len(row)
		for end > 0 && row[end-1] == "" {
			end--
		}
		for i, cell := range row[:end] {
			cell = shorten(cell, widths[i])
			if t.head {
				text.WriteString(t.in(bold, cell))
			} else {
				text.WriteString(t.paint(cell))
			}
			if i < end-1 {
				text.WriteString(strings.Repeat(" ", widths[i]-uniseg.StringWidth(cell)+columnSpace))
			}
		}
		t.head = false
		text.WriteByte('\n')
	}
	t.rows = t.rows[:0]
	_, err := io.WriteString(t.out, text.String())
	return err
}

// widths returns the width of each column.
func (t *table) widths() []int {
	var widths []int
	for _, row := range t.rows {
		for len(widths) < len(row) {
			widths = append(widths, 0)
		}
		for i, cell := range row {
			widths[i] = max(widths[i], uniseg.StringWidth(cell))
		}
	}
	if t.width == 0 {
		return widths
	}
	excess := (len(widths)-1)*columnSpace - t.width
	for _, w := range widths {
		excess += w
	}
	for ; excess > 0; excess-- {
		widest := -1
		for i, w := range widths {
			if w > minColumn && (i >= len(t.fixed) || !t.fixed[i]) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// shorten returns a text of at most a width, of which an ellipsis may be the last character.
func shorten(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	var short strings.Builder
	left := width - 1
	for clusters := uniseg.NewGraphemes(text); clusters.Next(); {
		if left -= clusters.Width(); left < 0 {
			break
		}
		short.WriteString(clusters.Str())
	}
	return short.String() + ellipsis
}
