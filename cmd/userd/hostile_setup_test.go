package main_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// patience is how long the tests of hostile callers wait for anything.
const patience = 90 * time.Second

// target is a program under attack, with a caller who does it no harm.
type target struct {
	*process

	admin  string
	client userv1connect.UserServiceClient
	id     int64 // of a user
	// What the program has at rest.
	goroutines int
	heap       int64
}

var operatorsPattern = regexp.MustCompile(`listening for operators" address=([0-9.:]+)`)

// newTarget starts the program and lets it come to rest.
func newTarget(t *testing.T, flags ...string) *target {
	t.Helper()
	x := &target{process: program{
		dir: t.TempDir(), flags: append([]string{"--admin-listen", "127.0.0.1:0"}, flags...),
	}.start(t)}
	await(t, "the operators' port", func() bool {
		found := operatorsPattern.FindStringSubmatch(x.output.String())
		if found != nil {
			x.admin = found[1]
		}
		return found != nil
	})
	x.client = x.process.client(t, 1<<20)
	created, err := x.client.CreateUser(t.Context(), newUser("victim", 0))
	if err != nil {
		t.Fatal(err)
	}
	x.id = created.GetUser().GetUserId()
	for range 20 { // so that what is made once is there
		x.get(t)
	}
	x.goroutines, x.heap = x.goroutinesNow(t), x.heapNow(t)
	return x
}

// await asks until the answer is yes.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	end := time.Now().Add(patience)
	for !done() {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
		<-ticker.C
	}
}

func (x *target) get(t *testing.T) {
	t.Helper()
	if _, err := x.client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: x.id}); err != nil {
		t.Errorf("a well-behaved caller: %v", err)
	}
}

// ask asks the operators' port.
func (x *target) ask(t *testing.T, path string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+x.admin+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func number(t *testing.T, text []byte, pattern string) int64 {
	t.Helper()
	found := regexp.MustCompile(pattern).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no %s in %.300s", pattern, text)
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(n)
}

func (x *target) goroutinesNow(t *testing.T) int {
	t.Helper()
	return int(number(t, x.ask(t, "/debug/pprof/goroutine?debug=1"), `total (\d+)`))
}

// heapNow is what is in use once the garbage is gone.
func (x *target) heapNow(t *testing.T) int64 {
	t.Helper()
	return number(t, x.ask(t, "/debug/pprof/heap?debug=1&gc=1"), `# HeapAlloc = (\d+)`)
}

func (x *target) metric(t *testing.T, name string) int64 {
	t.Helper()
	return number(t, x.ask(t, "/metrics"), `(?m)^`+regexp.QuoteMeta(name)+` (\S+)$`)
}

// peakReset forgets the most memory that the process has held, and peak tells it.
func (x *target) peakReset(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", x.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

func (x *target) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return number(t, text, `VmHWM:\s+(\d+) kB`) << 10
}

// withstands runs the attack while a well-behaved caller goes on calling over another
// connection, none of whose calls may fail, and then waits until nothing of the attack
// is left: neither goroutines nor memory.
func (x *target) withstands(t *testing.T, attack func(t *testing.T)) {
	t.Helper()
	var stop atomic.Bool
	var calling sync.WaitGroup
	calls := 0
	calling.Go(func() {
		for !stop.Load() {
			x.get(t)
			calls++
		}
	})
	attack(t)
	stop.Store(true)
	calling.Wait()
	if calls == 0 {
		t.Error("no call got through")
	}
	x.rests(t)
}

// rests waits until the program is as it was before.
func (x *target) rests(t *testing.T) {
	t.Helper()
	var goroutines int
	var heap int64
	defer func() {
		if t.Failed() {
			t.Logf("%d goroutines, at rest %d; %d bytes in use, at rest %d\n%s",
				goroutines, x.goroutines, heap, x.heap, x.output)
		}
	}()
	const few, little = 8, 10 << 20
	await(t, "the handlers' end", func() bool {
		goroutines = x.goroutinesNow(t)
		return goroutines <= x.goroutines+few
	})
	await(t, "the memory back", func() bool {
		heap = x.heapNow(t)
		return heap <= x.heap+little
	})
}

// rawPeer speaks HTTP/2 frame by frame.
type rawPeer struct {
	*http2.Framer

	conn   net.Conn
	header bytes.Buffer
	packed *hpack.Encoder
}

// dial opens a connection and sends bytes.
func (x *target) dial(t *testing.T, begins string) net.Conn {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", x.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, begins); err != nil {
		t.Fatal(err)
	}
	return conn
}

func (x *target) peer(t *testing.T, settings ...http2.Setting) *rawPeer {
	t.Helper()
	p := &rawPeer{conn: x.dial(t, http2.ClientPreface)}
	p.Framer = http2.NewFramer(p.conn, p.conn)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.packed = hpack.NewEncoder(&p.header)
	if err := p.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return p
}

// block returns the header of a gRPC call.
func (p *rawPeer) block(path string, more ...hpack.HeaderField) []byte {
	p.header.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "x"}, {Name: ":path", Value: path},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = p.packed.WriteField(f) // into memory
	}
	return bytes.Clone(p.header.Bytes())
}

// open begins a gRPC call.
func (p *rawPeer) open(id uint32, path string, more ...hpack.HeaderField) error {
	return p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.block(path, more...), EndHeaders: true,
	})
}

// enveloped puts the prefix of a message in front, which says flags and size.
func enveloped(flags byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// farewell is why a connection ends, as the server says it.
type farewell struct {
	code http2.ErrCode
	text string
}

// end reads to the end of the connection, and returns the last GOAWAY before it.
func (p *rawPeer) end() (last *farewell) {
	for {
		frame, err := p.ReadFrame()
		if goAway, ok := frame.(*http2.GoAwayFrame); ok {
			last = &farewell{goAway.ErrCode, string(goAway.DebugData())}
		}
		if err != nil && !errors.As(err, new(http2.StreamError)) {
			return last
		}
	}
}

// awaitReset reads until the server resets the stream, and says how.
func (p *rawPeer) awaitReset(t *testing.T, id uint32) http2.ErrCode {
	t.Helper()
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.StreamID == id {
			return reset.ErrCode
		}
	}
}
