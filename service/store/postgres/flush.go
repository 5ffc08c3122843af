package postgres

import (
	"cmp"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

var (
	insertUsers = "INSERT INTO users (" + columnNames + ", username_key, email_key) SELECT * FROM unnest(" + arrays(1) + ")"
	updateUsers = "UPDATE users SET " + assignments() + ", username_key = n.username_key, email_key = n.email_key " +
		"FROM unnest(" + arrays(1) + ") AS n(" + columnNames + ", username_key, email_key) WHERE users.user_id = n.user_id"
)

const (
	deleteUsers = "DELETE FROM users WHERE user_id = ANY($1)"
	// deleteResults and deleteShared delete the results that were stored since the last Redact.
	deleteResults = "DELETE FROM request_ids WHERE user_id = ANY($1)"
	deleteShared  = "DELETE FROM request_users WHERE user_id = ANY($1)"
	// releaseNames gives users names that no user has, so that the order in which names are exchanged has no effect.
	releaseNames = "UPDATE users SET username_key = '\\x00' || int8send(user_id), email_key = '\\x00' || int8send(user_id) WHERE user_id = ANY($1)"
	insertTerms  = "INSERT INTO terms (token, user_id) SELECT * FROM unnest($1::bigint[], $2::bigint[])"
	deleteTerms  = "DELETE FROM terms USING unnest($1::bigint[], $2::bigint[]) AS n(token, user_id) " +
		"WHERE terms.token = n.token AND terms.user_id = n.user_id"
	// appendRows takes the positions and appends the rows in one statement.
	appendRows = "WITH counter AS (UPDATE meta SET position = $1, time = $2) " +
		"INSERT INTO log (position, user_id, time, action, details) " +
		"SELECT n.position, n.user_id, $2, n.action, n.details " +
		"FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::bytea[]) AS n(position, user_id, action, details)"
	saveShared = "INSERT INTO request_users (user_id, version, status_time, kept_until, answer) " +
		"SELECT n.user_id, n.version, n.status_time, $1, n.answer " +
		"FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[]) AS n(user_id, version, status_time, answer) " +
		"ON CONFLICT (user_id, version, status_time) DO UPDATE SET kept_until = excluded.kept_until, answer = excluded.answer WHERE request_users.kept_until < $6"
	saveWriter = "INSERT INTO writers VALUES ($1, $2, $3) " +
		"ON CONFLICT (process) DO UPDATE SET number = excluded.number, time = excluded.time"
	saveRequests = "INSERT INTO request_ids (id, procedure, caller, fingerprint, created_at, user_id, answer) " +
		"SELECT n.id, n.procedure, n.caller, n.fingerprint, $1, n.user_id, n.answer " +
		"FROM unnest($2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bytea[]) " +
		"AS n(id, procedure, caller, fingerprint, user_id, answer) " +
		"ON CONFLICT (id, procedure, caller) DO UPDATE SET fingerprint = excluded.fingerprint, created_at = excluded.created_at, " +
		"user_id = excluded.user_id, answer = excluded.answer"
)

// assignments returns the SET clause of updateUsers.
func assignments() (set string) {
	for i, f := range columns {
		if i > 0 {
			set += ", "
		}
		set += f.Name + " = n." + f.Name
	}
	return set
}

// flush writes the changes and commits, in one round trip.
func (t *tx) flush() error {
	b := &pgx.Batch{}
	t.queue(b)
	if len(t.rows) > 0 && !t.store.opts.NoListen {
		b.Queue("NOTIFY " + channel)
	}
	b.Queue(saveWriter, t.store.process, t.number, t.clock.UnixMicro())
	b.Queue("COMMIT")
	return t.conn.SendBatch(t.ctx, b).Close()
}

// queue queues the statements that write the changes since the last call.
func (t *tx) queue(b *pgx.Batch) {
	t.queueUsers(b)
	t.queueRequests(b)
	t.queueRows(b)
	clear(t.before)
	clear(t.saved)
	clear(t.shared)
	t.undo, t.written = nil, len(t.rows)
}

// termChanges are the changes of the index.
type termChanges struct{ addTokens, addUsers, removeTokens, removeUsers []int64 }

// update replaces tokens of a user.
func (c *termChanges) update(id int64, remove, add []tokens.Token) {
	for _, token := range remove {
		c.removeTokens, c.removeUsers = append(c.removeTokens, int64(token)), append(c.removeUsers, id)
	}
	for _, token := range add {
		c.addTokens, c.addUsers = append(c.addTokens, int64(token)), append(c.addUsers, id)
	}
}

// change records the change of a user.
func (c *termChanges) change(was, is state) {
	removed, added := tokens.OfChange(was.user, was.keys, is.user, is.keys)
	c.update(is.user.ID, removed, added)
}

// queueUsers queues the statements that write users and the index.
func (t *tx) queueUsers(b *pgx.Batch) {
	var inserted, updated []*state
	var deleted, renamed []int64
	var index termChanges
	for _, id := range slices.Sorted(maps.Keys(t.before)) {
		was, is := t.before[id], t.users[id]
		if was == nil {
			was = &state{}
		}
		switch {
		case was.user == nil && is.user == nil: // created and purged in this transaction
		case is.user == nil:
			deleted = append(deleted, id)
			index.update(id, tokens.OfUser(was.user, was.keys), nil)
		case was.user == nil:
			inserted = append(inserted, is)
			index.update(id, nil, t.tokensOf(is))
		default:
			updated = append(updated, is)
			if was.keys != is.keys {
				renamed = append(renamed, id)
			}
			index.change(*was, *is)
		}
	}
	if len(deleted) > 0 {
		b.Queue(deleteUsers, deleted)
		b.Queue(deleteResults, deleted)
		b.Queue(deleteShared, deleted)
	}
	if len(renamed) > 1 {
		b.Queue(releaseNames, renamed)
	}
	if len(updated) > 0 {
		b.Queue(updateUsers, arrayValues(updated)...)
	}
	if len(inserted) > 0 {
		b.Queue(insertUsers, arrayValues(inserted)...)
	}
	if len(index.removeTokens) > 0 {
		b.Queue(deleteTerms, index.removeTokens, index.removeUsers)
	}
	if len(index.addTokens) > 0 {
		b.Queue(insertTerms, index.addTokens, index.addUsers)
	}
}

// tokensOf returns the tokens of a user that was inserted.
func (t *tx) tokensOf(s *state) []tokens.Token {
	if prepared, ok := t.prepared[s.user.ID]; ok {
		return prepared
	}
	return tokens.OfUser(s.user, s.keys)
}

// queueRequests queues the statement that stores the results of requests.
func (t *tx) queueRequests(b *pgx.Batch) {
	if len(t.saved) == 0 {
		return
	}
	keys := slices.Collect(maps.Keys(t.saved))
	slices.SortFunc(keys, func(a, b requestKey) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.procedure, b.procedure), cmp.Compare(a.caller, b.caller))
	})
	ids, procedures, callers := requestArrays(keys)
	var fingerprints, answers [][]byte
	var users []int64
	for _, k := range keys {
		r := t.saved[k]
		fingerprints, users, answers = append(fingerprints, r.fingerprint[:]), append(users, r.userID), append(answers, r.encoded)
	}
	if len(t.shared) > 0 {
		t.queueShared(b)
	}
	b.Queue(saveRequests, t.clock.UnixMicro(), ids, procedures, callers, fingerprints, users, answers)
}

// queueShared queues the statement that stores the users of large results, for twice the lifetime of request ids, so that
// the row of a state that is stored again within the first half need not be written.
func (t *tx) queueShared(b *pgx.Batch) {
	var ids, versions, statusTimes []int64
	var answers [][]byte
	for k, encoded := range t.shared {
		ids, versions, statusTimes = append(ids, k.id), append(versions, k.version), append(statusTimes, k.statusTime)
		answers = append(answers, encoded)
	}
	b.Queue(saveShared, t.clock.Add(2*user.RequestIDLifetime).UnixMicro(), ids, versions, statusTimes, answers,
		t.clock.Add(user.RequestIDLifetime).UnixMicro())
}

// queueRows queues the statement that appends to the log.
func (t *tx) queueRows(b *pgx.Batch) {
	rows := t.rows[t.written:]
	if len(rows) == 0 {
		return
	}
	positions, users := make([]int64, len(rows)), make([]int64, len(rows))
	actions := make([]string, len(rows))
	for i := range rows {
		row := &rows[i]
		positions[i], users[i], actions[i] = row.Position, row.UserID, row.Action
	}
	b.Queue(appendRows, t.next-1, t.now.UnixMicro(), positions, users, actions, t.details[t.written:])
}
