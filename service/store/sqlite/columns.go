package sqlite

import (
	"database/sql/driver"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// columns are the stored fields of a user. Each has a column of its name in the table users.
var columns = encoding.Fields(0)

// userColumns are the columns that scanUser reads. userColumnCount is their number.
var (
	userColumns     = strings.Join(columnNames(columns), ", ")
	userColumnCount = len(columns)
)

// Columns that an update writes. Those of updateColumns have no index, except last_activity_id: if only
// they are named, the other index entries are not rewritten.
var (
	rareColumns      = user.NewFieldSet("username", "email", "deleted_at", "purge_at")
	constantColumns  = user.NewFieldSet("user_id", "created_at")
	updateColumns    = encoding.Fields(rareColumns | constantColumns)
	allUpdateColumns = encoding.Fields(constantColumns)
)

func columnNames(columns []*user.Field) []string {
	list := make([]string, len(columns))
	for i, f := range columns {
		list[i] = f.Name
	}
	return list
}

// assignments returns the SET clause of an update of columns.
func assignments(columns []*user.Field) string {
	return strings.Join(columnNames(columns), " = ?, ") + " = ?"
}

// columnValues returns the values of columns, with more values appended.
func columnValues(columns []*user.Field, u *user.User, more ...driver.Value) []driver.Value {
	row := make([]driver.Value, 0, len(columns)+len(more))
	for _, f := range columns {
		row = append(row, columnValue(f, u))
	}
	return append(row, more...)
}

func columnValue(f *user.Field, u *user.User) driver.Value {
	switch {
	case f.Int != nil:
		return *f.Int(u)
	case f.Text != nil:
		return *f.Text(u)
	case f.Status != nil:
		return int64(*f.Status(u))
	case f.Time != nil:
		return timeOrNull(*f.Time(u))
	case f.List != nil:
		return encoding.EncodeList(*f.List(u))
	default:
		return encoding.EncodeMap(encoding.FormMap, *f.Map(u))
	}
}

// scanUser decodes a row of userColumns.
func scanUser(row []driver.Value) (*user.User, error) {
	u := new(user.User)
	for i, f := range columns {
		if err := encoding.SetColumn(f, u, row[i]); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func asNumber(v driver.Value) int64 { n, _ := v.(int64); return n }
func asText(v driver.Value) string  { s, _ := v.(string); return s }
func asBlob(v driver.Value) []byte  { b, _ := v.([]byte); return b }

// asTime converts a nullable time.
func asTime(v driver.Value) time.Time {
	if n, ok := v.(int64); ok {
		return encoding.FromMicros(n)
	}
	return time.Time{}
}

// timeOrNull is the inverse of asTime.
func timeOrNull(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}
