package storetest

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// first returns the position of the oldest row.
func (d *modelData) first() int64 { return d.end.Position - int64(len(d.log)) + 1 }

func (d *modelData) prunedAny(rows []user.Activity) bool {
	return len(rows) > 0 && rows[0].Position < d.first()
}

// snapshot returns the current data, which must not be modified.
func (m *Model) snapshot(ctx context.Context) (*modelData, error) {
	if err := m.checkOpen(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, nil
}

// change applies a function to a copy of the data and installs the copy.
func (m *Model) change(ctx context.Context, change func(*modelData)) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	data, err := m.snapshot(ctx)
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

// Head implements user.Store.
func (m *Model) Head(ctx context.Context) (user.Head, error) {
	d, err := m.snapshot(ctx)
	if err != nil {
		return user.Head{}, err
	}
	return d.end, nil
}

// First implements user.Store.
func (m *Model) First(ctx context.Context) (int64, error) {
	d, err := m.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	return d.first(), nil
}

// Get implements user.Store.
func (m *Model) Get(ctx context.Context, id int64) (*user.User, error) {
	d, err := m.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if u := d.users[id]; u != nil {
		return u.Clone(), nil
	}
	return nil, user.NewNotFoundError(id)
}

// GetMany implements user.Store.
func (m *Model) GetMany(ctx context.Context, ids []int64) ([]*user.User, error) {
	d, err := m.snapshot(ctx)
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

// Statuses implements user.Store.
func (m *Model) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	d, err := m.snapshot(ctx)
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

// entry is a user with its sort key.
type entry struct {
	user *user.User
	keys user.Keys
	mark user.ListCursor
}

func (d *modelData) entry(order user.Order, id int64) entry {
	p := entry{user: d.users[id], keys: d.keys[id], mark: user.ListCursor{ID: id}}
	switch order {
	case user.ByUsername:
		p.mark.Key = p.keys.Username
	case user.ByEmail:
		p.mark.Key = p.keys.Email
	case user.ByLastActivity:
		p.mark.Position = p.user.LastActivityID
	case user.ByCreated:
		p.mark.Position = p.user.CreatedAt.UnixMicro()
	case user.ByID:
	}
	return p
}

func compareMarks(a, b user.ListCursor) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Position, b.Position), cmp.Compare(a.ID, b.ID))
}

// sorted returns the users in the order of query, from the start.
func (d *modelData) sorted(query user.ListQuery) []entry {
	var entries []entry
	for id := range d.users {
		if p := d.entry(query.Order, id); strings.HasPrefix(p.mark.Key, query.Prefix) && inRange(p.user, query) {
			entries = append(entries, p)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		c := compareMarks(a.mark, b.mark)
		if query.Desc {
			return -c
		}
		return c
	})
	return entries
}

// inRange reports whether a user is in the ranges of a query.
func inRange(u *user.User, query user.ListQuery) bool {
	return u.LastActivityID > query.AfterActivity && (query.BeforeActivity == 0 || u.LastActivityID < query.BeforeActivity) &&
		!u.CreatedAt.Before(query.Created.From) && (query.Created.Until.IsZero() || u.CreatedAt.Before(query.Created.Until))
}

// List implements user.Store.
func (m *Model) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	d, err := m.snapshot(ctx)
	if err != nil {
		return user.ListPage{}, err
	}
	var page user.ListPage
	last, scanned, bytes := query.After, 0, 0
	for _, p := range d.sorted(query) {
		u := p.user
		if query.After != nil {
			if c := compareMarks(p.mark, *query.After); c == 0 || c < 0 != query.Desc {
				continue
			}
		}
		keep := (query.ShowDeleted || !u.Deleted()) && (query.Match == nil || query.Match(u.Clone(), p.keys))
		full := scanned == query.MaxScanned || len(page.Users) == query.MaxUsers ||
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
		scanned++
	}
	if query.Order == user.ByLastActivity && query.Created == (user.TimeRange{}) && query.Where == nil {
		page.Head = d.end.Position
	}
	return page, nil
}

// Count implements user.Store. It is always exact.
func (m *Model) Count(ctx context.Context, query user.ListQuery) (user.Count, error) {
	query.After, query.MaxUsers, query.MaxScanned, query.MaxBytes = nil, math.MaxInt, math.MaxInt, math.MaxInt
	page, err := m.List(ctx, query)
	return user.Count{Users: int64(len(page.Users))}, err
}

// Log implements user.Store.
func (m *Model) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	d, err := m.snapshot(ctx)
	if err != nil {
		return user.LogPage{}, err
	}
	end := d.end.Position
	if query.Before > 0 {
		end = min(end, query.Before-1)
	}
	if query.Retained {
		query.After = d.first() - 1
	}
	if query.After < d.first()-1 {
		return user.LogPage{}, user.NewRowsPrunedError(d.end.Epoch, d.first(), d.end.Position)
	}
	page := user.LogPage{Reached: query.After}
	pruned := d.first() - 1
	rows := cloneRows(d.log[min(query.After, max(end, pruned))-pruned : max(end, pruned)-pruned])
	if query.Desc {
		slices.Reverse(rows)
		page.Reached = end + 1
	}
	scanned, bytes := 0, 0
	for _, row := range rows {
		if query.UserID != 0 && row.UserID != query.UserID {
			continue
		}
		if len(page.Rows) == query.MaxRows || query.MaxScanned > 0 && scanned == query.MaxScanned ||
			query.MaxBytes > 0 && bytes >= query.MaxBytes {
			return page, nil
		}
		scanned++
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

// Before implements user.Store.
func (m *Model) Before(ctx context.Context, t time.Time) (int64, error) {
	d, err := m.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	last := d.first() - 1
	for _, row := range d.log {
		if row.Time.Before(t) {
			last = row.Position
		}
	}
	return last, nil
}

// Observe implements user.Store.
func (m *Model) Observe(observer func(user.Commit)) { m.observer = observer }

// DuePurges implements user.Store.
func (m *Model) DuePurges(ctx context.Context, limit int) ([]int64, error) {
	d, err := m.snapshot(ctx)
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

// Redact implements user.Store. It ignores the limit.
func (m *Model) Redact(ctx context.Context, id int64, _ int) (more bool, err error) {
	return false, m.change(ctx, func(d *modelData) {
		for i, row := range d.log {
			if row.UserID == id {
				d.log[i].Details = user.RedactDetails(row.Details)
			}
		}
		for key, r := range d.requests {
			if r.userID == id {
				delete(d.requests, key)
			}
		}
	})
}

// ExpireRequestIDs implements user.Store.
func (m *Model) ExpireRequestIDs(ctx context.Context, limit int) (int, error) {
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

// Prune implements user.Store.
func (m *Model) Prune(ctx context.Context, age time.Duration, limit int) (pruned int, err error) {
	err = m.change(ctx, func(d *modelData) {
		until := user.Truncate(m.clock()).Add(-age)
		for pruned < min(limit, len(d.log)) && !d.log[pruned].Time.After(until) {
			pruned++
		}
		d.log = d.log[pruned:]
	})
	return pruned, err
}

// Probe implements user.Store. It writes nothing.
func (m *Model) Probe(ctx context.Context) error {
	_, err := m.snapshot(ctx)
	return err
}

// Close implements user.Store. The data remain for Reopen.
func (m *Model) Close() error {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
