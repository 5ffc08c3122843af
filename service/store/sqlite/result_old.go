package sqlite

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

func decodeOldResult(b []byte) (storedResult, error) {
	d := decoder{rest: string(b)}
	a := storedResult{shared: d.form() == formOldShared}
	a.outcome, a.position, a.first, a.rows = user.Outcome(d.number()), d.number(), d.number(), int(d.number())
	if a.shared {
		a.user = &user.User{ID: d.number(), Version: d.number(), StatusTime: fromMicros(d.number())}
		return a, d.err()
	}
	if d.bad || d.rest == "" {
		return a, d.err()
	}
	a.user = &user.User{
		ID: d.number(), Status: user.Status(d.number()), StatusTime: fromMicros(d.number()), StatusPosition: d.number(),
		CreatedAt: fromMicros(d.number()), UpdatedAt: fromMicros(d.number()), Version: d.number(),
		DeletedAt: fromMicros(d.number()), PurgeAt: fromMicros(d.number()), Username: d.text(), Email: d.text(),
	}
	tags, metadata := d.text(), d.text()
	if err := d.err(); err != nil {
		return storedResult{}, err
	}
	var err, err2 error
	a.user.Tags, err = decodeList([]byte(tags))
	a.user.Metadata, err2 = decodeMap([]byte(metadata))
	return a, errors.Join(err, err2)
}
