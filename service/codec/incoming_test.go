package codec

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"pgregory.net/rapid"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/budget"
)

var (
	errTooLarge   = errors.New("too large")
	errComplex    = errors.New("too complex")
	errOverloaded = errors.New("overloaded")
)

const testDecodedPerByte = 10

func testMessages() *Messages {
	return NewMessages(MessageOptions{
		TooLarge:   func(*http.Request, int64) error { return errTooLarge },
		TooComplex: func(int64) error { return errComplex },
		Overloaded: func(*http.Request) error { return errOverloaded },
		DecodedSize: func(_ protoreflect.MessageDescriptor, _ bool, data []byte) int64 {
			return testDecodedPerByte * int64(len(data))
		},
		MaxDecoded: 1 << 30,
	})
}

func compressed(t interface{ Fatal(args ...any) }, data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// way is an encoding of a message on the wire.
type way struct{ gzip, frames, json bool }

func (w way) kind() string {
	return map[way]string{
		{}: "application/proto", {json: true}: "application/json",
		{frames: true}: "application/grpc+proto", {frames: true, json: true}: "application/connect+json",
	}[way{frames: w.frames, json: w.json}]
}

// request returns a request with the messages.
func (w way) request(t interface{ Fatal(args ...any) }, messages ...[]byte) *http.Request {
	var body []byte
	for _, data := range messages {
		flags := byte(0)
		if w.gzip {
			data, flags = compressed(t, data), CompressedFlag
		}
		if w.frames {
			body = binary.BigEndian.AppendUint32(append(body, flags), uint32(len(data)))
		}
		body = append(body, data...)
	}
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", w.kind())
	if w.gzip {
		encoding := "Content-Encoding"
		switch {
		case w.frames && w.json:
			encoding = "Connect-Content-Encoding"
		case w.frames:
			encoding = "Grpc-Encoding"
		}
		r.Header.Set(encoding, "gzip")
	}
	return r
}

func (w way) codec(m *Messages) connect.Codec {
	if w.json {
		return jsonCodec{name: "json", messages: m}
	}
	return binaryCodec{messages: m}
}

func ways() (all []way) {
	for i := range 8 {
		all = append(all, way{gzip: i&1 > 0, frames: i&2 > 0, json: i&4 > 0})
	}
	return all
}

// receive reads and decodes the next message like connect.
func receive(in *Incoming, w way, codec connect.Codec, into proto.Message) error {
	var data []byte
	var err error
	if w.frames {
		var prefix [PrefixBytes]byte
		if _, err := io.ReadFull(in, prefix[:]); err != nil {
			return err
		}
		data = make([]byte, binary.BigEndian.Uint32(prefix[1:]))
		_, err = io.ReadFull(in, data)
	} else {
		data, err = io.ReadAll(in)
	}
	if err != nil {
		return err
	}
	return codec.Unmarshal(data, into)
}

func drawText(t *rapid.T) string {
	return rapid.StringOf(rapid.SampledFrom([]rune("ab,\"\\{[]}:\n\x00é"))).Draw(t, "text")
}

func drawUser(t *rapid.T) *userv1.User {
	u := &userv1.User{Username: drawText(t), Email: drawText(t), Status: userv1.UserStatus(rapid.IntRange(0, 3).Draw(t, "status"))}
	u.Tags = rapid.SliceOfN(rapid.Custom(drawText), 0, 70).Draw(t, "tags")
	u.Metadata = rapid.MapOfN(rapid.Custom(drawText), rapid.Custom(drawText), 0, 70).Draw(t, "metadata")
	return u
}

func drawRequest(t *rapid.T) proto.Message {
	update := func(t *rapid.T) *userv1.UpdateUserRequest {
		m := &userv1.UpdateUserRequest{UserId: rapid.Int64().Draw(t, "id"), User: drawUser(t), Etag: drawText(t)}
		if paths := rapid.SliceOfN(rapid.SampledFrom([]string{"email", "tags", "metadata.a"}), 0, 5).Draw(t, "mask"); len(paths) > 0 {
			m.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		}
		return m
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return update(t)
	case 1:
		return &userv1.UpdateUsersRequest{Requests: rapid.SliceOfN(rapid.Custom(update), 0, 4).Draw(t, "items"), Atomic: true}
	case 2:
		return &userv1.WatchUserStatusRequest{UserIds: rapid.SliceOf(rapid.Int64()).Draw(t, "ids")}
	default:
		u := drawUser(t)
		return &userv1.CreateUserRequest{Username: u.GetUsername(), Tags: u.GetTags(), Metadata: u.GetMetadata(), ValidateOnly: true}
	}
}

// Messages are received unchanged in all encodings.
func TestMessagesRoundTrip(t *testing.T) {
	t.Parallel()
	m := testMessages()
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom(ways()).Draw(t, "way")
		sent := []proto.Message{drawRequest(t)}
		if w.frames {
			sent = append(sent, drawRequest(t))
		}
		var encoded [][]byte
		for _, message := range sent {
			data, err := proto.Marshal(message)
			if w.json {
				data, err = protojson.Marshal(message)
			}
			if err != nil {
				t.Fatal(err)
			}
			encoded = append(encoded, data)
		}
		in := m.Receive(w.request(t, encoded...))
		defer in.Release()
		in.Open(nil, 1<<20)
		for _, want := range sent {
			got := want.ProtoReflect().New().Interface()
			if err := receive(in, w, w.codec(m), got); err != nil || !proto.Equal(got, want) {
				t.Fatalf("%+v: received %v, %v, want %v", w, got, err, want)
			}
		}
		if n, err := in.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("%+v: Read() after the last message = %d, %v, want EOF", w, n, err)
		}
	})
	if len(m.held) != 0 {
		t.Errorf("%d messages are kept, want none", len(m.held))
	}
}

