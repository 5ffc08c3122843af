package budget

// Scope is the limit that rejected a reservation.
type Scope string

// The scopes.
const (
	ScopeCaller Scope = "caller"    // share of one caller
	ScopeClass  Scope = "anonymous" // share of all anonymous callers, or the reserve for health checks
	ScopeTotal  Scope = "total"     // whole budget
	ScopeLevel  Scope = "level"     // closed by the level
)

var scopes = [...]Scope{ScopeCaller, ScopeClass, ScopeTotal, ScopeLevel}

// Scopes returns all scopes.
func Scopes() []Scope { return scopes[:] }

// Error is the error of a rejected reservation.
type Error struct {
	Scope Scope
}

// Error returns the message.
func (e *Error) Error() string { return "memory budget exhausted: " + string(e.Scope) }

// Rejections are frequent while the budget is exhausted, so the errors are preallocated.
var (
	errCaller = &Error{ScopeCaller}
	errClass  = &Error{ScopeClass}
	errTotal  = &Error{ScopeTotal}
	errLevel  = &Error{ScopeLevel}
)

// countRejected counts a rejection.
func (b *Budget) countRejected(err *Error) error {
	for i, scope := range scopes {
		if scope == err.Scope {
			b.rejected[i].Add(1)
		}
	}
	return err
}

// Rejected returns the number of reservations that the scope rejected.
func (b *Budget) Rejected(scope Scope) int64 {
	if b == nil {
		return 0
	}
	for i, s := range scopes {
		if s == scope {
			return b.rejected[i].Load()
		}
	}
	return 0
}
