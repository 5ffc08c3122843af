package faulty_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/store/faulty"
	"github.com/yourorg/userservice/service/user"
)

// fakeStore is a store of which the tests write the log.
type fakeStore struct {
	user.Store

	rows     []user.Activity
	observer func(user.Commit)
}

func (s *fakeStore) Observe(observer func(user.Commit)) { s.observer = observer }

func (s *fakeStore) commit() {
	head := user.Head{Position: int64(len(s.rows) + 1)}
	s.rows = append(s.rows, user.Activity{Position: head.Position})
	if s.observer != nil {
		s.observer(user.Commit{Head: head})
	}
}

func (s *fakeStore) Log(_ context.Context, query user.LogQuery) (user.LogPage, error) {
	page := user.LogPage{Reached: int64(len(s.rows)), Done: true}
	for _, row := range s.rows {
		if row.Position > query.After && (query.Before == 0 || row.Position < query.Before) {
			page.Rows = append(page.Rows, row)
		}
	}
	return page, nil
}

func (s *fakeStore) Get(context.Context, int64) (*user.User, error) { return &user.User{}, nil }

func (s *fakeStore) Statuses(context.Context, []int64) ([]user.CurrentStatus, error) { return nil, nil }

func (s *fakeStore) Submit(context.Context, user.Batch) *user.Pending { return nil }

func readLog(t *testing.T, store user.Store, after int64) user.LogPage {
	t.Helper()
	page, err := store.Log(t.Context(), user.LogQuery{After: after, MaxRows: 100})
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestUnknownFaultIsNotPlanted(t *testing.T) {
	store := &fakeStore{}
	for _, fault := range []string{"", "sync-off"} {
		if got := faulty.New(store, fault); got != user.Store(store) {
			t.Errorf("New(store, %q) = %v, want the store", fault, got)
		}
	}
}

func TestPanicInHandler(t *testing.T) {
	store := faulty.New(&fakeStore{}, faulty.PanicInHandler)
	for name, call := range map[string]func(id int64){
		"Get":      func(id int64) { _, _ = store.Get(t.Context(), id) },
		"Statuses": func(id int64) { _, _ = store.Statuses(t.Context(), []int64{7, id}) },
		"Submit": func(id int64) {
			store.Submit(t.Context(), user.Batch{Changes: []user.Change{{Op: &user.ReadBarrier{ID: id}}}})
		},
	} {
		for id, want := range map[int64]bool{7: false, faulty.PanicUser: true} {
			if got := panics(func() { call(id) }); got != want {
				t.Errorf("%s(%d) panics = %t, want %t", name, id, got, want)
			}
		}
	}
}

func panics(call func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	call()
	return false
}

func TestDropAtSeam(t *testing.T) {
	inner := &fakeStore{}
	store, after, read := faulty.New(inner, faulty.DropAtSeam), int64(0), 0
	for range 20 {
		inner.commit()
		page := readLog(t, store, after)
		read, after = read+len(page.Rows), page.Reached
	}
	if read != 18 {
		t.Errorf("Log() returned %d of 20 rows, want 18", read)
	}
}

func TestPublishEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, published := &fakeStore{}, int64(0)
		store := faulty.New(inner, faulty.PublishEarly)
		store.Observe(func(c user.Commit) { published = c.Head.Position })
		inner.commit()
		time.Sleep(time.Second)
		inner.commit()
		if page := readLog(t, store, 0); published != 2 || len(page.Rows) != 1 || page.Reached != 1 {
			t.Errorf("Log() = %+v after position %d was published, want one row", page, published)
		}
		time.Sleep(time.Second)
		if page := readLog(t, store, 0); len(page.Rows) != 2 || page.Reached != 2 {
			t.Errorf("Log() = %+v, want two rows", page)
		}
	})
}
