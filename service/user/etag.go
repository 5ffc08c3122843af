package user

import (
	"slices"
	"strconv"
	"strings"
)

// newEtagMismatchError returns the error for a change that expected another version. Package
// service adds the metadata changed_fields.
func newEtagMismatchError(cur *User) *Error {
	e := &Error{
		Code: Aborted, Reason: EtagMismatch,
		Message:  "user was modified concurrently, read it again and retry",
		Metadata: userMetadata(cur.ID),
	}
	e.Metadata["etag"] = cur.Etag()
	return e
}

// EtagVersion parses the version from an etag of a user.
func EtagVersion(etag string) (version int64, ok bool) {
	number, _, found := strings.Cut(etag, "-")
	version, err := strconv.ParseInt(number, 36, 64)
	return version, found && err == nil && version > 0
}

// ChangedSince returns the sorted names of the fields changed by the last steps of the
// user's version, from its latest rows. If two rows may belong to one step they count as
// one, so the result may name too many fields, but never too few.
func ChangedSince(newestFirst []Activity, steps int64) []string {
	var fields []string
	for i := range newestFirst {
		row := &newestFirst[i]
		if !strings.HasPrefix(row.Action, ReservedAction) {
			continue
		}
		if steps <= 0 {
			break
		}
		for key := range row.Details {
			name, isOld := strings.CutPrefix(key, "old.")
			name, isNew := strings.CutPrefix(name, "new.")
			if !isOld && !isNew {
				continue
			}
			name, _, _ = strings.Cut(name, ".")
			fields = append(fields, name)
		}
		if !sameStep(newestFirst, i) {
			steps--
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// sameStep reports whether row i and the next older row may belong to one change: an update
// of the status and other fields writes two rows.
func sameStep(newestFirst []Activity, i int) bool {
	if i+1 >= len(newestFirst) {
		return false
	}
	row, older := &newestFirst[i], &newestFirst[i+1]
	return row.Action == ActionStatusChanged && older.Action == ActionUpdated &&
		older.Position == row.Position-1 && older.Time.Equal(row.Time)
}
