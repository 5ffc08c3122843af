package service

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/user"
)

// identified is a request, or an item of one, that may carry a request id.
type identified interface {
	proto.Message
	GetRequestId() string
}

// once makes a request with an id safe to repeat, within the caller's own ids for
// the procedure; it is nil for a request without one. more is what else belongs
// to the request and stands outside of its message.
func once(ctx context.Context, procedure string, req identified, more ...byte) (*user.IdempotencyKey, error) {
	id := req.GetRequestId()
	if id == "" {
		return nil, nil
	}
	sum, err := fingerprint(req, more)
	if err != nil {
		return nil, err
	}
	return &user.IdempotencyKey{
		Caller:      auth.FromContext(ctx).Subject,
		Procedure:   procedure,
		ID:          strings.ToLower(id), // a UUID is the same in either case
		Fingerprint: sum,
	}, nil
}

// fingerprint tells requests apart by all they carry but their id.
func fingerprint(req identified, more []byte) ([sha256.Size]byte, error) {
	bare := proto.Clone(req)
	m := bare.ProtoReflect()
	m.Clear(m.Descriptor().Fields().ByName("request_id"))
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encode request for its fingerprint: %w", err)
	}
	return sha256.Sum256(append(encoded, more...)), nil
}
