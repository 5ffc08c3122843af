package postgres

import (
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// largeUserBytes is the size above which the user of a stored result is a row of its own.
const largeUserBytes = 1 << 10

const (
	selectState         = "SELECT version, status_time, answer FROM request_users WHERE user_id = $1 AND version = $2 AND status_time = $3"
	selectEarlierStates = "SELECT version, status_time, answer FROM request_users WHERE user_id = $1 AND (version, status_time) < ($2, $3) " +
		"ORDER BY version DESC, status_time DESC LIMIT 16"
)

type requestKey struct{ id, procedure, caller string }

func keyOf(key *user.IdempotencyKey) requestKey { return requestKey{key.ID, key.Procedure, key.Caller} }

type savedRequest struct {
	fingerprint [32]byte
	userID      int64
	encoded     []byte
}

// sharedKey is the state of a user.
type sharedKey struct{ id, version, statusTime int64 }

func sharedKeyOf(u *user.User) sharedKey {
	return sharedKey{u.ID, u.Version, encoding.ToMicros(u.StatusTime)}
}

// Request implements decide.Tx.
func (t *tx) Request(key *user.IdempotencyKey) (*decide.Request, error) {
	k := keyOf(key)
	if r, known := t.requests[k]; known {
		return r, nil
	}
	ids, procedures, callers := requestArrays([]requestKey{k})
	rows, err := t.conn.Query(t.ctx, selectRequests, ids, procedures, callers)
	if err == nil {
		err = t.addRequests(rows)
	}
	if err != nil {
		return nil, t.failed(err)
	}
	r := t.requests[k]
	t.requests[k] = r // also if there is none
	return r, nil
}

// Result implements decide.Tx.
func (t *tx) Result(stored encoding.Result) (user.Result, error) {
	result := user.Result{Outcome: stored.Outcome, User: stored.User, Position: stored.Position}
	if stored.Shared {
		var err error
		if result.User, err = t.sharedUser(sharedKeyOf(stored.User)); err != nil {
			return user.Result{}, err
		}
	} else if result.User != nil {
		result.User = result.User.Clone() // repeated requests in the group must not share it
	}
	if stored.Rows == 0 {
		return result, nil
	}
	if own := stored.First - t.head.Position - 1; own >= 0 {
		result.Rows = decide.CloneRows(t.rows[own : own+int64(stored.Rows)])
		return result, nil
	}
	rows, err := t.conn.Query(t.ctx, "SELECT "+logColumns+" FROM log WHERE position >= $1 AND position < $2 ORDER BY position",
		stored.First, stored.First+int64(stored.Rows))
	if err != nil {
		return user.Result{}, t.failed(err)
	}
	err = eachRow(rows, func(row user.Activity, details []byte) (err error) {
		row.Details, err = encoding.DecodeMap(details)
		result.Rows = append(result.Rows, row)
		return err
	})
	if err != nil {
		return user.Result{}, t.failed(err)
	}
	return result, nil
}

// SaveRequest implements decide.Tx.
func (t *tx) SaveRequest(key *user.IdempotencyKey, userID int64, result encoding.Result) error {
	k := keyOf(key)
	if u := result.User; u != nil && u.Size() > largeUserBytes {
		// The state may be rolled back, and another one may get its key.
		state := sharedKeyOf(u)
		old, had := t.shared[state]
		t.undo = append(t.undo, func() {
			if t.shared[state] = old; !had {
				delete(t.shared, state)
			}
		})
		t.shared[state] = encoding.EncodeResult(encoding.Result{User: u})
		result.Shared = true
	}
	encoded := encoding.EncodeResult(result)
	own, err := encoding.DecodeResult(encoded) // the caller may modify its user
	if err != nil {
		return fmt.Errorf("stored result: %w", err)
	}
	old, oldRequest := t.saved[k], t.requests[k]
	_, had := t.saved[k]
	t.saved[k] = savedRequest{key.Fingerprint, userID, encoded}
	t.requests[k] = &decide.Request{Fingerprint: key.Fingerprint[:], Created: t.clock, Result: own}
	t.undo = append(t.undo, func() {
		t.requests[k] = oldRequest
		if t.saved[k] = old; !had {
			delete(t.saved, k)
		}
	})
	return nil
}

// sharedUser returns the user of a large stored result. A store that was moved from SQLite has differences between states.
func (t *tx) sharedUser(k sharedKey) (*user.User, error) {
	var states encoding.States
	if encoded, own := t.shared[k]; own {
		if _, err := states.Add(encoded); err != nil {
			return nil, err
		}
		return states.User()
	}
	query, more, found := selectState, true, true
	for ; more && found; query = selectEarlierStates {
		rows, err := t.conn.Query(t.ctx, query, k.id, k.version, k.statusTime)
		if err != nil {
			return nil, t.failed(err)
		}
		found = false
		var encoded []byte
		_, err = pgx.ForEachRow(rows, []any{&k.version, &k.statusTime, &encoded}, func() (err error) {
			if found = true; more {
				more, err = states.Add(encoded)
			}
			return err
		})
		if err != nil {
			return nil, t.failed(err)
		}
	}
	return states.User()
}
