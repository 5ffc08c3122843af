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
	}
}
