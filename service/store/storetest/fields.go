package storetest

import (
	"fmt"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// FilledUser returns a user with a value in each stored field. The values differ between fields and
// seeds, and are valid except for their relations.
func FilledUser(seed int) *user.User {
	u := new(user.User)
	for i := range user.Fields() {
		f := &user.Fields()[i]
		n := 100*(seed+1) + i
		text := fmt.Sprintf("%s.%d@example.org", f.Name, n) // valid as a username and as an e-mail address
		switch {
		case f.Int != nil:
			*f.Int(u) = int64(n)
		case f.Text != nil:
			*f.Text(u) = text
		case f.Status != nil:
			*f.Status(u) = user.StatusInactive + user.Status(seed%2)
		case f.Time != nil:
			*f.Time(u) = time.UnixMicro(1_800_000_000_000_000 + int64(n)).UTC()
		case f.List != nil:
			*f.List(u) = []string{text, f.Name}
		case f.Map != nil:
			*f.Map(u) = map[string]string{f.Name: text, "empty": ""}
		}
	}
	return u
}

// fillOp replaces all fields of a user, except its id and the time of its creation.
func fillOp(id int64, seed int) user.Op {
	return opFunc{id, func(cur *user.User, _ user.CommitStamp, _ user.Author) (user.Decision, error) {
		next := FilledUser(seed)
		next.ID, next.CreatedAt = cur.ID, cur.CreatedAt
		return user.Decision{User: next, Store: true}, nil
	}}
}
