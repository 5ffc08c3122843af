package codec

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/jsonpb"
)

// jsonCodec is the JSON codec. Decoding is in package jsonpb.
type jsonCodec struct {
	name     string
	messages *Messages
}

// Name returns the codec name of connect.
func (c jsonCodec) Name() string { return c.name }

// IsBinary returns false.
func (c jsonCodec) IsBinary() bool { return false }

// Marshal returns the message as JSON.
func (c jsonCodec) Marshal(message any) ([]byte, error) {
	return c.MarshalAppend(nil, message)
}

// MarshalAppend appends the message to dst, which connect reuses.
func (c jsonCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	if shared, ok := message.(Shared); ok {
		data, err := shared.Encoding("json", protojson.Marshal)
		return append(dst, data...), err
	}
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return protojson.MarshalOptions{}.MarshalAppend(dst, m)
}

// MarshalJSON returns the message as JSON, like the codec.
func MarshalJSON(message proto.Message) ([]byte, error) { return protojson.Marshal(message) }

// MarshalStable marshals without random white space.
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

// Unmarshal decodes a message. Unknown fields are errors.
func (c jsonCodec) Unmarshal(text []byte, message any) error {
	text, in := c.messages.resolve(text)
	defer in.releaseData()
	m, err := sized(message, len(text))
	if err != nil {
		return err
	}
	return jsonpb.Unmarshal(text, m)
}
