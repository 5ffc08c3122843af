package client_test

import (
	"errors"
	"fmt"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// WatchUsers resumes after a restart of the server: no change is missing, none is repeated.
func TestWatchUsersResumes(t *testing.T) {
	s := servertest.Start(t)
	c := newClient(t, s)
	for i := range 3 {
		createUser(t, c, i)
	}
	enough := errors.New("enough")
	var got []string
	err := c.WatchUsers(limited(t), &userv1.WatchUsersRequest{}, func(m *userv1.WatchUsersResponse) error {
		if !m.GetSynced() {
			got = append(got, m.GetUser().GetUsername())
		}
		switch {
		case m.GetSynced() && len(got) == 3:
			s.Restart()
			createUser(t, newClient(t, s), 3)
		case len(got) == 4:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("WatchUsers = %v, want the error of fn", err)
	}
	if want := "[user 0 user 1 user 2 user 3]"; fmt.Sprint(got) != want {
		t.Errorf("users %v, want %s", got, want)
	}
}
