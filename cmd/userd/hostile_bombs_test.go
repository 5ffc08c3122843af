package main_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// bomb is a compressed message that is large or expensive to decode.
type bomb struct {
	name  string
	body  []byte // compressed
	wants string // expected error text
	// extra is the memory it may use in addition to twice the message limit.
	extra int64
}

func compressed(t *testing.T, body []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// emptyBlocks returns a gzip stream of blocks without data, each with a Huffman table that is
// expensive to build.
func emptyBlocks(size int) []byte {
	stream := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}
	var bits, have uint64
	put := func(value, n uint64) {
		for bits, have = bits|value<<have, have+n; have >= 8; bits, have = bits>>8, have-8 {
			stream = append(stream, byte(bits))
		}
	}
	for len(stream) < size {
		put(0b100, 3) // not final, dynamic Huffman codes (RFC 1951, section 3.2.7)
		put(0, 5)     // 257 literal codes
		put(0, 5)     // one distance code
		put(14, 4)    // 18 code length codes
		for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1} {
			put(map[int]uint64{18: 1, 1: 1}[symbol], 3) // 18 has code 1, 1 has code 0
		}
		put(0b1, 1)
		put(138-11, 7) // 138 zero lengths
		put(0b1, 1)
		put(118-11, 7) // 118 more
		put(0b0, 1)    // end-of-block: code length 1
		put(0b0, 1)    // distance: code length 1
		put(0b0, 1)    // end of block
	}
	return stream
}

func elementBombs(t *testing.T) map[string]bomb {
	t.Helper()
	const empty = 2_000_000
	wants := "message too complex"
	return map[string]bomb{
		"application/json":           {body: compressed(t, []byte(`{"requests":[{}`+strings.Repeat(",{}", empty/2)+`]}`)), wants: wants, extra: messageLimit / 4},
		"application/proto":          {body: compressed(t, bytes.Repeat([]byte{0x0a, 0x00}, empty)), wants: wants, extra: messageLimit / 4},
		"application/grpc":           {body: compressed(t, bytes.Repeat([]byte{0x0a, 0x00}, empty)), wants: wants, extra: messageLimit / 4},
		"application/grpc-web+proto": {body: compressed(t, bytes.Repeat([]byte{0x0a, 0x00}, empty)), wants: wants, extra: messageLimit / 4},
	}
}

// A message with millions of two-byte elements is rejected before it is decoded.
func TestBombsOfElements(t *testing.T) {
	t.Parallel()
	bombs := elementBombs(t)
	for _, variant := range compressedWays() {
		b, ok := bombs[variant.kind]
		if !ok || strings.Contains(variant.name, "stream") {
			continue // stream items have no list
		}
		if variant.path = userv1connect.UserServiceCreateUsersProcedure; variant.name == "REST" {
			variant.path = "/api/v1/users:batchCreate"
		}
		t.Run(variant.name, func(t *testing.T) { sendBombs(t, variant, b) })
	}
}

// Decompression stops when the compressed data is larger than the output.
func TestBombsOfDecompression(t *testing.T) {
	t.Parallel()
	member := compressed(t, nil)
	for _, b := range []bomb{
		{name: "empty blocks", body: emptyBlocks(messageLimit - 1024)},
		{name: "empty members", body: bytes.Repeat(member, (messageLimit-1024)/len(member))},
		{name: "empty blocks after data", body: append(compressed(t, make([]byte, 1<<18)), emptyBlocks(messageLimit-1<<18)...)},
	} {
		for i, variant := range compressedWays() {
			if b.name != "empty blocks" && i > 2 && variant.name != "REST" {
				continue // all have the same decompressor
			}
			if b.wants = "gzip: compressed data without output"; variant.name == "REST" {
				b.wants = "body: does not match its Content-Encoding"
			}
			b.extra = messageLimit
			t.Run(b.name+", "+variant.name, func(t *testing.T) { sendBombs(t, variant, b) })
		}
	}
}

// sendBombs sends bombs and checks the memory and CPU time of the server.
func sendBombs(t *testing.T, variant variant, b bomb) {
	t.Helper()
	const bombs = 2
	x := newTarget(t)
	client := web(variant.http2)
	defer client.CloseIdleConnections()
	throw := func() {
		body := b.body
		if variant.prefix {
			body = enveloped(1, body)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.url()+variant.path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", variant.kind)
		request.Header.Set(variant.encoding, "gzip")
		if got := fetch(t.Context(), t, client, request); !strings.Contains(got, b.wants) {
			t.Errorf("response = %.300q, want %q", got, b.wants)
		}
	}
	x.peakReset(t)
	before := residentBytes(t, x.process)
	throw()
	grown := x.peak(t) - before
	if grown > 2*messageLimit+b.extra {
		t.Errorf("peak memory grew by %d bytes", grown)
	}
	const most = 80 * time.Millisecond
	each := most + 1
	for round := 0; round < 3 && each > most; round++ { // other load of the machine can slow a round
		start := processorTime(t, x.process)
		for range bombs {
			throw()
		}
		each = (processorTime(t, x.process) - start) / bombs
	}
	t.Logf("%v of CPU time and %d KiB of memory for %d bytes", each, grown>>10, len(b.body))
	if each > most {
		t.Errorf("CPU time for a bomb = %v, want at most %v", each, most)
	}
	client.CloseIdleConnections()
	x.awaitIdle(t)
}

// emptyBlocks must be valid gzip.
func TestEmptyBlocksAreValid(t *testing.T) {
	t.Parallel()
	r, err := gzip.NewReader(bytes.NewReader(emptyBlocks(1000)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.Read(make([]byte, 1))
	if n != 0 || fmt.Sprint(err) != "unexpected EOF" { // not corrupt
		t.Errorf("Read = %d, %v, want unexpected EOF", n, err)
	}
}
