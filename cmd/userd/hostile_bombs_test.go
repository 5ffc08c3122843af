package main_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// bomb is a small message that would be large, or dear, once it is decoded.
type bomb struct {
	name  string
	body  []byte // compressed
	wants string // what the caller is told
	// beside is what it may take of memory beside twice the largest message: the body
	// itself, if that is no small one, and what a call takes whose message fills its buffer.
	beside int64
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

// emptyBlocks returns a gzip flow of blocks that each bring a table of codes, which is dear
// to build, and no data.
func emptyBlocks(size int) []byte {
	flow := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}
	var bits, have uint64
	put := func(value, n uint64) {
		for bits, have = bits|value<<have, have+n; have >= 8; bits, have = bits>>8, have-8 {
			flow = append(flow, byte(bits))
		}
	}
	for len(flow) < size {
		put(0b100, 3) // not the last block, its codes are dynamic (RFC 1951, section 3.2.7)
		put(0, 5)     // 257 codes of literals
		put(0, 5)     // one of distances
		put(14, 4)    // 18 lengths of code lengths
		for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1} {
			put(map[int]uint64{18: 1, 1: 1}[symbol], 3) // 18 has code 1, 1 has code 0
		}
		put(0b1, 1)
		put(138-11, 7) // 138 lengths of zero
		put(0b1, 1)
		put(118-11, 7) // and 118 more
		put(0b0, 1)    // the end of a block has one bit
		put(0b0, 1)    // and so has the one distance
		put(0b0, 1)    // the block ends
	}
	return flow
}

func elementBombs(t *testing.T) map[string]bomb {
	t.Helper()
	const empty = 2_000_000
	wants := "message too complex"
	return map[string]bomb{
		"application/json":           {body: compressed(t, []byte(`{"requests":[{}`+strings.Repeat(",{}", empty/2)+`]}`)), wants: wants, beside: messageLimit / 4},
		"application/proto":          {body: compressed(t, bytes.Repeat([]byte{0x0a, 0x00}, empty)), wants: wants, beside: messageLimit / 4},
		"application/grpc":           {body: compressed(t, bytes.Repeat([]byte{0x0a, 0x00}, empty)), wants: wants, beside: messageLimit / 4},
		"application/grpc-web+proto": {body: compressed(t, bytes.Repeat([]byte{0x0a, 0x00}, empty)), wants: wants, beside: messageLimit / 4},
	}
}

// Elements that take two bytes each are not decoded by the million: they are counted
// before.
func TestBombsOfElements(t *testing.T) {
	t.Parallel()
	bombs := elementBombs(t)
	for _, way := range compressedWays() {
		b, ok := bombs[way.kind]
		if !ok || strings.Contains(way.name, "stream") {
			continue // an item of a stream has no such list
		}
		if way.path = userv1connect.UserServiceCreateUsersProcedure; way.name == "REST" {
			way.path = "/api/v1/users:batchCreate"
		}
		t.Run(way.name, func(t *testing.T) { throwAll(t, way, b) })
	}
}

// What is larger compressed than inflated is not inflated to its end.
func TestBombsOfWork(t *testing.T) {
	t.Parallel()
	member := compressed(t, nil)
	for _, b := range []bomb{
		{name: "empty blocks", body: emptyBlocks(messageLimit - 1024)},
		{name: "empty members", body: bytes.Repeat(member, (messageLimit-1024)/len(member))},
		{name: "empty blocks behind data", body: append(compressed(t, make([]byte, 1<<18)), emptyBlocks(messageLimit-1<<18)...)},
	} {
		for _, way := range compressedWays() {
			if b.wants = "gzip: the message is larger compressed than it is"; way.name == "REST" {
				b.wants = "body: is not what its Content-Encoding says"
			}
			b.beside = messageLimit
			t.Run(b.name+", "+way.name, func(t *testing.T) { throwAll(t, way, b) })
		}
	}
}

// throwAll throws bombs at a program, and looks at its memory and its processor time.
func throwAll(t *testing.T, way way, b bomb) {
	t.Helper()
	const bombs = 10
	x := newTarget(t)
	client := web(way.http2)
	defer client.CloseIdleConnections()
	throw := func() {
		body := b.body
		if way.prefix {
			body = enveloped(1, body)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.url()+way.path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", way.kind)
		request.Header.Set(way.encoding, "gzip")
		if got := said(t.Context(), t, client, request); !strings.Contains(got, b.wants) {
			t.Errorf("got %.300q", got)
		}
	}
	x.peakReset(t)
	before := residentBytes(t, x.process)
	throw()
	grown := x.peak(t) - before
	if grown > 2*messageLimit+b.beside {
		t.Errorf("the memory grew by %d bytes", grown)
	}
	// The least of some rounds: what else the machine does is no cost of a bomb.
	each := time.Duration(math.MaxInt64)
	for range 3 {
		began := processorTime(t, x.process)
		for range bombs {
			throw()
		}
		each = min(each, (processorTime(t, x.process)-began)/bombs)
	}
	t.Logf("%v of processor time and %d KiB of memory for %d bytes", each, grown>>10, len(b.body))
	if each > 80*time.Millisecond {
		t.Errorf("a bomb takes %v of processor time", each)
	}
	client.CloseIdleConnections()
	x.rests(t)
}

// The flow is one that a decoder takes to its end.
func TestEmptyBlocksAreOfTheFormat(t *testing.T) {
	t.Parallel()
	r, err := gzip.NewReader(bytes.NewReader(emptyBlocks(1000)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.Read(make([]byte, 1))
	if n != 0 || fmt.Sprint(err) != "unexpected EOF" { // and not that it is corrupt
		t.Errorf("got %d, %v", n, err)
	}
}
