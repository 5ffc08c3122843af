package transport

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/yourorg/userservice/service/jsonpb"
)

// jsonCodec reads JSON as package jsonpb does, and writes it.
type jsonCodec struct {
	name     string
	messages *Messages
}

// Name is what the codec is asked for by.
func (c jsonCodec) Name() string { return c.name }

// IsBinary is false: JSON is text.
func (c jsonCodec) IsBinary() bool { return false }

// Marshal gives the message as JSON.
func (c jsonCodec) Marshal(message any) ([]byte, error) {
	return c.MarshalAppend(nil, message)
}

// MarshalAppend appends the message to dst, which connect reuses.
func (c jsonCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return protojson.MarshalOptions{}.MarshalAppend(dst, m)
}

// MarshalStable gives the same text for the same message.
func (c jsonCodec) MarshalStable(message any) ([]byte, error) {
	text, err := c.Marshal(message)
	if err != nil {
		return nil, err
	}
	compact := bytes.NewBuffer(make([]byte, 0, len(text)))
	if err := json.Compact(compact, text); err != nil {
		return nil, fmt.Errorf("compact JSON: %w", err)
	}
	return compact.Bytes(), nil
}

// Unmarshal reads a message, every field of which must be known.
func (c jsonCodec) Unmarshal(text []byte, message any) error {
	text, done := c.messages.resolve(text)
	defer done()
	m, err := weighed(message, len(text))
	if err != nil {
		return err
	}
	return jsonpb.Unmarshal(text, m)
}
