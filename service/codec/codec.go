package codec

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// Sized is a message that records its wire size, after decompression.
type Sized interface {
	proto.Message

	SetWireSize(bytes int)
}

// Shared is a message that several streams send.
type Shared interface {
	proto.Message

	// Encoding returns the encoding of a codec, which encode makes if there is none. It must not be modified.
	Encoding(codec string, encode func(proto.Message) ([]byte, error)) ([]byte, error)
}

// Appender is a message that encodes itself.
type Appender interface {
	proto.Message

	// AppendProto appends the protobuf encoding to b.
	AppendProto(b []byte) []byte
}

// Codecs returns the option with the codecs for protobuf and JSON.
func (m *Messages) Codecs() connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCodec(binaryCodec{messages: m}),
		connect.WithCodec(jsonCodec{name: "json", messages: m}),
		connect.WithCodec(jsonCodec{name: "json; charset=utf-8", messages: m}),
	)
}

// binaryCodec is the protobuf codec.
type binaryCodec struct{ messages *Messages }

// Name returns the codec name of connect.
func (binaryCodec) Name() string { return "proto" }

// IsBinary returns true.
func (binaryCodec) IsBinary() bool { return true }

// Marshal returns the message in protobuf encoding.
func (c binaryCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend appends the message to dst, which connect reuses.
func (binaryCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	return AppendProto(dst, message)
}

// AppendProto appends the protobuf encoding of the message to dst.
func AppendProto(dst []byte, message any) ([]byte, error) {
	if shared, ok := message.(Shared); ok {
		data, err := shared.Encoding("proto", proto.Marshal)
		return append(dst, data...), err
	}
	if own, ok := message.(Appender); ok {
		return own.AppendProto(dst), nil
	}
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

// MarshalStable marshals deterministically.
func (binaryCodec) MarshalStable(message any) ([]byte, error) {
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Unmarshal decodes a message or the message of a reference.
func (c binaryCodec) Unmarshal(data []byte, message any) error {
	data, in := c.messages.resolve(data)
	defer in.releaseData()
	m, err := sized(message, len(data))
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return errors.New("invalid " + string(m.ProtoReflect().Descriptor().FullName()))
	}
	return nil
}

// sized sets the wire size of the message, if it is Sized.
func sized(message any, bytes int) (proto.Message, error) {
	if w, ok := message.(Sized); ok {
		w.SetWireSize(bytes)
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
