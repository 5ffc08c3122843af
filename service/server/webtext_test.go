package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

const textType = "application/grpc-web-text"

// postText makes a grpc-web-text call.
func postText(t *testing.T, s *servertest.Server, method, kind string, body io.Reader) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/user.v1.UserService/"+method, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", kind)
	request.Header.Set("X-Grpc-Web", "1")
	response, err := s.HTTP(false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// webText converts gRPC-Web calls to its text form.
type webText struct{ http.RoundTripper }

// RoundTrip encodes the body and decodes that of the response.
func (w webText) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Content-Type", textType+"+proto")
	text := base64.StdEncoding.EncodeToString(body)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	response, err := w.RoundTripper.RoundTrip(r)
	if err == nil && strings.HasPrefix(response.Header.Get("Content-Type"), textType) {
		response.Header.Set("Content-Type", "application/grpc-web+proto")
		response.Body = &textBody{ReadCloser: response.Body}
	}
	return response, err
}

// textBody decodes groups of four characters, each of which may have padding.
type textBody struct {
	io.ReadCloser

	decoded []byte
}

// Read reads one group or its rest.
func (b *textBody) Read(p []byte) (int, error) {
	if len(b.decoded) == 0 {
		var group [4]byte
		if _, err := io.ReadFull(b.ReadCloser, group[:]); err != nil {
			return 0, err
		}
		var err error
		if b.decoded, err = base64.StdEncoding.DecodeString(string(group[:])); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.decoded)
	b.decoded = b.decoded[n:]
	return n, nil
}

// textFrame reads one frame in groups of four characters, each of which may have padding.
func textFrame(t *testing.T, body io.Reader) (flags byte, payload []byte) {
	t.Helper()
	var frame []byte
	for len(frame) < 5 || len(frame) < 5+int(binary.BigEndian.Uint32(frame[1:])) {
		var group [4]byte
		if _, err := io.ReadFull(body, group[:]); err != nil {
			t.Fatalf("after %d bytes of a frame: %v", len(frame), err)
		}
		decoded, err := base64.StdEncoding.DecodeString(string(group[:]))
		if err != nil {
			t.Fatalf("group %q: %v", group, err)
		}
		frame = append(frame, decoded...)
	}
	if size := int(binary.BigEndian.Uint32(frame[1:])); len(frame) != 5+size {
		t.Fatalf("a frame of %d bytes is followed by others in one group", size)
	}
	return frame[0], frame[5:]
}

func encodeText(t *testing.T, message proto.Message) string {
	t.Helper()
	body, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(envelope(body))
}

// grpc-web-text calls: each message can be decoded when it arrives, and the trailers are a base64 frame.
func TestWebText(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for i, kind := range []string{textType, textType + "+proto"} {
		create := &userv1.CreateUserRequest{Username: fmt.Sprintf("ann %d", i), Email: fmt.Sprintf("ann%d@example.org", i)}
		text := encodeText(t, create)
		response := postText(t, s, "CreateUser", kind, iotest.OneByteReader(strings.NewReader(text))) //nolint:bodyclose // postText closes it
		if got := response.Header.Get("Content-Type"); got != kind {
			t.Errorf("Content-Type = %q, want %q", got, kind)
		}
		raw, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		frames := decodeAll(t, raw)
		if len(frames) != 2 || frames[0].flags != 0 || frames[1].flags != 0x80 || !strings.Contains(string(frames[1].payload), "grpc-status: 0") {
			t.Fatalf("CreateUser as %s = %+v, want a message and trailers with status 0", kind, frames)
		}
		var created userv1.CreateUserResponse
		if err := proto.Unmarshal(frames[0].payload, &created); err != nil || created.GetUser().GetUsername() != create.GetUsername() {
			t.Errorf("CreateUser = %v, %v, want %q", &created, err, create.GetUsername())
		}

		id := created.GetUser().GetUserId()
		stream := postText(t, s, "StreamUserActivities", kind, strings.NewReader(encodeText(t, &userv1.StreamUserActivitiesRequest{UserId: id}))) //nolint:bodyclose // postText closes it
		for _, want := range []string{"user.created", "app.seen", "app.gone"} {
			flags, payload := textFrame(t, stream.Body)
			var row userv1.UserActivity
			if err := proto.Unmarshal(payload, &row); err != nil || flags != 0 || row.GetAction() != want {
				t.Errorf("row = %v with flags %d, %v, want %s", &row, flags, err, want)
			}
			next := map[string]string{"user.created": "app.seen", "app.seen": "app.gone"}[want]
			if next == "" {
				break
			}
			record := &userv1.RecordUserActivityRequest{UserId: id, Action: next}
			postText(t, s, "RecordUserActivity", kind, strings.NewReader(encodeText(t, record))) //nolint:bodyclose // postText closes it
		}
	}
}

