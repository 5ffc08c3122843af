package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// importRow is a row of an import.
type importRow struct {
	line int          // first line of the row, from 1
	user *userv1.User // nil if err is set
	err  error        // why the row is refused
}

// rowReader reads the rows of an import. Read returns io.EOF at the end, and any other error for a file that cannot be
// read further.
type rowReader interface{ Read() (importRow, error) }

// maxLine is the maximum length of a line of NDJSON.
const maxLine = 1 << 20

var utf8BOM = []byte("\xEF\xBB\xBF")

// newRowReader returns a reader and, for CSV, the mapping of the columns.
func newRowReader(r io.Reader, format string) (rowReader, []column, error) {
	buffered := bufio.NewReader(r)
	if start, _ := buffered.Peek(len(utf8BOM)); bytes.Equal(start, utf8BOM) {
		_, _ = buffered.Discard(len(utf8BOM))
	}
	if format == "ndjson" {
		scanner := bufio.NewScanner(buffered)
		scanner.Buffer(nil, maxLine)
		return &ndjsonReader{scanner: scanner}, nil, nil
	}
	reader := csv.NewReader(buffered)
	reader.FieldsPerRecord = -1 // checked for each row
	head, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil, newUsageError("the file has no header line; the first line must name the columns")
	}
	if err != nil {
		return nil, nil, err
	}
	columns, err := mapColumns(head)
	return &csvReader{reader: reader, columns: columns}, columns, err
}

// ndjsonReader reads users as one JSON object a line.
type ndjsonReader struct {
	scanner *bufio.Scanner
	line    int
}

// Read implements rowReader.
func (n *ndjsonReader) Read() (importRow, error) {
	for n.scanner.Scan() {
		n.line++
		text := n.scanner.Bytes()
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		row := importRow{line: n.line, user: new(userv1.User)}
		if err := protojson.Unmarshal(text, row.user); err != nil {
			row.user, row.err = nil, fmt.Errorf("must be the JSON of a user: %w", err)
		}
		return row, nil
	}
	if err := n.scanner.Err(); err != nil {
		return importRow{}, fmt.Errorf("line %d: %w", n.line+1, err)
	}
	return importRow{}, io.EOF
}

// column is a column of a CSV file. set is nil if it is ignored.
type column struct {
	name, target string
	set          func(u *userv1.User, value string) error
}

// Fields that the server sets.
var outputOnly = []string{"user_id", "created_at", "updated_at", "version", "etag", "deleted_at", "purge_at", "last_activity_id"}

const metadataPrefix = "metadata."

// mapColumns maps the names of a header to fields of User.
func mapColumns(head []string) ([]column, error) {
	var columns []column
	seen := make(map[string]bool)
	for _, name := range head {
		c := column{name: name, target: strings.TrimSpace(name)}
		if !strings.HasPrefix(c.target, metadataPrefix) {
			c.target = strings.ReplaceAll(strings.ToLower(c.target), " ", "_")
		}
		switch key, isKey := strings.CutPrefix(c.target, metadataPrefix); {
		case seen[c.target]:
			return nil, newUsageError("two columns are named %q", c.target)
		case isKey:
			c.set = func(u *userv1.User, value string) error {
				setMetadata(u, key, value)
				return nil
			}
		case slices.Contains(outputOnly, c.target):
		default:
			if c.set = setters[c.target]; c.set == nil {
				return nil, newUsageError("column %q: must be username, email, status, tags, metadata, metadata.KEY or a field that the server sets", name)
			}
		}
		seen[c.target] = true
		columns = append(columns, c)
	}
	if !seen["username"] || !seen["email"] {
		return nil, newUsageError("the header line must have the columns username and email")
	}
	return columns, nil
}

func setMetadata(u *userv1.User, key, value string) {
	if value == "" {
		return
	}
	if u.Metadata == nil {
		u.Metadata = make(map[string]string)
	}
	u.Metadata[key] = value
}

var setters = map[string]func(u *userv1.User, value string) error{
	"username": func(u *userv1.User, value string) error { u.Username = value; return nil },
	"email":    func(u *userv1.User, value string) error { u.Email = value; return nil },
	"status": func(u *userv1.User, value string) (err error) {
		if value != "" {
			u.Status, err = parseStatus(value)
		}
		return err
	},
	"tags": func(u *userv1.User, value string) (err error) {
		u.Tags, err = parseTags(value)
		return err
	},
	"metadata": func(u *userv1.User, value string) error {
		if value == "" {
			return nil
		}
		var all map[string]string
		if err := json.Unmarshal([]byte(value), &all); err != nil {
			return fmt.Errorf("metadata: must be a JSON object of strings: %w", err)
		}
		for key, value := range all {
			if u.Metadata == nil {
				u.Metadata = make(map[string]string)
			}
			u.Metadata[key] = value
		}
		return nil
	},
}

// csvReader reads users as CSV with a header.
type csvReader struct {
	reader  *csv.Reader
	columns []column
}

// Read implements rowReader.
func (c *csvReader) Read() (importRow, error) {
	record, err := c.reader.Read()
	if err != nil {
		return importRow{}, err
	}
	row := importRow{user: new(userv1.User)}
	row.line, _ = c.reader.FieldPos(0)
	if row.err = c.parse(record, row.user); row.err != nil {
		row.user = nil
	}
	return row, nil
}

func (c *csvReader) parse(record []string, u *userv1.User) error {
	if len(record) != len(c.columns) {
		return fmt.Errorf("has %d fields, must have %d", len(record), len(c.columns))
	}
	for i, column := range c.columns {
		if !utf8.ValidString(record[i]) {
			return fmt.Errorf("%s: must be UTF-8", column.target)
		}
		if column.set == nil {
			continue
		}
		if err := column.set(u, record[i]); err != nil {
			return err
		}
	}
	return nil
}

// formatTags returns tags separated by commas, or as a JSON array if that would not be read again.
func formatTags(tags []string) string {
	text := strings.Join(tags, ",")
	if parsed, err := parseTags(text); err == nil && slices.Equal(parsed, tags) && !strings.ContainsAny(text, "\r\n") {
		return text
	}
	encoded, err := json.Marshal(tags)
	if err != nil {
		return err.Error() // not possible for strings
	}
	return string(encoded)
}

// parseTags is the inverse of formatTags.
func parseTags(text string) ([]string, error) {
	var tags []string
	if strings.HasPrefix(text, "[") {
		if err := json.Unmarshal([]byte(text), &tags); err != nil {
			return nil, fmt.Errorf("tags: must be separated by commas, or a JSON array of strings: %w", err)
		}
		return tags, nil
	}
	for tag := range strings.SplitSeq(text, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}
