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

// idempotentRequest is a request, or an item of one, with an optional request id.
type idempotentRequest interface {
	proto.Message
	GetRequestId() string
}

// idempotencyKey returns the idempotency key of a request, scoped to caller and procedure. It
// is nil for a request without an id. more is request data outside the message.
func idempotencyKey(ctx context.Context, procedure string, req idempotentRequest, more ...byte) (*user.IdempotencyKey, error) {
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
		ID:          strings.ToLower(id), // UUIDs are case-insensitive
		Fingerprint: sum,
	}, nil
}

// fingerprint hashes a request without its id.
func fingerprint(req idempotentRequest, more []byte) ([sha256.Size]byte, error) {
	bare := proto.Clone(req)
	m := bare.ProtoReflect()
	m.Clear(m.Descriptor().Fields().ByName("request_id"))
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encode request for its fingerprint: %w", err)
	}
	return sha256.Sum256(append(encoded, more...)), nil
}
