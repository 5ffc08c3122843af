package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// load is a kind of memory use that a client can cause.
type load struct {
	name string
	tls  bool
	n    int // number of calls of begin
	// begin causes the memory use once, until its connection is closed.
	begin  func(t *testing.T, x *target, i int)
	metric string
	held   int64 // minimum increase of metric
}

// onePeer returns a begin that opens a stream, with up to each streams on a connection.
func onePeer(each int, settings []http2.Setting, open func(p *rawPeer, id uint32) error) func(*testing.T, *target, int) {
	var p *rawPeer
	return func(t *testing.T, x *target, i int) {
		t.Helper()
		if i%each == 0 {
			p = x.peer(t, settings...)
			go p.end()
		}
		if err := open(p, uint32(2*(i%each)+1)); err != nil {
			t.Fatal(err)
		}
	}
}

// openLarge is open with a header block larger than a frame.
func (p *rawPeer) openLarge(id uint32, path string, more ...hpack.HeaderField) error {
	const most = 16 << 10
	block := p.block(path, more...)
	first := block[:min(most, len(block))]
	err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(first) == len(block)})
	if rest := block[len(first):]; len(rest) > 0 {
		err = errors.Join(err, p.WriteContinuation(id, true, rest))
	}
	return err
}

func marshaled(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func loads() []load {
	const idle = 500
	call := func(path string, message proto.Message, more ...hpack.HeaderField) func(p *rawPeer, id uint32) error {
		return func(p *rawPeer, id uint32) error {
			return errors.Join(p.openLarge(id, path, more...), p.WriteData(id, true, enveloped(0, marshaled(message))))
		}
	}
	closed := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}
	large := hpack.HeaderField{Name: "x-large", Value: strings.Repeat("h", 24<<10), Sensitive: true}
	return []load{
		{name: "idle HTTP/2 connections", n: idle, metric: "userd_connections", held: idle, begin: func(t *testing.T, x *target, _ int) {
			go x.peer(t).end()
		}},
		{name: "idle HTTP/2 connections over TLS", tls: true, n: idle, metric: "userd_connections", held: idle, begin: func(t *testing.T, x *target, _ int) {
			go x.peer(t).end()
		}},
		{name: "idle HTTP/2 connections with full header tables", n: idle, metric: `userd_memory_reserved_bytes{kind="connection"}`, held: idle * 20 << 10,
			begin: func(t *testing.T, x *target, _ int) {
				p := x.peer(t)
				if err := p.fillTable(); err != nil {
					t.Fatal(err)
				}
				go p.end()
			}},
		{name: "idle HTTP/1.1 connections", n: idle, metric: "userd_connections", held: idle, begin: func(t *testing.T, x *target, _ int) {
			x.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}},
		{name: "connections that have sent nothing", n: idle, metric: "userd_connections", held: idle, begin: func(t *testing.T, x *target, _ int) {
			x.connect(t)
		}},
		{name: "unfinished handshakes", tls: true, n: idle, metric: "userd_connections", held: idle, begin: func(t *testing.T, x *target, _ int) {
			if _, err := fmt.Fprint(x.connect(t), "\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03"+strings.Repeat("x", 15<<10)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "unfinished HTTP/1.1 headers", n: idle, metric: `userd_memory_reserved_bytes{kind="header"}`, held: idle * 40 << 10, begin: func(t *testing.T, x *target, _ int) {
			x.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\n"+strings.Repeat("X-A: "+strings.Repeat("v", 1000)+"\r\n", 28))
		}},
		{name: "unfinished HTTP/1.1 header lines", n: idle, metric: `userd_memory_reserved_bytes{kind="header"}`, held: idle * 40 << 10, begin: func(t *testing.T, x *target, _ int) {
			x.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "+strings.Repeat("v", 28<<10))
		}},
		{name: "unfinished HTTP/2 header blocks", n: idle, metric: `userd_memory_reserved_bytes{kind="header"}`, held: idle * 40 << 10, begin: func(t *testing.T, x *target, _ int) {
			p := x.peer(t)
			go p.end()
			block := p.block("/", large)
			if err := errors.Join(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:15<<10]}),
				p.WriteContinuation(1, false, block[15<<10:])); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "headers of streams", n: 300, metric: `userd_memory_reserved_bytes{kind="header"}`, held: 300 * 24 << 10,
			begin: onePeer(100, nil, call(healthWatchPath, &userv1.GetUserRequest{}, large))},
		{name: "idle streams", n: 1000, metric: `userd_memory_reserved_bytes{kind="request"}`, held: 1000 * 10 << 10,
			begin: onePeer(500, nil, call(userv1connect.UserServiceWatchUserStatusProcedure, &userv1.WatchUserStatusRequest{All: true}))},
		{name: "stalled streams", n: 1000, metric: `userd_memory_reserved_bytes{kind="request"}`, held: 1000 * 10 << 10,
			begin: onePeer(500, closed, call(userv1connect.UserServiceStreamUserActivitiesProcedure, &userv1.StreamUserActivitiesRequest{}))},
		{name: "bodies that no handler reads", n: 150, metric: `userd_memory_reserved_bytes{kind="body"}`, held: 150 * 40 << 10, begin: unreadBodies()},
		{name: "bodies that never end", n: 200, metric: `userd_memory_reserved_bytes{kind="body"}`, held: 200 * 200 << 10, begin: func(t *testing.T, x *target, _ int) {
			x.sendPartFrom(t, 1, 110<<10)
		}},
	}
}

