package encoding

import (
	"errors"

	"github.com/yourorg/userservice/service/user"
)

// Forms of stored results before the protobuf message. They are read, and not written any more.
//
//	result         'A' outcome position first rows [user]
//	shared result  'S' outcome position first rows id version status_time
const (
	formOldResult = 'A'
	formOldShared = 'S'
)

func decodeOldResult(b []byte) (Result, error) {
	d := decoder{rest: string(b)}
	a := Result{Shared: d.form() == formOldShared}
	a.Outcome, a.Position, a.First, a.Rows = user.Outcome(d.number()), d.number(), d.number(), int(d.number())
	if a.Shared {
		a.User = &user.User{ID: d.number(), Version: d.number(), StatusTime: FromMicros(d.number())}
		return a, d.err()
	}
	if d.bad || d.rest == "" {
		return a, d.err()
	}
	a.User = &user.User{
		ID: d.number(), Status: user.Status(d.number()), StatusTime: FromMicros(d.number()), StatusPosition: d.number(),
		CreatedAt: FromMicros(d.number()), UpdatedAt: FromMicros(d.number()), Version: d.number(),
		DeletedAt: FromMicros(d.number()), PurgeAt: FromMicros(d.number()), Username: d.text(), Email: d.text(),
	}
	tags, metadata := d.text(), d.text()
	if err := d.err(); err != nil {
		return Result{}, err
	}
	var err, err2 error
	a.User.Tags, err = DecodeList([]byte(tags))
	a.User.Metadata, err2 = DecodeMap([]byte(metadata))
	return a, errors.Join(err, err2)
}
