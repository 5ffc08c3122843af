package filter_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/filter"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// restriction returns a filter that only users with the value of u in a field match.
func restriction(f *user.Field, u *user.User) string {
	switch {
	case f.Status != nil:
		return fmt.Sprintf("%s = %s", f.Name, f.Status(u))
	case f.Time != nil:
		return fmt.Sprintf("%s = %q", f.Name, f.Time(u).Format(time.RFC3339Nano))
	case f.Int != nil:
		return fmt.Sprintf("%s = %d", f.Name, *f.Int(u))
	case f.Map != nil:
		return fmt.Sprintf("%s.%s = %q", f.Name, f.Name, (*f.Map(u))[f.Name])
	case f.List != nil:
		return fmt.Sprintf("%s:%q", f.Name, (*f.List(u))[0])
	case f.Text != nil:
		return fmt.Sprintf("%s = %q", f.Name, *f.Text(u))
	}
	return f.Name + ` = "1"`
}

func keysOf(u *user.User) user.Keys {
	username, _ := user.UsernameKey(u.Username)
	email, _ := user.EmailKey(u.Email)
	return user.Keys{Username: username, Email: email}
}

// violated returns a restriction of the query of a filter that u does not meet. The store reads only users that
// meet all.
func violated(f *filter.Filter, u *user.User) string {
	var q user.ListQuery
	f.Narrow(&q)
	switch created, keys := q.Created, keysOf(u); {
	case q.Where != nil && !q.Where.Meets(u, keys):
		return fmt.Sprintf("the condition %v, want its term in User.Terms", *q.Where)
	case u.LastActivityID <= q.AfterActivity, q.BeforeActivity > 0 && u.LastActivityID >= q.BeforeActivity:
		return "last_activity_id"
	case u.CreatedAt.Before(created.From), !created.Until.IsZero() && !u.CreatedAt.Before(created.Until):
		return "created_at"
	case !strings.HasPrefix(keys.Username, q.Prefix) && !strings.HasPrefix(keys.Email, q.Prefix):
		return "the prefix " + q.Prefix
	}
	return ""
}

// A time of more than nine digits after the point is rejected, as in JSON, in place of truncated.
func TestTimesAreNotTruncated(t *testing.T) {
	for text, valid := range map[string]bool{
		"2026-01-31T00:00:00.123456789Z":       true,
		"2026-01-31T00:00:00.123456789+01:00":  true,
		"2026-01-31T00:00:00.1234567891Z":      false,
		"2026-01-31T00:00:00.1234567891+01:00": false,
	} {
		if _, err := filter.Parse(`created_at > "` + text + `"`); (err == nil) != valid {
			t.Errorf("Parse(%s) error = %v, want none: %t", text, err, valid)
		}
	}
}

// The table of fields decides which fields are supported.
func TestEachFilterableField(t *testing.T) {
	u, other := storetest.FilledUser(1), storetest.FilledUser(2)
	for i := range user.Fields() {
		f := &user.Fields()[i]
		text := restriction(f, u)
		compiled, err := filter.Parse(text)
		if !f.Filterable {
			if e, ok := user.AsError(err); !ok || !strings.HasPrefix(e.Violations[0].Message, "must compare username,") {
				t.Errorf("Parse(%s) error = %v, want a violation with the supported fields", text, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Parse(%s) error = %v", text, err)
			continue
		}
		if !compiled.Match(u, keysOf(u)) || compiled.Match(other, keysOf(other)) {
			t.Errorf("%s matches %t, %t, want true of a user with this value, false of another one", text,
				compiled.Match(u, keysOf(u)), compiled.Match(other, keysOf(other)))
		}
		if restricted := violated(&compiled, u); restricted != "" {
			t.Errorf("%s restricts the query by %s, which a user with this value does not meet", text, restricted)
		}
	}
}
