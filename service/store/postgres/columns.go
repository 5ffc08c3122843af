package postgres

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// columns are the stored fields of a user. Each has a column of its name in the table users. briefColumns are those
// without lists and maps.
var (
	columns      = encoding.Fields(0)
	briefColumns = encoding.Fields(collections())
	columnNames  = names(columns, "")
	userSelect   = "SELECT " + columnNames + ", username_key, email_key FROM users "
)

func collections() (set user.FieldSet) {
	for i := range user.Fields() {
		if f := &user.Fields()[i]; f.List != nil || f.Map != nil {
			set = set.With(f)
		}
	}
	return set
}

// names returns the names of columns with a prefix.
func names(columns []*user.Field, prefix string) string {
	list := make([]string, len(columns))
	for i, f := range columns {
		list[i] = prefix + f.Name
	}
	return strings.Join(list, ", ")
}

// arrays returns the parameters of unnest from a number on: $1::bigint[], $2::text[] …, for columns and both keys.
func arrays(first int) string {
	list := make([]string, 0, len(columns)+2)
	for i, f := range columns {
		kind := "bigint"
		switch {
		case f.Text != nil:
			kind = "text"
		case f.List != nil, f.Map != nil:
			kind = "bytea"
		}
		list = append(list, fmt.Sprintf("$%d::%s[]", first+i, kind))
	}
	n := first + len(columns)
	return strings.Join(append(list, fmt.Sprintf("$%d::bytea[], $%d::bytea[]", n, n+1)), ", ")
}

// arrayValues returns the arguments of arrays for users with their keys.
func arrayValues(states []*state) []any {
	values := make([]any, 0, len(columns)+2)
	for _, f := range columns {
		values = append(values, arrayValue(f, states))
	}
	usernames, emails := make([][]byte, len(states)), make([][]byte, len(states))
	for i, s := range states {
		usernames[i], emails[i] = []byte(s.keys.Username), []byte(s.keys.Email)
	}
	return append(values, usernames, emails)
}

func arrayValue(f *user.Field, states []*state) any {
	switch {
	case f.Text != nil:
		return collect(states, func(u *user.User) string { return *f.Text(u) })
	case f.List != nil:
		return collect(states, func(u *user.User) []byte { return encoding.EncodeList(*f.List(u)) })
	case f.Map != nil:
		return collect(states, func(u *user.User) []byte { return encoding.EncodeMap(encoding.FormMap, *f.Map(u)) })
	case f.Int != nil:
		return collect(states, func(u *user.User) int64 { return *f.Int(u) })
	case f.Status != nil:
		return collect(states, func(u *user.User) int64 { return int64(*f.Status(u)) })
	default:
		return collect(states, func(u *user.User) *int64 {
			if f.Time(u).IsZero() {
				return nil
			}
			micros := f.Time(u).UnixMicro()
			return &micros
		})
	}
}

func collect[T any](states []*state, value func(*user.User) T) []T {
	list := make([]T, len(states))
	for i, s := range states {
		list[i] = value(s.user)
	}
	return list
}

// scanner decodes rows of columns.
type scanner struct {
	columns []*user.Field
	dest    []any
	ints    []*int64
	texts   []*string
	bytes   [][]byte
}

// newScanner returns a scanner of rows of columns, followed by more.
func newScanner(columns []*user.Field, more ...any) *scanner {
	n := len(columns)
	s := &scanner{columns: columns, ints: make([]*int64, n), texts: make([]*string, n), bytes: make([][]byte, n)}
	for i, f := range columns {
		switch {
		case f.Text != nil:
			s.dest = append(s.dest, &s.texts[i])
		case f.List != nil, f.Map != nil:
			s.dest = append(s.dest, &s.bytes[i])
		default:
			s.dest = append(s.dest, &s.ints[i])
		}
	}
	s.dest = append(s.dest, more...)
	return s
}

// scan decodes a row. All columns are NULL if there is no user; then it returns nil.
func (s *scanner) scan(rows pgx.Rows) (*user.User, error) {
	if err := rows.Scan(s.dest...); err != nil {
		return nil, err
	}
	u, exists := new(user.User), false
	for i, f := range s.columns {
		var err error
		switch {
		case f.List != nil:
			*f.List(u), err = encoding.DecodeList(s.bytes[i])
		case f.Map != nil:
			*f.Map(u), err = encoding.DecodeMap(s.bytes[i])
		case f.Text != nil && s.texts[i] != nil:
			*f.Text(u), exists = *s.texts[i], true
		case f.Text != nil, s.ints[i] == nil:
		case f.Int != nil:
			*f.Int(u) = *s.ints[i]
		case f.Status != nil:
			*f.Status(u) = user.Status(*s.ints[i])
		default:
			*f.Time(u) = encoding.FromMicros(*s.ints[i])
		}
		if err != nil {
			return nil, err
		}
	}
	if !exists {
		return nil, nil //nolint:nilnil // there is no user
	}
	return u, nil
}

// eachUser calls visit with the users of userSelect and the size of their lists and maps.
func eachUser(rows pgx.Rows, visit func(u *user.User, keys user.Keys, bytes int)) error {
	defer rows.Close()
	var username, email []byte
	s := newScanner(columns, &username, &email)
	for rows.Next() {
		u, err := s.scan(rows)
		if err != nil {
			return err
		}
		size := 0
		for _, b := range s.bytes {
			size += len(b)
		}
		visit(u, user.Keys{Username: string(username), Email: string(email)}, size)
	}
	return rows.Err()
}
