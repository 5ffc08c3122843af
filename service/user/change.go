package user

import "time"

// Author identifies the origin of a change.
type Author struct {
	Actor     string // recorded in the log; empty: unknown
	RequestID string // recorded in the log; empty: none
	// Origin is the number of the stream that made the change, 0 for none. A stream does
	// not receive its own changes.
	Origin uint64
}

// IdempotencyKey makes a change idempotent: for RequestIDLifetime a change with the same
// key and fingerprint returns the stored result of the first success.
type IdempotencyKey struct {
	Caller      string
	Procedure   string
	ID          string
	Fingerprint [32]byte // hash of the request without its id
}

// Conflict is the policy for a create whose username or e-mail address is taken.
type Conflict int

// Conflict policies.
const (
	ConflictFail   Conflict = iota // the create fails
	ConflictSkip                   // no change; the result is the existing user
	ConflictUpdate                 // the existing user is updated
)

// Change is one operation of a batch.
type Change struct {
	Op             Op
	By             Author
	IdempotencyKey *IdempotencyKey // nil: not idempotent
	// Prepare marks a step before the change with this IdempotencyKey: a stored result is
	// returned, but the result of this change is not stored.
	Prepare      bool
	OnConflict   Conflict
	ValidateOnly bool // run every check, store nothing
	// Reserve reserves memory for the result, if set: the store must call it with the size of the
	// current user before it decides the change, and of the user in a stored result before it
	// returns that. Its error, an *Error, is the result.
	Reserve func(bytes int) error
}

// ReserveResult calls Reserve for a result with the user, if there is one.
func (c *Change) ReserveResult(u *User) error {
	if c.Reserve == nil || u == nil {
		return nil
	}
	return c.Reserve(u.Size())
}

// Batch is a list of changes submitted together.
type Batch struct {
	Changes []Change
	// Atomic applies all changes or none; the first failure is returned for the batch as
	// an *ItemError. Otherwise each change succeeds or fails independently.
	Atomic bool
	// MaxUserBytes limits the total size of the users in the results, so that a batch of small
	// changes to large users does not hold them all. The users beyond it are summaries. 0: no limit.
	MaxUserBytes int
}

// Outcome classifies the result of a change.
type Outcome int

// Outcomes of a change.
const (
	OutcomeFailed    Outcome = iota // see Result.Err
	OutcomeCreated                  // a user was created
	OutcomeUpdated                  // a user was changed, deleted or undeleted, or a row was recorded
	OutcomeUnchanged                // nothing to change
	OutcomeValid                    // ValidateOnly: every check passed
)

// Result is the result of one change.
type Result struct {
	Outcome Outcome
	User    *User      // after the change; nil if it failed
	Summary bool       // User is a summary and Rows have no details, due to MaxUserBytes
	Rows    []Activity // rows added to the log
	// Position is a log position that includes the change: that of its last row, or the
	// head of the log if it has none. A repeated request returns the first one's position.
	Position int64
	Err      error // an *Error, or an unexpected failure of this change only
}

// LimitUser adds the size of the user to used, and replaces the user by a summary once that is
// more than limit. Stores call it for each result of a batch, with its MaxUserBytes.
func (r *Result) LimitUser(used *int, limit int) {
	if r.User == nil || limit == 0 {
		return
	}
	if *used += r.User.Size(); *used > limit {
		r.User, r.Rows, r.Summary = r.User.Summary(), Summaries(r.Rows), true
	}
}

// ItemError is the failure of one change of an atomic batch.
type ItemError struct {
	Index int
	Err   error
}

// Error returns the message of the underlying error.
func (e *ItemError) Error() string { return e.Err.Error() }

// Unwrap returns the underlying error.
func (e *ItemError) Unwrap() error { return e.Err }

// Op is an operation on one user.
type Op interface {
	// Target returns the id of the user, 0 for a user to be created.
	Target() int64
	// Decide computes the effect of the op on the current user, which is nil if there is
	// none and must not be modified. It is a pure function of its arguments.
	Decide(cur *User, stamp CommitStamp, by Author) (Decision, error)
}

// CommitStamp is the time and log position at which an op is decided.
type CommitStamp struct {
	// LogTime is the time of the new log rows, truncated to microseconds. It is not before
	// the time of the last row, so it can be ahead of Clock.
	LogTime time.Time
	// Clock is the best estimate of the current time. It is compared with times from
	// clients and determines purge times.
	Clock time.Time
	// Earliest is a lower bound of the current time. Irreversible decisions use it.
	Earliest     time.Time
	NextPosition int64 // of the decision's first row
}

// Decision is the effect of an op.
type Decision struct {
	// User is the user after the op; nil: the user is removed.
	User *User
	// Store reports whether the user must be written.
	Store bool
	// Rows are the log rows to append, at positions from CommitStamp.NextPosition on.
	Rows []Activity
}

// Changed reports whether the decision adds log rows.
func (d *Decision) Changed() bool { return len(d.Rows) > 0 }

func (d *Decision) add(stamp CommitStamp, id int64, action string, fields details) int64 {
	position := stamp.NextPosition + int64(len(d.Rows))
	d.Rows = append(d.Rows, Activity{
		Position: position, UserID: id, Action: action, Time: stamp.LogTime, Details: fields.truncate(),
	})
	return position
}

func requireLive(cur *User, id int64) error {
	switch {
	case cur == nil:
		return NewNotFoundError(id)
	case cur.Deleted():
		return NewDeletedError(id, cur.StatusPosition)
	}
	return nil
}
