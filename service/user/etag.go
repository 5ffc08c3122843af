package user

import (
	"slices"
	"strconv"
	"strings"
)

// newEtagMismatchError is the error for a change that expected another version. The
// service adds changed_fields, see ChangedSince.
func newEtagMismatchError(cur *User) *Error {
	e := &Error{
		Code: Aborted, Reason: EtagMismatch,
		Message:  "the user has been changed in between; read it again and decide anew",
		Metadata: userMetadata(cur.ID),
	}
	e.Metadata["etag"] = cur.Etag()
	return e
}

// EtagVersion returns the version that an etag stands for; ok is false for a text
// that is no etag of a user.
func EtagVersion(etag string) (version int64, ok bool) {
	number, _, found := strings.Cut(etag, "-")
	version, err := strconv.ParseInt(number, 36, 64)
	return version, found && err == nil && version > 0
}

// ChangedSince names the fields that the last steps of a user's version changed,
// sorted. newestFirst are the user's latest rows. Where it cannot be told whether
// two rows were one step or two, they count as one, so that rather too many fields
// are named than too few.
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

// sameStep reports whether the next older row may belong to the same change as
// row i: an update of the status together with other fields is two rows.
func sameStep(newestFirst []Activity, i int) bool {
	if i+1 >= len(newestFirst) {
		return false
	}
	row, older := &newestFirst[i], &newestFirst[i+1]
	return row.Action == ActionStatusChanged && older.Action == ActionUpdated &&
		older.Position == row.Position-1 && older.Time.Equal(row.Time)
}