// All input is either decoded like by the decoder alone, or an error.
func FuzzMessages(f *testing.F) {
	whole := &userv1.UpdateUserRequest{User: &userv1.User{Tags: []string{"a", ""}, Metadata: map[string]string{"a": "b"}}}
	binaryForm, err := proto.Marshal(whole)
	if err != nil {
		f.Fatal(err)
	}
	text, err := protojson.Marshal(whole)
	if err != nil {
		f.Fatal(err)
	}
	for _, data := range [][]byte{binaryForm, text, append([]byte(referenceMark), make([]byte, secretBytes+8)...), []byte(`{"user":{"tags":["`)} {
		f.Add(data)
	}
	m := testMessages()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, w := range ways() {
			want, got := &userv1.UpdateUserRequest{}, &userv1.UpdateUserRequest{}
			wantErr := proto.Unmarshal(data, want)
			if w.json {
				wantErr = protojson.Unmarshal(data, want)
			}
			in := m.Receive(w.request(t, data))
			in.Open(nil, 1<<20)
			err := receive(in, w, w.codec(m), got)
			in.Release()
			if (err == nil) != (wantErr == nil) || err == nil && !proto.Equal(got, want) {
				t.Errorf("%+v: %q became %v, %v, want %v, %v", w, data, got, err, want, wantErr)
			}
		}
	})
}

func TestMessageLimit(t *testing.T) {
	t.Parallel()
	m := testMessages()
	const limit = 1000
	for _, w := range ways() {
		for size, want := range map[int]error{0: nil, 1: nil, limit: nil, limit + 1: errTooLarge, 1 << 20: errTooLarge} {
			in := m.Receive(w.request(t, make([]byte, size)))
			in.Open(nil, limit)
			_, err := io.ReadAll(in)
			if !errors.Is(err, want) {
				t.Errorf("%+v: Read(message of %d bytes) = %v, want %v", w, size, err, want)
			}
			in.Release()
		}
	}
}

// Memory is reserved before a message is decompressed and decoded, and released after decoding or
// before the next message.
func TestMessageReservation(t *testing.T) {
	t.Parallel()
	const size = 100_000
	for _, w := range ways() {
		for limit, want := range map[int64]error{1 << 30: nil, 2 << 20: errOverloaded} {
			m, b := testMessages(), budget.New(budget.Options{Limit: limit})
			var memory budget.Reservation
			memory.Open(b, nil, budget.Known, "a")
			r := w.request(t, make([]byte, size), nil)
			if !w.frames {
				r = w.request(t, make([]byte, size))
			}
			in := m.Receive(r.WithContext(budget.NewContext(r.Context(), &memory)))
			in.Open(nil, 1<<20)
			in.Fetch()
			if !errors.Is(in.err, want) && want != nil {
				t.Errorf("%+v, limit %d: Fetch() = %v, want %v", w, limit, in.err, want)
			}
			if want != nil {
				if got := memory.Held(budget.Message); got != 0 {
					t.Errorf("%+v: %d bytes are reserved for a rejected message, want 0", w, got)
				}
				continue
			}
			if got := memory.Held(budget.Message); got != size*testDecodedPerByte {
				t.Errorf("%+v: %d bytes are reserved for the decoded message, want %d", w, got, size*testDecodedPerByte)
			}
			if got := memory.Held(budget.Decompressed); got < size || got > 3*size {
				t.Errorf("%+v: %d bytes are reserved for the message, want about %d", w, got, size)
			}
			_ = receive(in, w, w.codec(m), &userv1.User{}) // zeros are not a valid user
			if got := memory.Held(budget.Decompressed); got != 0 {
				t.Errorf("%+v: %d bytes are reserved for a message that was decoded", w, got)
			}
			in.Fetch()
			if got := memory.Held(budget.Message); w.frames && got != 0 {
				t.Errorf("%+v: %d bytes are reserved for the message before", w, got)
			}
		}
	}
}