type webFrame struct {
	flags   byte
	payload []byte
}

func decodeAll(t *testing.T, text []byte) (frames []webFrame) {
	t.Helper()
	var decoded []byte
	for len(text) >= 4 {
		part, err := base64.StdEncoding.DecodeString(string(text[:4]))
		if err != nil {
			t.Fatalf("group %q: %v", text[:4], err)
		}
		decoded, text = append(decoded, part...), text[4:]
	}
	if len(text) > 0 {
		t.Fatalf("%d characters are left", len(text))
	}
	for len(decoded) >= 5 {
		size := int(binary.BigEndian.Uint32(decoded[1:]))
		frames = append(frames, webFrame{decoded[0], decoded[5 : 5+size]})
		decoded = decoded[5+size:]
	}
	return frames
}

// A request can consist of several padded parts. Invalid base64 and too large messages are rejected.
func TestWebTextRequests(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Config(func(c *server.Config) { c.MaxMessageBytes = 64 << 10 }))
	message, err := proto.Marshal(&userv1.GetUserRequest{UserId: 7})
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	framed := envelope(message)
	large := envelope(bytes.Repeat([]byte{0x12, 1, 'x'}, 30<<10))
	for name, c := range map[string]struct{ body, status string }{
		"one part":                {encode(framed), "5"},
		"prefix and message":      {encode(framed[:5]) + encode(framed[5:]), "5"},
		"a part for each byte":    {encode(framed[:1]) + encode(framed[1:2]) + encode(framed[2:3]) + encode(framed[3:]), "5"},
		"not base64":              {"****", "3"},
		"binary":                  {string(framed) + "x", "3"},
		"padding alone":           {"====", "3"},
		"without padding":         {strings.TrimRight(encode(framed), "="), "3"},
		"in the middle of groups": {encode(framed) + "A", "3"},
		"too large":               {encode(large), "8"},
	} {
		t.Run(name, func(t *testing.T) {
			response := postText(t, s, "GetUser", textType, strings.NewReader(c.body)) //nolint:bodyclose // postText closes it
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			got := response.Header.Get("Grpc-Status")
			if frames := decodeAll(t, body); len(frames) > 0 {
				_, after, _ := strings.Cut(string(frames[len(frames)-1].payload), "grpc-status: ")
				got, _, _ = strings.Cut(after, "\r\n")
			}
			if got != c.status || response.Header.Get("Content-Type") != textType {
				t.Errorf("grpc-status = %q in %q, want %q in %s", got, response.Header.Get("Content-Type"), c.status, textType)
			}
		})
	}
}

// A grpc-web-text stream flushes each message.
func TestWebTextStreamIsFlushed(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	stream := postText(t, s, "WatchUserStatus", textType, strings.NewReader(encodeText(t, &userv1.WatchUserStatusRequest{All: true, Progress: true}))) //nolint:bodyclose // postText closes it
	read := make(chan byte, 1)
	go func() {
		var group [4]byte
		_, _ = io.ReadFull(stream.Body, group[:])
		read <- group[0]
	}()
	select {
	case <-read:
	case <-time.After(10 * time.Second):
		t.Fatal("the first message of an idle stream did not arrive")
	}
}
