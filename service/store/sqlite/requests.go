package sqlite

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// requestColumns are the columns of request_ids except seq.
const requestColumns = "id, procedure, caller, fingerprint, created_at, user_id, answer"

// minLoad is the number of changes with request ids above which load reads the stored requests of all.
const minLoad = 4

// requestWriter reads and writes stored requests. It reads those of the changes of a part together, and writes the new ones
// together, which takes half of the time.
type requestWriter struct {
	rows      rowWriter
	one, many *stmt
	loaded    map[requestKey]storedRequest // stored requests of the part
	isLoaded  bool                         // requests that are not in loaded are not stored
}

type requestKey struct{ id, procedure, caller string }

type storedRequest struct {
	fingerprint []byte
	created     int64 // microseconds
	result      []byte
}

func newRequestWriter(err *error, c *conn) requestWriter {
	const get = "SELECT id, procedure, caller, fingerprint, created_at, answer FROM request_ids WHERE id "
	return requestWriter{
		rows:   newRowWriter(err, c, "INSERT OR REPLACE INTO", "request_ids", requestColumns),
		one:    c.prepare(err, get+"= ? AND procedure = ? AND caller = ?"),
		many:   c.prepare(err, get+"IN (?"+strings.Repeat(", ?", insertRows-1)+")"),
		loaded: make(map[requestKey]storedRequest),
	}
}

// load reads the stored requests of changes, until flush.
func (r *requestWriter) load(changes []user.Change) error {
	ids := make([]driver.Value, 0, insertRows)
	if len(changes) < minLoad {
		return nil
	}
	for i := range changes {
		if key := changes[i].IdempotencyKey; key != nil {
			ids = append(ids, key.ID)
		}
		if len(ids) == insertRows || i == len(changes)-1 && len(ids) > 0 {
			for len(ids) < insertRows {
				ids = append(ids, nil)
			}
			if err := r.read(r.many, ids...); err != nil {
				return err
			}
			ids = ids[:0]
		}
	}
	r.isLoaded = true
	return nil
}

// read adds the rows of a query to loaded.
func (r *requestWriter) read(query *stmt, args ...driver.Value) error {
	err := query.each(func(row []driver.Value) (bool, error) {
		key := requestKey{asText(row[0]), asText(row[1]), asText(row[2])}
		r.loaded[key] = storedRequest{bytes.Clone(asBlob(row[3])), asNumber(row[4]), bytes.Clone(asBlob(row[5]))}
		return true, nil
	}, args...)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}

// get returns the stored request with a key, or nil.
func (r *requestWriter) get(key *user.IdempotencyKey) (*storedRequest, error) {
	k := requestKey{key.ID, key.Procedure, key.Caller}
	stored, ok := r.loaded[k]
	if !ok && !r.isLoaded {
		if err := r.read(r.one, k.id, k.procedure, k.caller); err != nil {
			return nil, err
		}
		stored, ok = r.loaded[k]
	}
	if !ok {
		return nil, nil
	}
	return &stored, nil
}

// put stores the result of a request about a user.
func (r *requestWriter) put(key *user.IdempotencyKey, created, userID int64, result []byte) error {
	fingerprint := key.Fingerprint[:]
	r.loaded[requestKey{key.ID, key.Procedure, key.Caller}] = storedRequest{fingerprint, created, result}
	return r.rows.add(key.ID, key.Procedure, key.Caller, fingerprint, created, userID, result)
}

// flush writes the new requests, and ends the effect of load.
func (r *requestWriter) flush() error {
	if err := r.rows.flush(); err != nil {
		return fmt.Errorf("store requests: %w", err)
	}
	r.drop()
	return nil
}

// drop drops the requests that are not written yet, and ends the effect of load.
func (r *requestWriter) drop() {
	r.rows.drop()
	clear(r.loaded)
	r.isLoaded = false
}
