package transport

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// Weigher is a message that is told how many bytes it had, after decompression, when it
// was received.
type Weigher interface {
	proto.Message

	Weigh(bytes int)
}

// Codecs returns the option for messages in binary form and in JSON.
func (m *Messages) Codecs() connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCodec(binaryCodec{messages: m}),
		connect.WithCodec(jsonCodec{name: "json", messages: m}),
		connect.WithCodec(jsonCodec{name: "json; charset=utf-8", messages: m}),
	)
}

// binaryCodec reads and writes the binary form.
type binaryCodec struct{ messages *Messages }

// Name is what the codec is asked for by.
func (binaryCodec) Name() string { return "proto" }

// IsBinary is true.
func (binaryCodec) IsBinary() bool { return true }

// Marshal gives the message in binary form.
func (c binaryCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend appends the message to dst, which connect reuses.
func (binaryCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

// MarshalStable gives the same bytes for the same message.
func (binaryCodec) MarshalStable(message any) ([]byte, error) {
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Unmarshal reads a message.
func (c binaryCodec) Unmarshal(data []byte, message any) error {
	data, done := c.messages.resolve(data)
	defer done()
	m, err := weighed(message, len(data))
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return errors.New("the bytes are not a " + string(m.ProtoReflect().Descriptor().FullName()))
	}
	return nil
}

// weighed tells a message how many bytes it has.
func weighed(message any, bytes int) (proto.Message, error) {
	if w, ok := message.(Weigher); ok {
		w.Weigh(bytes)
	}
	return protoMessage(message)
}

func protoMessage(message any) (proto.Message, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a proto message", message)
	}
	return m, nil
}
