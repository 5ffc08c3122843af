package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

func TestSmoke(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, Options{Path: filepath.Join(t.TempDir(), "a b?c%.db")})
	if err != nil {
		t.Fatal(err)
	}
	op, err := user.NewCreate("Anna", "anna@example.org", []string{"a"}, map[string]string{"k": "v"})
	if err != nil {
		t.Fatal(err)
	}
	res, err := user.ApplyOne(ctx, s, user.Change{Op: op})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %+v", res, res.User)
	u, err := s.Get(ctx, res.User.ID)
	t.Log(u, err)
	_, err = user.ApplyOne(ctx, s, user.Change{Op: op})
	t.Log(err)
	page, err := s.List(ctx, user.ListQuery{Order: user.ByUpdated, MaxUsers: 10, MaxLooked: 10, MaxBytes: 1 << 20})
	t.Log(page, err)
	lp, err := s.Log(ctx, user.LogQuery{MaxRows: 10})
	t.Log(lp, err)
	if err := s.Probe(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