// unreadBodies returns a begin that sends messages to a stream whose responses are not read. The server reads no further
// message while too many responses are outstanding.
func unreadBodies() func(*testing.T, *target, int) {
	closed := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}
	message := enveloped(0, marshaled(&userv1.UserStatusUpdate{ClientSeq: 1}))
	messages := bytes.Repeat(message, 15<<10/len(message))
	return onePeer(3, []http2.Setting{closed}, func(p *rawPeer, id uint32) error {
		err := p.open(id, userv1connect.UserServiceSyncUserStatusProcedure)
		for range 4 {
			err = errors.Join(err, p.WriteData(id, false, messages))
		}
		return err
	})
}

// Reserved memory and memory in use differ by at most a factor of two for each kind of load.
func TestReservedMemoryMatchesUse(t *testing.T) {
	t.Parallel()
	for _, l := range loads() {
		t.Run(l.name, func(t *testing.T) {
			start := newTarget
			if l.tls {
				start = newSecureTarget
			}
			x := start(t, "--memory-limit", "460MiB", "--body-timeout", "60s", "--header-timeout", "60s", "--stall-timeout", "60s",
				"--max-call-duration", "60s", "--idle-timeout", "60s")
			realBefore, reservedBefore, before := x.memoryInUse(t), x.reserved(t), x.metric(t, l.metric)
			for i := range l.n {
				l.begin(t, x, i)
			}
			await(t, l.metric, func() bool { return x.metric(t, l.metric)-before >= l.held })
			x.settle(t)
			actual, reserved := x.memoryInUse(t)-realBefore, x.reserved(t)-reservedBefore
			factor := float64(actual) / float64(reserved)
			t.Logf("%d KiB in use and %d KiB reserved each, factor %.2f", actual/int64(l.n)>>10, reserved/int64(l.n)>>10, factor)
			if factor < 0.5 || factor > 2 {
				t.Errorf("memory in use = %d bytes, reserved = %d bytes: factor %.2f, want 0.5 to 2\n%s", actual, reserved, factor,
					regexp.MustCompile(`(?m)^userd_memory.*$`).FindAll(x.ask(t, "/metrics"), -1))
			}
		})
	}
}

// memoryInUse returns the bytes of live heap objects and stacks.
func (x *target) memoryInUse(t *testing.T) int64 {
	t.Helper()
	x.ask(t, "/debug/pprof/heap?gc=1") // two collections empty a sync.Pool
	profile := x.ask(t, "/debug/pprof/heap?debug=1&gc=1")
	return number(t, profile, `# HeapAlloc = (\d+)`) + number(t, profile, `# Stack = (\d+)`)
}

func (x *target) reserved(t *testing.T) int64 {
	t.Helper()
	return sum(t, x.ask(t, "/metrics"), "userd_memory_reserved_bytes")
}

// settle waits until the reserved memory is stable.
func (x *target) settle(t *testing.T) {
	t.Helper()
	last, same := int64(-1), 0
	await(t, "stable reserved memory", func() bool {
		now := x.reserved(t)
		if same++; now != last {
			last, same = now, 0
		}
		return same == 10
	})
}
