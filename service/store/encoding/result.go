package encoding

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/yourorg/userservice/service/user"
)

// Result is the stored form of a user.Result. Its rows are read from the log.
type Result struct {
	Outcome  user.Outcome
	Position int64
	First    int64 // position of the first row
	Rows     int
	User     *user.User
	Shared   bool // only the key of the user is encoded; the store has the user elsewhere

	Difference *Difference // from an earlier state of the user, in place of User
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

// EncodeResult encodes a result.
func EncodeResult(a Result) []byte {
	b := append(make([]byte, 0, 192), formResult)
	b = appendNumber(b, resultOutcome, int64(a.Outcome))
	b = appendNumber(b, resultPosition, a.Position)
	b = appendNumber(b, resultFirst, a.First)
	b = appendNumber(b, resultRows, int64(a.Rows))
	u := a.User
	if a.Shared {
		b = appendNumber(b, resultShared, 1)
		u = &user.User{ID: u.ID, Version: u.Version, StatusTime: u.StatusTime}
	}
	if u != nil {
		b = appendBytes(b, resultUser, encodeUser(u))
	}
	if a.Difference != nil {
		b = appendBytes(b, resultDifference, a.Difference.encode())
	}
	return b
}

// DecodeResult decodes a result, also of the forms that earlier programs wrote.
func DecodeResult(stored []byte) (a Result, err error) {
	if len(stored) > 0 && (stored[0] == formOldResult || stored[0] == formOldShared) {
		return decodeOldResult(stored)
	}
	if len(stored) == 0 || stored[0] != formResult {
		return a, ErrEncoding
	}
	err = eachField(stored[1:], func(v protoValue) (err error) {
		switch v.field {
		case resultOutcome:
			a.Outcome = user.Outcome(v.number)
		case resultPosition:
			a.Position = v.number
		case resultFirst:
			a.First = v.number
		case resultRows:
			a.Rows = int(v.number)
		case resultUser:
			a.User, err = decodeUser(v.bytes)
		case resultShared:
			a.Shared = v.number != 0
		case resultDifference:
			a.Difference, err = decodeDifference(v.bytes)
		}
		return err
	})
	if err == nil && a.Shared && a.User == nil {
		err = ErrEncoding
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
		*f.Time(u) = FromMicros(v.number)
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
			return ErrEncoding
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
			return ErrEncoding
		}
		b = b[n:]
		if err := visit(v); err != nil {
			return err
		}
	}
	return nil
}
