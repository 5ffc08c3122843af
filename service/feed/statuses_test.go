package feed

import (
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// A change of another node has the user as of a later read. Its status is delivered at its own position only.
func TestStatusOf(t *testing.T) {
	t.Parallel()
	at := func(position int64) *user.User { return &user.User{ID: 7, StatusPosition: position} }
	for name, test := range map[string]struct {
		user *user.User
		row  user.Activity
		want bool
	}{
		"the status of the row":       {at(3), user.Activity{Position: 3, Action: user.ActionStatusChanged}, true},
		"a newer status":              {at(5), user.Activity{Position: 3, Action: user.ActionStatusChanged}, false},
		"purged":                      {nil, user.Activity{Position: 3, Action: user.ActionPurged}, true},
		"purged by a later row":       {nil, user.Activity{Position: 3, Action: user.ActionDeleted}, false},
		"a row that sets no status":   {at(3), user.Activity{Position: 4, Action: user.ActionUpdated}, false},
		"an undeletion, not the last": {at(4), user.Activity{Position: 3, Action: user.ActionUndeleted}, false},
	} {
		got, ok := statusOf(&user.CommittedChange{UserID: 7, User: test.user, Rows: []user.Activity{test.row}})
		if ok != test.want || ok && got.Position != test.row.Position {
			t.Errorf("statusOf(%s) = %+v, %t, want %t", name, got, ok, test.want)
		}
	}
}
