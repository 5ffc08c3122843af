package sqlite

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/yourorg/userservice/service/user"
)

// storedResult is the stored form of a user.Result. Its rows are read from the log.
type storedResult struct {
	outcome  user.Outcome
	position int64
	first    int64 // position of the first row
	rows     int
	user     *user.User
	shared   bool // only the key of the user is encoded; the user is in request_users

	difference *difference // from the user in the row before; in request_users only
}

// Field numbers of the protobuf message of a stored result. Fields can be added, and unknown fields
// are ignored, so the message can evolve. The message of a user has the numbers of user.Fields; its
// times are int64 microseconds, absent if unset.
//
//	message Result {
//	  int64 outcome = 1;
//	  int64 position = 2;
//	  int64 first = 3;
//	  int64 rows = 4;
//	  User user = 5;
//	  bool shared = 6;
//	  Difference difference = 7;
//	}
const (
	resultOutcome = iota + 1
	resultPosition
	resultFirst
	resultRows
	resultUser
	resultShared
	resultDifference
)

// Field numbers of a map entry.
const (
	entryKey = iota + 1
	entryValue
)

func encodeResult(a storedResult) []byte {
	b := append(make([]byte, 0, 192), formResult)
	b = appendNumber(b, resultOutcome, int64(a.outcome))
	b = appendNumber(b, resultPosition, a.position)
	b = appendNumber(b, resultFirst, a.first)
	b = appendNumber(b, resultRows, int64(a.rows))
	u := a.user
	if a.shared {
		b = appendNumber(b, resultShared, 1)
		u = &user.User{ID: u.ID, Version: u.Version, StatusTime: u.StatusTime}
	}
	if u != nil {
		b = appendBytes(b, resultUser, encodeUser(u))
	}
	if a.difference != nil {
		b = appendBytes(b, resultDifference, a.difference.encode())
	}
	return b
}

func decodeResult(stored []byte) (a storedResult, err error) {
	if len(stored) > 0 && (stored[0] == formOldResult || stored[0] == formOldShared) {
		return decodeOldResult(stored)
	}
	if len(stored) == 0 || stored[0] != formResult {
		return a, errEncoding
	}
	err = eachField(stored[1:], func(v protoValue) (err error) {
		switch v.field {
		case resultOutcome:
			a.outcome = user.Outcome(v.number)
		case resultPosition:
			a.position = v.number
		case resultFirst:
			a.first = v.number
		case resultRows:
			a.rows = int(v.number)
		case resultUser:
			a.user, err = decodeUser(v.bytes)
		case resultShared:
			a.shared = v.number != 0
		case resultDifference:
			a.difference, err = decodeDifference(v.bytes)
		}
		return err
	})
	if err == nil && a.shared && a.user == nil {
		err = errEncoding
	}
	return a, err
}

func encodeUser(u *user.User) []byte {
	b := make([]byte, 0, u.Size())
	for _, f := range columns {
		b = appendField(b, f, u)
	}
	return b
}

func appendField(b []byte, f *user.Field, u *user.User) []byte {
	switch {
	case f.Int != nil:
		return appendNumber(b, f.Number, *f.Int(u))
	case f.Status != nil:
		return appendNumber(b, f.Number, int64(*f.Status(u)))
	case f.Time != nil:
		if t := *f.Time(u); !t.IsZero() {
			b = appendVarint(b, f.Number, t.UnixMicro())
		}
	case f.Text != nil:
		if text := *f.Text(u); text != "" {
			b = appendBytes(b, f.Number, text)
		}
	case f.List != nil:
		for _, element := range *f.List(u) {
			b = appendBytes(b, f.Number, element)
		}
	case f.Map != nil:
		m := *f.Map(u)
		for _, key := range slices.Sorted(maps.Keys(m)) {
			b = appendBytes(b, f.Number, appendBytes(appendBytes(nil, entryKey, key), entryValue, m[key]))
		}
	}
	return b
}

// appendNumber appends a number that is not zero.
func appendNumber(b []byte, field int32, n int64) []byte {
	if n == 0 {
		return b
	}
	return appendVarint(b, field, n)
}

func appendVarint(b []byte, field int32, n int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(field), protowire.VarintType), uint64(n))
}

func appendBytes[T string | []byte](b []byte, field int32, value T) []byte {
	b = protowire.AppendTag(b, protowire.Number(field), protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(value)))
	return append(b, value...)
}

func decodeUser(b []byte) (*user.User, error) {
	u := new(user.User)
	return u, mergeUser(u, b)
}

// mergeUser sets the fields of a message in u. It appends to lists and adds to maps.
func mergeUser(u *user.User, b []byte) error {
	return eachField(b, func(v protoValue) error {
		for _, f := range columns {
			if f.Number == v.field {
				return decodeField(f, u, v)
			}
		}
		return nil
	})
}

func decodeField(f *user.Field, u *user.User, v protoValue) error {
	switch {
	case f.Int != nil:
		*f.Int(u) = v.number
	case f.Status != nil:
		*f.Status(u) = user.Status(v.number)
	case f.Time != nil:
		*f.Time(u) = fromMicros(v.number)
	case f.Text != nil:
		*f.Text(u) = string(v.bytes)
	case f.List != nil:
		*f.List(u) = append(*f.List(u), string(v.bytes))
	case f.Map != nil:
		m := f.Map(u)
		if *m == nil {
			*m = make(map[string]string)
		}
		var key, value string
		err := eachField(v.bytes, func(v protoValue) error {
			switch v.field {
			case entryKey:
				key = string(v.bytes)
			case entryValue:
				value = string(v.bytes)
			}
			return nil
		})
		(*m)[key] = value
		return err
	}
	return nil
}

// protoValue is a field of an encoded message: a varint or bytes.
type protoValue struct {
	field  int32
	number int64
	bytes  []byte
}

// eachField calls visit for the varint and bytes fields of a message. It skips other types.
func eachField(b []byte, visit func(protoValue) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errEncoding
		}
		b = b[n:]
		v := protoValue{field: int32(field)}
		switch kind {
		case protowire.VarintType:
			var number uint64
			number, n = protowire.ConsumeVarint(b)
			v.number = int64(number)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
			v.field = 0
		}
		if n < 0 {
			return errEncoding
		}
		b = b[n:]
		if err := visit(v); err != nil {
			return err
		}
	}
	return nil
}
