package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/user"
)

// listQueries continue at a cursor in an index. The second of each order is descending.
var listQueries = map[user.Order][2]string{
	user.ByID: {
		"WHERE user_id > $1 ORDER BY user_id LIMIT $2",
		"WHERE user_id < $1 ORDER BY user_id DESC LIMIT $2",
	},
	user.ByUsername: {
		"WHERE username_key >= $1 AND username_key < $2 ORDER BY username_key LIMIT $3",
		"WHERE username_key >= $1 AND username_key < $2 ORDER BY username_key DESC LIMIT $3",
	},
	user.ByEmail: {
		"WHERE email_key >= $1 AND email_key < $2 ORDER BY email_key LIMIT $3",
		"WHERE email_key >= $1 AND email_key < $2 ORDER BY email_key DESC LIMIT $3",
	},
	user.ByLastActivity: {
		"WHERE last_activity_id > $1 AND last_activity_id < $2 ORDER BY last_activity_id LIMIT $3",
		"WHERE last_activity_id > $1 AND last_activity_id < $2 ORDER BY last_activity_id DESC LIMIT $3",
	},
	user.ByCreated: {
		"WHERE (created_at, user_id) > ($1, $2) AND created_at < $3 ORDER BY created_at, user_id LIMIT $4",
		"WHERE (created_at, user_id) < ($1, $2) AND created_at >= $3 ORDER BY created_at DESC, user_id DESC LIMIT $4",
	},
}

// List implements user.Store. A page is read in chunks: a user whose sort key changes
// between two chunks may be returned twice or not at all, as between two pages.
func (s *Store) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	l := &lister{List: page.NewList(query), store: s}
	if err := l.readAll(ctx); err != nil {
		return user.ListPage{}, err
	}
	return l.Page, nil
}

// lister reads a page in chunks.
type lister struct {
	page.List

	store  *Store
	source source
	match  match // of the index

	ids     []int64            // candidates not read yet
	cursors []*user.ListCursor // of the matching candidates not returned yet
}

// listed is a user as it was read.
type listed struct {
	user *user.User
	keys user.Keys
}

// readAll reads until the page is done. Users are compared with the filter after the slot of a scan was released.
func (l *lister) readAll(ctx context.Context) error {
	if err := l.store.scan(ctx, func() error { return l.plan(ctx) }); err != nil {
		return err
	}
	for !l.Done {
		var use func()
		err := l.store.scan(ctx, func() (err error) {
			use, err = l.chunk(ctx)
			return err
		})
		if err != nil {
			return err
		}
		use()
	}
	return nil
}

// chunk reads users after the cursor. use adds them to the page.
func (l *lister) chunk(ctx context.Context) (use func(), err error) {
	switch l.source {
	case fromSorted:
		return l.sortedChunk(ctx)
	case fromTerms:
		return l.termChunk(ctx)
	case fromOrder:
	}
	users, last, head, err := l.orderChunk(ctx, min(l.Query.MaxScanned-l.Scanned+1, chunkRows))
	return func() {
		for _, u := range users {
			if l.Done {
				return
			}
			l.Add(u.user, u.keys) // the database returns them in order
		}
		if last && !l.Done {
			l.End()
			l.Page.Head = head
		}
	}, err
}

// orderChunk reads users in the index of the order, and the head of the log at the same instant. Of the users it reads one
// more than it may scan, to detect the end.
func (l *lister) orderChunk(ctx context.Context, want int) (users []listed, last bool, head int64, err error) {
	direction := 0
	if l.Query.Desc {
		direction = 1
	}
	statement := userSelect + listQueries[l.Query.Order][direction]
	cut := false
	collect := func(rows pgx.Rows) error {
		bytes := 0
		users, cut = nil, false
		return eachUser(rows, func(u *user.User, keys user.Keys, size int) {
			if cut = cut || bytes >= chunkBytes; !cut {
				bytes += size
				users = append(users, listed{u, keys})
			}
		})
	}
	if !l.HasHead() {
		err = l.store.query(ctx, collect, statement, append(l.bounds(), want)...)
		return users, !cut && len(users) < want, 0, err
	}
	err = l.store.read(ctx, true, func(b *pgx.Batch) {
		b.Queue(selectPosition).QueryRow(func(row pgx.Row) error { return row.Scan(&head) })
		b.Queue(statement, append(l.bounds(), want)...).Query(collect)
	})
	return users, !cut && len(users) < want, head, err
}

// bounds returns the arguments of the query of the order, without the limit.
func (l *lister) bounds() []any {
	switch l.Query.Order {
	case user.ByUsername, user.ByEmail:
		lower, upper := l.Keys()
		return []any{[]byte(lower), []byte(upper)}
	case user.ByLastActivity:
		after, before := l.Positions()
		return []any{after, before}
	case user.ByCreated:
		at, id, end := l.Created()
		return []any{at, id, end}
	default:
		return []any{l.ID()}
	}
}

// usersByID returns the users that exist, by id.
func (l *lister) usersByID(ctx context.Context, ids []int64) (users map[int64]listed, err error) {
	users = make(map[int64]listed, len(ids))
	err = l.store.query(ctx, func(rows pgx.Rows) error {
		return eachUser(rows, func(u *user.User, keys user.Keys, _ int) { users[u.ID] = listed{u, keys} })
	}, userSelect+"WHERE user_id = ANY($1)", ids)
	return users, err
}

// sortedRows is the number of users that are read at a time for a list that is sorted in memory. They may be large.
const sortedRows = 64

// sortedChunk reads candidates. When all were read it sorts the cursors of those that match, and reads users in this
// order.
func (l *lister) sortedChunk(ctx context.Context) (use func(), err error) {
	if len(l.ids) > 0 {
		ids := l.ids[:min(len(l.ids), sortedRows)]
		users, err := l.usersByID(ctx, ids)
		return func() {
			for _, u := range users {
				if cursor := l.Rest(u.user, u.keys); cursor != nil {
					l.cursors = append(l.cursors, cursor)
				}
			}
			if l.ids = l.ids[len(ids):]; len(l.ids) == 0 {
				slices.SortFunc(l.cursors, l.Compare)
			}
		}, err
	}
	cursors := l.cursors[:min(len(l.cursors), sortedRows)]
	ids := make([]int64, len(cursors))
	for i, cursor := range cursors {
		ids[i] = cursor.ID
	}
	users, err := l.usersByID(ctx, ids)
	return func() {
		for _, cursor := range cursors {
			u, exists := users[cursor.ID]
			if l.Done || !exists || l.Compare(l.CursorOf(u.user, u.keys), cursor) != 0 {
				continue // the user has moved in the order
			}
			l.Add(u.user, u.keys)
		}
		if l.cursors = l.cursors[len(cursors):]; len(l.cursors) == 0 {
			l.End()
		}
	}, err
}
