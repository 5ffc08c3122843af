package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/codec"
)

var errTooLarge = errors.New("too large")

func tooLargeForTest(*http.Request, int64) error { return errTooLarge }

func newBody(r io.Reader, limit int64, row bool) *limitedBody {
	b := &limitedBody{
		request:    &http.Request{ContentLength: -1},
		ReadCloser: io.NopCloser(r), exchange: &Exchange{started: time.Now()},
		limit: limit, opts: &GuardOptions{TooLarge: tooLargeForTest},
	}
	if row {
		b.frames = &frames{compression: true}
	}
	return b
}

func TestSingleMessageLimit(t *testing.T) {
	for size, want := range map[int]error{0: nil, 9: nil, 10: nil, 11: errTooLarge, 5000: errTooLarge} {
		got, err := io.ReadAll(newBody(bytes.NewReader(make([]byte, size)), 10, false))
		if !errors.Is(err, want) || len(got) != min(size, 10) {
			t.Errorf("Read(%d bytes) = %d bytes, %v, want %v", size, len(got), err, want)
		}
	}
}

func TestBytesOverLimitAreNotRead(t *testing.T) {
	source := bytes.NewReader(make([]byte, 1000))
	if _, err := io.ReadAll(newBody(source, 10, false)); !errors.Is(err, errTooLarge) {
		t.Fatal(err)
	}
	if left := source.Len(); left != 1000-11 {
		t.Errorf("%d bytes left in the source, want 989", left)
	}
}

// Messages within the limit are read unchanged with all sizes of messages and reads. A message over
// the limit ends the body before its first byte.
func TestMessageSequenceLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 20
		sizes := rapid.SliceOfN(rapid.IntRange(0, limit+2), 0, 8).Draw(t, "sizes")
		var row, passes []byte
		var want error
		for i, size := range sizes {
			row = binary.BigEndian.AppendUint32(append(row, byte(i%2)), uint32(size))
			row = append(row, bytes.Repeat([]byte{byte(i)}, size)...)
			if size > limit && want == nil {
				want = errTooLarge
			}
			if want == nil {
				passes = row
			}
		}
		if cut := rapid.IntRange(0, 3).Draw(t, "cut"); want == nil && 0 < cut && cut < len(row) {
			last := len(row) - codec.PrefixBytes - sizes[len(sizes)-1]
			row = row[:len(row)-cut] // the client disconnects
			if passes, want = row, io.ErrUnexpectedEOF; len(row) < last+codec.PrefixBytes {
				passes = row[:last]
			}
		}
		source := io.Reader(bytes.NewReader(row))
		switch rapid.IntRange(0, 2).Draw(t, "source") {
		case 1:
			source = iotest.OneByteReader(source)
		case 2:
			source = iotest.DataErrReader(source)
		}
		body := newBody(source, limit, true)
		var got []byte
		var err error
		for err == nil {
			p := make([]byte, rapid.IntRange(1, 30).Draw(t, "read"))
			var n int
			n, err = body.Read(p)
			got = append(got, p[:n]...)
		}
		if want == nil {
			want = io.EOF
		}
		if !errors.Is(err, want) || !bytes.Equal(got, passes) {
			t.Fatalf("Read() = %v, %v, want %v, %v", got, err, passes, want)
		}
	})
}