func TestDecodedSizeLimit(t *testing.T) {
	t.Parallel()
	m := testMessages()
	m.opts.MaxDecoded = 100
	in := m.Receive(way{}.request(t, make([]byte, 11)))
	in.Open(nil, 1000)
	if _, err := io.ReadAll(in); !errors.Is(err, errComplex) {
		t.Errorf("Read() = %v, want %v", err, errComplex)
	}
}

// Decompression stops at the limit, and on input without output.
func TestDecompressionStopsEarly(t *testing.T) {
	t.Parallel()
	m := testMessages()
	member := compressed(t, nil)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"bomb":          {compressed(t, make([]byte, 8<<20)), errTooLarge.Error()},
		"empty members": {bytes.Repeat(member, 1<<20/len(member)), errNoGain.Error()},
		"not gzip":      {[]byte("this is plain text"), "gzip: invalid header"},
		"broken":        {compressed(t, []byte("abc"))[:15], "unexpected EOF"},
	} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(c.data))
		r.Header.Set("Content-Type", "application/proto")
		r.Header.Set("Content-Encoding", "gzip")
		in := m.Receive(r)
		in.Open(nil, 1<<20)
		if _, err := io.ReadAll(in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Read() = %v, want %s", name, err, c.want)
		}
	}
}

// Invalid frames are passed to connect, which returns the error.
func TestInvalidFramesPassThrough(t *testing.T) {
	t.Parallel()
	m := testMessages()
	frame := func(flags byte, size uint32, data string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{flags}, size), data...)
	}
	for name, c := range map[string]struct{ sent, want []byte }{
		"part of a prefix":            {[]byte{0, 0, 0}, []byte{0, 0, 0}},
		"part of a message":           {frame(0, 100, "abc"), frame(0, 100, "abc")},
		"compressed without encoding": {frame(1, 3, "abc"), frame(1, 3, "abc")},
		"unknown flag":                {frame(2, 3, "abc"), frame(2, 3, "abc")},
		"large frame of unknown flag": {
			frame(2, 1000, strings.Repeat("a", 1000)), frame(2, badFrameBytes, strings.Repeat("a", badFrameBytes)),
		},
	} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(c.sent))
		r.Header.Set("Content-Type", "application/grpc")
		in := m.Receive(r)
		in.Open(nil, 1<<20)
		if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: Read() = %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestUnopenedBodyPassesThrough(t *testing.T) {
	t.Parallel()
	r := way{frames: true}.request(t, []byte("abc"))
	in := testMessages().Receive(r)
	if got, err := io.ReadAll(in); err != nil || string(got) != "\x00\x00\x00\x00\x03abc" {
		t.Errorf("Read() = %q, %v", got, err)
	}
}

func BenchmarkIncoming(b *testing.B) {
	data, err := proto.Marshal(&userv1.GetUserRequest{UserId: 1 << 50})
	if err != nil {
		b.Fatal(err)
	}
	w := way{frames: true}
	m := testMessages()
	body := w.request(b, data).Body
	frame, err := io.ReadAll(body)
	if err != nil {
		b.Fatal(err)
	}
	r := w.request(b, data)
	codec := w.codec(m)
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader(frame))
		in := m.Receive(r)
		in.Open(nil, 1<<20)
		in.Fetch()
		if err := receive(in, w, codec, &userv1.GetUserRequest{}); err != nil {
			b.Fatal(err)
		}
		in.Release()
	}
}

// The query of a Connect GET reaches the codecs unchanged. A forged reference in it does not
// resolve.
func TestForgedReferenceDoesNotResolve(t *testing.T) {
	m := testMessages()
	message := []byte("the message of another request")
	r := way{}.request(t, message)
	in := m.Receive(r)
	in.Open(nil, 1<<20)
	in.Fetch()
	forged := binary.BigEndian.AppendUint64(append([]byte(referenceMark), make([]byte, secretBytes)...), in.reference)
	if got, in := m.resolve(forged); !bytes.Equal(got, forged) {
		t.Errorf("resolve(forged) = %q, want it unchanged", got)
	} else {
		in.releaseData()
	}
	reference, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := m.resolve(reference); !bytes.Equal(got, message) {
		t.Errorf("resolve(reference) = %q, want %q", got, message)
	}
}
