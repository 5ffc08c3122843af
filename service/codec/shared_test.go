package codec

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// sharedText is a Shared message that counts its encodings.
type sharedText struct {
	*wrapperspb.StringValue

	encodings map[string][]byte
	encoded   int
}

func (s *sharedText) Encoding(codec string, encode func(proto.Message) ([]byte, error)) ([]byte, error) {
	if s.encodings[codec] == nil {
		data, err := encode(s.StringValue)
		if err != nil {
			return nil, err
		}
		s.encoded++
		s.encodings[codec] = data
	}
	return s.encodings[codec], nil
}

// Each codec encodes a shared message once, and appends a copy.
func TestSharedMessageIsEncodedOnce(t *testing.T) {
	m := &sharedText{StringValue: wrapperspb.String("ann"), encodings: make(map[string][]byte)}
	codecs := []interface {
		MarshalAppend(dst []byte, message any) ([]byte, error)
	}{binaryCodec{}, jsonCodec{name: "json"}, jsonCodec{name: "json; charset=utf-8"}}
	for range 3 {
		for _, c := range codecs {
			want, err := c.MarshalAppend([]byte("> "), m.StringValue)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.MarshalAppend([]byte("> "), m)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%#v: MarshalAppend() = %q, %v, want %q", c, got, err, want)
			}
			clear(got) // connect reuses it
		}
	}
	if m.encoded != 2 {
		t.Errorf("encoded %d times, want once for protobuf and once for JSON", m.encoded)
	}
}
