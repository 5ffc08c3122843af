package user

import "time"

// Author says on whose behalf a change is made.
type Author struct {
	Actor     string // goes into the log; empty: nobody is known
	RequestID string // goes into the log; empty: there was none
	// Origin tells changes of one stream from those of others, so that a stream
	// is not sent its own; 0: no stream.
	Origin uint64
}

// IdempotencyKey makes a change safe to repeat: for RequestIDLifetime the first success is
// given again to whoever brings the same caller, procedure, id and fingerprint.
type IdempotencyKey struct {
	Caller      string
	Procedure   string
	ID          string
	Fingerprint [32]byte // of the request without its id
}

// Conflict says what becomes of a create whose username or e-mail address is taken.
type Conflict int

// The policies for a taken username or e-mail address.
const (
	ConflictFail   Conflict = iota // the create fails
	ConflictSkip                   // nothing happens; the result is the holder
	ConflictUpdate                 // the holder is updated instead
)

// Change is one step of a batch.
type Change struct {
	Op             Op
	By             Author
	IdempotencyKey *IdempotencyKey // nil: the change may be repeated
	OnConflict     Conflict
	ValidateOnly   bool // run every check, store nothing
}

// Batch is what a caller submits at once.
type Batch struct {
	Changes []Change
	// Atomic: all changes or none; the first that fails gives the batch's error
	// as an *ItemError. Otherwise each change stands by itself.
	Atomic bool
}

// Outcome says what became of a change.
type Outcome int

// The outcomes.
const (
	OutcomeFailed    Outcome = iota // see Result.Err
	OutcomeCreated                  // a user was created
	OutcomeUpdated                  // a user was changed, deleted, undeleted; a row was recorded
	OutcomeUnchanged                // there was nothing to do
	OutcomeValid                    // every check passed; nothing was stored, as asked
)

// Result is what became of one change.
type Result struct {
	Outcome Outcome
	User    *User      // after the change; nil where it failed
	Rows    []Activity // what the change added to the log
	// Position is one that reflects the change: of its last row, or of the log's
	// head where there is none. A repeated request gets the first one's.
	Position int64
	Err      error // an *Error, or an unexpected failure of this change alone
}

// ItemError is the failure of one change of an atomic batch.
type ItemError struct {
	Index int
	Err   error
}

// Error gives the text of the failure.
func (e *ItemError) Error() string { return e.Err.Error() }

// Unwrap gives the failure.
func (e *ItemError) Unwrap() error { return e.Err }

// Op is something that can be done to one user.
type Op interface {
	// Target is the id of the user, 0 for a user yet to be created.
	Target() int64
	// Decide says what the op makes of the present user, cur, which is nil if
	// there is none, and must not be changed. It depends on its arguments alone.
	Decide(cur *User, stamp CommitStamp, by Author) (Decision, error)
}

// CommitStamp is where and when a decision takes place.
type CommitStamp struct {
	// LogTime is the time of the log's rows, truncated to microseconds. It is never before
	// that of the row in front, and so ahead of Clock after a clock was.
	LogTime time.Time
	// Clock is the best known time. Times that are compared with those of callers or
	// that something is due at are made of it.
	Clock time.Time
	// Earliest is a time that has certainly come: what cannot be undone is decided by it.
	Earliest     time.Time
	NextPosition int64 // position that the decision's first row will get
}

// Decision is what an op makes of a user.
type Decision struct {
	// User after the op; nil: the user is removed.
	User *User
	// Store reports whether the user is to be written. Without it and without
	// rows nothing has changed.
	Store bool
	// Rows to append, in order, with positions from CommitStamp.NextPosition on.
	Rows []Activity
}

// Changed reports whether the decision steps the user's version or adds a row.
func (d *Decision) Changed() bool { return len(d.Rows) > 0 }

func (d *Decision) add(stamp CommitStamp, id int64, action string, what details) int64 {
	position := stamp.NextPosition + int64(len(d.Rows))
	d.Rows = append(d.Rows, Activity{
		Position: position, UserID: id, Action: action, Time: stamp.LogTime, Details: what.bounded(),
	})
	return position
}

// live gives the user if it can be changed.
func live(cur *User, id int64) error {
	switch {
	case cur == nil:
		return NewNotFoundError(id)
	case cur.Deleted():
		return NewDeletedError(id, cur.StatusPosition)
	}
	return nil
}
