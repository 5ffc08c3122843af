package encoding

import (
	"bytes"
	"maps"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// Difference is what changes one user into another. set and removed are messages of a user.
type Difference struct {
	cleared []int64 // numbers of the changed fields other than maps, cleared first
	removed []byte  // entries of maps to be removed, without values
	set     []byte  // new values, of maps the new entries
}

// Field numbers of the protobuf message of a Difference.
//
//	message Difference {
//	  repeated int64 cleared = 1;
//	  User removed = 2;
//	  User set = 3;
//	}
const (
	differenceCleared = iota + 1
	differenceRemoved
	differenceSet
)

// NewDifference returns the difference between two states of a user.
func NewDifference(from, to *user.User) *Difference {
	d := new(Difference)
	for _, f := range columns {
		switch {
		case from.Equal(to, user.FieldSet(0).With(f)):
		case f.Map != nil:
			removed, set := new(user.User), new(user.User)
			*f.Map(removed), *f.Map(set) = changedEntries(*f.Map(from), *f.Map(to))
			d.removed = appendField(d.removed, f, removed)
			d.set = appendField(d.set, f, set)
		default:
			d.cleared = append(d.cleared, int64(f.Number))
			d.set = appendField(d.set, f, to)
		}
	}
	return d
}

// changedEntries returns the keys of the entries that only from has, and the entries that only to has.
func changedEntries(from, to map[string]string) (removed, set map[string]string) {
	removed, set = make(map[string]string), maps.Clone(to)
	for key, value := range from {
		after, kept := to[key]
		switch {
		case !kept:
			removed[key] = ""
		case after == value:
			delete(set, key)
		}
	}
	return removed, set
}

func (d *Difference) encode() (b []byte) {
	for _, field := range d.cleared {
		b = appendNumber(b, differenceCleared, field)
	}
	b = appendBytes(b, differenceRemoved, d.removed)
	return appendBytes(b, differenceSet, d.set)
}

func decodeDifference(b []byte) (*Difference, error) {
	d := new(Difference)
	return d, eachField(b, func(v protoValue) error {
		switch v.field {
		case differenceCleared:
			d.cleared = append(d.cleared, v.number)
		case differenceRemoved:
			d.removed = bytes.Clone(v.bytes)
		case differenceSet:
			d.set = bytes.Clone(v.bytes)
		}
		return nil
	})
}

// Apply changes a user.
func (d *Difference) Apply(u *user.User) error {
	removed, err := decodeUser(d.removed)
	if err != nil {
		return err
	}
	for _, f := range columns {
		if slices.Contains(d.cleared, int64(f.Number)) {
			f.Copy(u, new(user.User))
		}
		if f.Map != nil {
			for key := range *f.Map(removed) {
				delete(*f.Map(u), key)
			}
		}
	}
	return mergeUser(u, d.set)
}

// States restores a state of a user from the stored states of it, which are added from that state to earlier ones: differences,
// each from the state before, and a whole user.
type States struct {
	differences []*Difference
	whole       *user.User
}

// Add adds an encoded state. It reports whether an earlier one is needed.
func (s *States) Add(encoded []byte) (more bool, err error) {
	stored, err := DecodeResult(encoded)
	if err != nil {
		return false, err
	}
	if stored.Difference != nil {
		s.differences = append(s.differences, stored.Difference)
		return true, nil
	}
	s.whole = stored.User
	return false, nil
}

// User returns the state that was added first.
func (s *States) User() (*user.User, error) {
	if s.whole == nil {
		return nil, ErrEncoding
	}
	for _, d := range slices.Backward(s.differences) {
		if err := d.Apply(s.whole); err != nil {
			return nil, err
		}
	}
	return s.whole, nil
}
