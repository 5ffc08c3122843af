package postgres

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// needs is what the changes of a group read.
type needs struct {
	ids              map[int64]struct{}
	usernames, mails map[string]struct{}
	requests         map[requestKey]struct{}
}

// needsOf returns what the changes of a group probably read.
func needsOf(parts []part) needs {
	n := needs{make(map[int64]struct{}), make(map[string]struct{}), make(map[string]struct{}), make(map[requestKey]struct{})}
	for _, p := range parts {
		for i := p.From; i < p.To; i++ {
			n.add(&p.Batch.Changes[i])
		}
	}
	return n
}

func (n *needs) add(c *user.Change) {
	var keys user.Keys
	switch op := c.Op.(type) {
	case *user.Create:
		keys = op.Keys
	case *user.Update:
		keys = op.Keys
	}
	if id := c.Op.Target(); id != 0 {
		n.ids[id] = struct{}{}
	}
	if keys.Username != "" {
		n.usernames[keys.Username] = struct{}{}
	}
	if keys.Email != "" {
		n.mails[keys.Email] = struct{}{}
	}
	if c.IdempotencyKey != nil && !c.ValidateOnly {
		n.requests[keyOf(c.IdempotencyKey)] = struct{}{}
	}
}

const selectRequests = "SELECT r.id, r.procedure, r.caller, r.fingerprint, r.created_at, r.answer FROM request_ids r " +
	"JOIN unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS k(id, procedure, caller) USING (id, procedure, caller)"

// load begins a transaction, locks the counter row and reads what the changes need, in one round trip.
func (s *Store) load(ctx context.Context, conn *pgx.Conn, at clock.Times, n needs) (*tx, error) {
	t := &tx{
		store: s, ctx: ctx, conn: conn, number: s.transactions.Add(1),
		users: make(map[int64]*state), usernames: make(map[string]int64), emails: make(map[string]int64),
		requests: make(map[requestKey]*decide.Request), before: make(map[int64]*state),
		prepared: make(map[int64][]tokens.Token), saved: make(map[requestKey]savedRequest), shared: make(map[sharedKey][]byte),
	}
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	counter := "SELECT epoch, position, time, first FROM meta FOR UPDATE"
	if s.opts.bareSequence {
		counter = "SELECT epoch, nextval('positions') - 1, time, first FROM meta"
	}
	b.Queue(counter).QueryRow(func(row pgx.Row) error {
		return t.begin(row, at)
	})
	readUsers := func(where string, arg any) {
		b.Queue(userSelect+where, arg).Query(func(rows pgx.Rows) error {
			return eachUser(rows, func(u *user.User, keys user.Keys, _ int) { t.add(u, keys) })
		})
	}
	if len(n.ids) > 0 {
		readUsers("WHERE user_id = ANY($1)", slices.Collect(maps.Keys(n.ids)))
	}
	if len(n.usernames) > 0 {
		readUsers("WHERE username_key = ANY($1)", keyArray(n.usernames))
	}
	if len(n.mails) > 0 {
		readUsers("WHERE email_key = ANY($1)", keyArray(n.mails))
	}
	if len(n.requests) > 0 {
		ids, procedures, callers := requestArrays(slices.Collect(maps.Keys(n.requests)))
		b.Queue(selectRequests, ids, procedures, callers).Query(t.addRequests)
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	t.knowAbsent(n)
	return t, nil
}

// begin sets the state of the transaction from the counter row.
func (t *tx) begin(row pgx.Row, at clock.Times) error {
	var micros int64
	if err := row.Scan(&t.head.Epoch, &t.head.Position, &micros, &t.first); err != nil {
		return err
	}
	t.head.Time = headTime(t.head.Position, micros)
	t.clock, t.due = user.Truncate(at.Best), user.Truncate(at.Earliest)
	t.now, t.next = t.clock, t.head.Position+1
	if t.now.Before(t.head.Time) {
		t.now = t.head.Time
	}
	return nil
}

// knowAbsent records that what load did not find does not exist.
func (t *tx) knowAbsent(n needs) {
	for key := range n.requests {
		if _, found := t.requests[key]; !found {
			t.requests[key] = nil
		}
	}
	for id := range n.ids {
		if t.users[id] == nil {
			t.users[id] = &state{}
		}
	}
	for key := range n.usernames {
		if _, found := t.usernames[key]; !found {
			t.usernames[key] = 0
		}
	}
	for key := range n.mails {
		if _, found := t.emails[key]; !found {
			t.emails[key] = 0
		}
	}
}

func (t *tx) addRequests(rows pgx.Rows) error {
	defer rows.Close()
	for rows.Next() {
		var id, procedure, caller, answer []byte
		var created int64
		r := &decide.Request{}
		err := rows.Scan(&id, &procedure, &caller, &r.Fingerprint, &created, &answer)
		if err == nil {
			r.Created = encoding.FromMicros(created)
			r.Result, err = encoding.DecodeResult(answer)
		}
		if err != nil {
			return err
		}
		t.requests[requestKey{string(id), string(procedure), string(caller)}] = r
	}
	return rows.Err()
}

func keyArray(keys map[string]struct{}) [][]byte {
	list := make([][]byte, 0, len(keys))
	for key := range keys {
		list = append(list, []byte(key))
	}
	return list
}

func requestArrays(keys []requestKey) (ids, procedures, callers [][]byte) {
	for _, k := range keys {
		ids, procedures, callers = append(ids, []byte(k.id)), append(procedures, []byte(k.procedure)), append(callers, []byte(k.caller))
	}
	return ids, procedures, callers
}
