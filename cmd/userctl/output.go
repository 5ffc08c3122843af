package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// output writes messages in the format of --output.
type output struct {
	style

	out    io.Writer
	format string
}

func newOutput(to console, format string) *output {
	return &output{style: newStyle(to), out: to.out, format: format}
}

// field is a line of the table of one message.
type field struct{ name, value string }

// one writes a message; in a table, the fields.
func (o *output) one(message proto.Message, fields []field) error {
	if o.format != "table" {
		return o.encode(message)
	}
	shown := table{style: style{color: o.color}, out: o.out} // values are not shortened
	for _, f := range fields {
		if f.value != "" {
			shown.add(f.name, f.value)
		}
	}
	return shown.flush()
}

// encode writes a message as JSON or YAML.
func (o *output) encode(message proto.Message) error {
	text, err := encodeJSON(message)
	if err != nil {
		return err
	}
	switch o.format {
	case "json":
		var indented bytes.Buffer
		if err := json.Indent(&indented, text, "", "  "); err != nil {
			return err
		}
		text = indented.Bytes()
	case "yaml":
		if text, err = toYAML(text); err != nil {
			return err
		}
		text = append([]byte("---\n"), bytes.TrimSuffix(text, []byte("\n"))...)
	}
	_, err = o.out.Write(append(text, '\n'))
	return err
}

// list writes any number of messages: an array in JSON, else one after the other.
type list[M proto.Message] struct {
	*output

	head  []string
	row   func(M) []string
	table table
	rows  int
}

// tableRows is the number of rows whose columns are aligned, and which are kept in memory.
const tableRows = 1000

func newList[M proto.Message](o *output, row func(M) []string, head ...string) *list[M] {
	return &list[M]{output: o, head: head, row: row, table: newTable(o.style, o.out, head)}
}

func (l *list[M]) add(message M) error {
	l.rows++
	switch l.format {
	case "table":
		if l.rows == 1 {
			l.table.add(l.head...)
		}
		l.table.add(l.row(message)...)
		if l.rows%tableRows == 0 {
			return l.table.flush()
		}
		return nil
	case "json":
		separator := ",\n"
		if l.rows == 1 {
			separator = "[\n"
		}
		text, err := encodeJSON(message)
		if err != nil {
			return err
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, text, "  ", "  "); err != nil {
			return err
		}
		_, err = fmt.Fprintf(l.out, "%s  %s", separator, &indented)
		return err
	default:
		return l.encode(message)
	}
}

// end writes the rest. A list that ended with an error stays incomplete.
func (l *list[M]) end() error {
	switch {
	case l.format == "table":
		return l.table.flush()
	case l.format == "json" && l.rows == 0:
		_, err := io.WriteString(l.out, "[]\n")
		return err
	case l.format == "json":
		_, err := io.WriteString(l.out, "\n]\n")
		return err
	default:
		return nil
	}
}

// endWith ends a list whose command may have failed after some rows.
func (l *list[M]) endWith(err error) error {
	if err != nil && l.rows == 0 {
		return err
	}
	return errors.Join(err, l.end())
}

// event writes a message of a stream at once: a line, except in YAML.
func (o *output) event(message proto.Message, columns ...string) error {
	switch o.format {
	case "table":
		for i, column := range columns {
			columns[i] = o.paint(printable(column))
			if i == 0 {
				columns[i] = o.in(faint, columns[i]) // the position or the time
			}
		}
		_, err := fmt.Fprintln(o.out, strings.TrimRight(strings.Join(columns, "  "), " "))
		return err
	case "json":
		return (&output{out: o.out, format: "ndjson"}).encode(message)
	default:
		return o.encode(message)
	}
}

// encodeJSON returns a message as compact JSON. The spaces of protojson are random.
func encodeJSON(message proto.Message) ([]byte, error) {
	text, err := protojson.Marshal(message)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, text)
	return compact.Bytes(), err
}

// toYAML converts JSON, which is YAML in another style, and keeps the order of the fields.
func toYAML(text []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	resetStyle(&document)
	return yaml.Marshal(&document)
}

func resetStyle(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		resetStyle(child)
	}
}

// printable replaces control characters, which could change the terminal or the columns.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

// timeText returns a time in UTC, or "" if it is unset.
func timeText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339)
}
