package storetest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/user"
)

func (d *modelData) head() user.Head {
	head := user.Head{Epoch: d.epoch, Position: int64(len(d.log))}
	if n := len(d.log); n > 0 {
		head.Time = d.log[n-1].Time
	}
	return head
}

// now returns the present data, which nobody changes any more.
func (m *Model) now(ctx context.Context) (*modelData, error) {
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, nil
}

// change replaces the data by a changed copy.
func (m *Model) change(ctx context.Context, change func(*modelData)) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	data, err := m.now(ctx)
	if err != nil {
		return err
	}
	data = data.clone()
	change(data)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = data
	return nil
}

// Head returns the end of the log.
func (m *Model) Head(ctx context.Context) (user.Head, error) {
	d, err := m.now(ctx)
	if err != nil {
		return user.Head{}, err
	}
	return d.head(), nil
}

// First returns 1: every row is kept.
func (m *Model) First(ctx context.Context) (int64, error) {
	_, err := m.now(ctx)
	return 1, err
}

// Get returns a user.
func (m *Model) Get(ctx context.Context, id int64) (*user.User, error) {
	d, err := m.now(ctx)
	if err != nil {
		return nil, err
	}
	if u := d.users[id]; u != nil {
		return u.Clone(), nil
	}
	return nil, user.NewNotFoundError(id)
}

// GetMany returns the users that there are.
func (m *Model) GetMany(ctx context.Context, ids []int64) ([]*user.User, error) {
	d, err := m.now(ctx)
	if err != nil {
		return nil, err
	}
	var users []*user.User
	for _, id := range ids {
		if u := d.users[id]; u != nil {
			users = append(users, u.Clone())
		}
	}
	return users, nil
}

// Statuses returns the current statuses of the users that exist.
func (m *Model) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	d, err := m.now(ctx)
	if err != nil {
		return nil, err
	}
	var statuses []user.CurrentStatus
	for _, id := range ids {
		if u := d.users[id]; u != nil {
			statuses = append(statuses, u.CurrentStatus())
		}
	}
	return statuses, nil
}

// place is a user with its place in an order.
type place struct {
	user *user.User
	keys user.Keys
	mark user.Mark
}

func (d *modelData) place(order user.Order, id int64) place {
	p := place{user: d.users[id], keys: d.keys[id], mark: user.Mark{ID: id}}
	switch order {
	case user.ByUsername:
		p.mark.Key = p.keys.Username
	case user.ByEmail:
		p.mark.Key = p.keys.Email
	case user.ByUpdated:
		p.mark.Time = p.user.UpdatedAt
	case user.ByID:
	}
	return p
}

func compareMarks(a, b user.Mark) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID))
}

// sorted returns the users that a query walks over, whatever its page.
func (d *modelData) sorted(query user.ListQuery) []place {
	var places []place
	for id := range d.users {
		if p := d.place(query.Order, id); strings.HasPrefix(p.mark.Key, query.Prefix) {
			places = append(places, p)
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		c := compareMarks(a.mark, b.mark)
		if query.Desc {
			return -c
		}
		return c
	})
	return places
}

// List sorts all users, and goes through them.
func (m *Model) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	d, err := m.now(ctx)
	if err != nil {
		return user.ListPage{}, err
	}
	var page user.ListPage
	last, looked, bytes := query.After, 0, 0
	for _, p := range d.sorted(query) {
		u := p.user
		if query.After != nil {
			if c := compareMarks(p.mark, *query.After); c == 0 || c < 0 != query.Desc {
				continue
			}
		}
		keep := (query.ShowDeleted || !u.Deleted()) && (query.Match == nil || query.Match(u.Clone(), p.keys))
		full := looked == query.MaxLooked || len(page.Users) == query.MaxUsers ||
			keep && len(page.Users) > 0 && bytes+u.Size() > query.MaxBytes
		if full {
			page.Next = last
			return page, nil
		}
		if keep {
			page.Users = append(page.Users, u.Clone())
			bytes += u.Size()
		}
		last = &p.mark
		looked++
	}
	return page, nil
}

// Log goes through the whole log.
func (m *Model) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	d, err := m.now(ctx)
	if err != nil {
		return user.LogPage{}, err
	}
	end := int64(len(d.log))
	if query.Before > 0 {
		end = min(end, query.Before-1)
	}
	page := user.LogPage{Reached: query.After}
	rows := ownRows(d.log[min(query.After, end):end])
	if query.Desc {
		slices.Reverse(rows)
		page.Reached = end + 1
	}
	looked, bytes := 0, 0
	for _, row := range rows {
		if query.UserID != 0 && row.UserID != query.UserID {
			continue
		}
		if len(page.Rows) == query.MaxRows || query.MaxLooked > 0 && looked == query.MaxLooked ||
			query.MaxBytes > 0 && bytes >= query.MaxBytes {
			return page, nil
		}
		looked++
		page.Reached = row.Position
		if len(query.Actions) == 0 || slices.Contains(query.Actions, row.Action) {
			page.Rows = append(page.Rows, row)
			bytes += row.DetailBytes()
		}
	}
	page.Done, page.Reached = true, max(end, query.After)
	if query.Desc {
		page.Reached = query.After + 1
	}
	return page, nil
}

// Before goes through the whole log.
func (m *Model) Before(ctx context.Context, t time.Time) (int64, error) {
	d, err := m.now(ctx)
	if err != nil {
		return 0, err
	}
	last := int64(0)
	for _, row := range d.log {
		if row.Time.Before(t) {
			last = row.Position
		}
	}
	return last, nil
}

// Observe names the observer.
func (m *Model) Observe(observer func(user.Commit)) { m.observer = observer }

// DuePurges returns deleted users whose time has come.
func (m *Model) DuePurges(ctx context.Context, limit int) ([]int64, error) {
	d, err := m.now(ctx)
	if err != nil {
		return nil, err
	}
	at := m.clock()
	var due []*user.User
	for _, u := range d.users {
		if u.Deleted() && !at.Before(u.PurgeAt) {
			due = append(due, u)
		}
	}
	slices.SortFunc(due, func(a, b *user.User) int { return cmp.Or(a.PurgeAt.Compare(b.PurgeAt), cmp.Compare(a.ID, b.ID)) })
	var ids []int64
	for _, u := range due[:min(limit, len(due))] {
		ids = append(ids, u.ID)
	}
	return ids, nil
}

// Redact redacts all rows of a user at once.
func (m *Model) Redact(ctx context.Context, id int64, _ int) (more bool, err error) {
	return false, m.change(ctx, func(d *modelData) {
		for i, row := range d.log {
			if row.UserID == id {
				d.log[i].Details = user.Redacted(row.Details)
			}
		}
		for key, r := range d.requests {
			if r.userID == id {
				delete(d.requests, key)
			}
		}
	})
}

// ForgetRequests drops request ids past their lifetime.
func (m *Model) ForgetRequests(ctx context.Context, limit int) (int, error) {
	dropped := 0
	err := m.change(ctx, func(d *modelData) {
		now := m.clock()
		for key, r := range d.requests {
			if dropped < limit && now.Sub(r.created) >= user.RequestIDLifetime {
				delete(d.requests, key)
				dropped++
			}
		}
	})
	return dropped, err
}

// Probe has nothing to write to.
func (m *Model) Probe(ctx context.Context) error {
	_, err := m.now(ctx)
	return err
}

// Close ends the store; Reopen goes on with what it holds.
func (m *Model) Close() error {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
