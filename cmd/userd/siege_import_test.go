package main_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// importAttacks are ordinary use: one caller runs more imports at a time than its memory is sufficient for.
func importAttacks() []attack {
	return []attack{{name: "40 imports of large users", permissions: []string{"users.write"}, run: func(a *attacker) error {
		return a.repeat(40, func(i int) error {
			body := &importBody{a: a, name: fmt.Sprintf("imp%dx%d", i, time.Now().UnixNano()), items: 50}
			err := a.request(a.client(false), request{
				method: "POST", path: userv1connect.UserServiceBatchCreateUsersProcedure, body: func() io.Reader { return body },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
			switch {
			case a.ctx.Err() != nil:
			case body.sent == body.items:
				a.count("completed", 1)
			case body.sent > lateItems:
				a.count("aborted", 1)
			}
			return err
		})
	}, check: func(t *testing.T, s *siege) {
		if s.counts["completed"] == 0 || s.counts["aborted"] > 0 {
			t.Errorf("%d imports completed, %d were aborted after %d items, want some and 0", s.counts["completed"], s.counts["aborted"], lateItems)
		}
	}}}
}

// lateItems is the number of items that an import sends before it can know that it is refused: those in the windows and buffers.
const lateItems = 10

// importBody is the body of an import of large users.
type importBody struct {
	a           *attacker
	name        string
	items, sent int
	rest        []byte
}

func (b *importBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		if b.sent == b.items {
			return 0, io.EOF
		}
		b.sent++
		u := newUser(b.name, b.sent)
		u.Metadata = make(map[string]string)
		for i := range 60 {
			u.Metadata[fmt.Sprint("key", i)] = strings.Repeat("v", 1000)
		}
		b.rest = enveloped(0, b.a.marshal(&userv1.BatchCreateUsersRequest{User: u}))
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
