package budget

// Scope says which bound refused a reservation.
type Scope string

// The scopes.
const (
	ScopeCaller Scope = "caller"    // the share of one caller is used up
	ScopeClass  Scope = "anonymous" // that of all callers without credentials is, or the reserve for health checks
	ScopeTotal  Scope = "total"     // the budget is
	ScopeLevel  Scope = "level"     // the level admits no more of the kind
)

var scopes = [...]Scope{ScopeCaller, ScopeClass, ScopeTotal, ScopeLevel}

// Scopes returns all scopes.
func Scopes() []Scope { return scopes[:] }

// Error is the error of a refused reservation.
type Error struct {
	Scope Scope
}

// Error returns the text of the error.
func (e *Error) Error() string { return "memory budget exhausted: " + string(e.Scope) }

// Refusals are frequent while a budget is exhausted, and cost no memory.
var (
	errCaller = &Error{ScopeCaller}
	errClass  = &Error{ScopeClass}
	errTotal  = &Error{ScopeTotal}
	errLevel  = &Error{ScopeLevel}
)

// refuse counts a refusal.
func (b *Budget) refuse(err *Error) error {
	for i, scope := range scopes {
		if scope == err.Scope {
			b.refused[i].Add(1)
		}
	}
	return err
}

// Refused returns how many reservations the scope has refused.
func (b *Budget) Refused(scope Scope) int64 {
	if b == nil {
		return 0
	}
	for i, s := range scopes {
		if s == scope {
			return b.refused[i].Load()
		}
	}
	return 0
}
