package user

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Patch holds new values of writable fields.
type Patch struct {
	Values User
	Set    FieldSet // the fields to change; Values has the new values
	// Entries changes single metadata entries; a nil value removes the entry.
	Entries map[string]*string
}

// NewPatch returns a patch of the writable fields that are not empty in values.
func NewPatch(values User) Patch {
	return Patch{Values: values, Set: values.NonEmpty() & writableFields}
}

// Update changes the writable fields of a user.
type Update struct {
	ID    int64
	Patch Patch
	Etag  string // expected version; empty: any
	Keys  Keys   // normal forms of the fields in the patch
}

// NewUpdate validates and sanitizes the patch and computes the normal forms. Field paths in
// the error have the prefix "user.".
func NewUpdate(id int64, patch Patch, etag string) (*Update, error) {
	keys, violations := patch.Values.normalize(patch.Set)
	if patch.Set&statusField != 0 && !patch.Values.Status.Valid() {
		violations = append(violations, Violation{
			Field:   "status",
			Message: "must be USER_STATUS_ACTIVE, USER_STATUS_INACTIVE or USER_STATUS_SUSPENDED; a status cannot be cleared",
		})
	}
	if violations != nil {
		return nil, NewInvalidError(violations...).WithFieldPrefix("user")
	}
	return &Update{ID: id, Patch: patch, Etag: etag, Keys: keys}, nil
}

// Target returns the id of the user.
func (op *Update) Target() int64 { return op.ID }

// Decide applies the patch. It adds at most two rows, one for the status and one for all other
// fields, and one version.
func (op *Update) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	if err := requireLive(cur, op.ID); err != nil {
		return Decision{}, err
	}
	if op.Etag != "" && op.Etag != cur.Etag() {
		return Decision{}, newEtagMismatchError(cur)
	}
	next := cur.Clone()
	if err := op.Patch.apply(next); err != nil {
		return Decision{}, err
	}
	d := Decision{User: next}
	op.addUpdatedRow(&d, cur, next, stamp, by)
	if op.Patch.Set&statusField != 0 {
		setStatus(&d, cur, next, op.Patch.Values.Status, later(stamp.Clock, stamp.statusTime(cur)), stamp, by)
	}
	d.seal(stamp)
	return d, nil
}

func (op *Update) addUpdatedRow(d *Decision, cur, next *User, stamp CommitStamp, by Author) {
	changed := newDetails(by)
	empty := len(changed)
	changed.changes(cur, next, profileFields)
	if len(changed) > empty {
		d.add(stamp, op.ID, ActionUpdated, changed)
	}
}

// seal increments the version if the decision has rows.
func (d *Decision) seal(stamp CommitStamp) {
	if !d.Changed() {
		return
	}
	d.Store = true
	d.User.Version++
	d.User.UpdatedAt = stamp.LogTime
	d.User.LastActivityID = d.Rows[len(d.Rows)-1].Position
}

func (p *Patch) apply(u *User) error {
	u.set(&p.Values, p.Set&profileFields)
	for key, value := range p.Entries {
		if value == nil {
			delete(u.Metadata, key)
			continue
		}
		if u.Metadata == nil {
			u.Metadata = make(map[string]string)
		}
		u.Metadata[key] = *value
	}
	if len(u.Metadata) > MaxMetadata {
		return NewFieldErrorf("user.metadata", "must have at most %d entries after the update", MaxMetadata)
	}
	return nil
}

// MetadataPath is the prefix of a mask path of one metadata entry.
const MetadataPath = "metadata."

// CheckEntryKey validates a mask path of one metadata entry and returns the key.
func CheckEntryKey(path string) (string, *Error) {
	key := strings.TrimPrefix(path, MetadataPath)
	if n := utf8.RuneCountInString(key); n < 1 || n > MaxMetadataKey {
		return "", NewFieldErrorf("update_mask", "%q must name a metadata key of 1 to %d characters", path, MaxMetadataKey)
	}
	return key, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
