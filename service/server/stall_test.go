package server_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// startStalling starts a server with a log of about a megabyte, small socket buffers and a short stall
// timeout.
func startStalling(t *testing.T, log io.Writer, options ...servertest.Option) *servertest.Server {
	t.Helper()
	s := startNarrow(t, log, options...)
	fillLog(t, s)
	return s
}

// startNarrow starts a server with small socket buffers and a short stall timeout.
func startNarrow(t *testing.T, log io.Writer, options ...servertest.Option) *servertest.Server {
	t.Helper()
	return servertest.Start(t, append([]servertest.Option{
		servertest.Parallel(),
		servertest.Log(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		servertest.Config(func(c *server.Config) { c.StallTimeout = 300 * time.Millisecond }),
		servertest.Listen(func() (net.Listener, error) {
			var config net.ListenConfig
			inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
			return narrowListener{inner}, err
		}),
	}, options...)...)
}

// fillLog stores a user with about a megabyte of rows.
func fillLog(t *testing.T, s *servertest.Server) {
	t.Helper()
	create, err := user.NewCreate(user.User{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	created, err := user.ApplyOne(t.Context(), s.Store(), user.Change{Op: create})
	if err != nil {
		t.Fatal(err)
	}
	var batch user.Batch
	for range 400 {
		var text strings.Builder // incompressible
		for text.Len() < 3000 {
			text.WriteString(rand.Text())
		}
		op, err := user.NewRecord(created.User.ID, "app.noise", map[string]string{"text": text.String()[:3000]})
		if err != nil {
			t.Fatal(err)
		}
		batch.Changes = append(batch.Changes, user.Change{Op: op})
	}
	if _, err := user.Apply(t.Context(), s.Store(), batch); err != nil {
		t.Fatal(err)
	}
}

// narrowListener accepts connections with a small write buffer.
type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(8 << 10)
	}
	return conn, err
}

const replayed = "/user.v1.UserService/StreamUserActivities"

// A stream whose window stays closed is reset; its connection continues.
func TestStalledWindowIsReset(t *testing.T) { synctest.Test(t, stalledWindowIsReset) }

func stalledWindowIsReset(t *testing.T) {
	var log lockedBuffer
	s := startStalling(t, &log, servertest.Memory())
	peer := dialHTTP2(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	peer.call(t, 1, replayed, &userv1.StreamUserActivitiesRequest{})
	reset, ok := peer.await(t, func(f http2.Frame) bool { _, ok := f.(*http2.RSTStreamFrame); return ok }).(*http2.RSTStreamFrame)
	if !ok || reset.StreamID != 1 || reset.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("got %v, want a reset that clients retry", reset)
	}
	log.await(t, "response write stalled, stream ended")
	log.await(t, "procedure="+replayed) // the handler has returned

	peer.call(t, 3, "/user.v1.UserService/ListUsers", &userv1.ListUsersRequest{})
	peer.await(t, func(f http2.Frame) bool {
		headers, ok := f.(*http2.MetaHeadersFrame)
		return ok && headers.StreamID == 3
	})
}

// A slow client is not stalled.
func TestSlowReaderIsNotReset(t *testing.T) { synctest.Test(t, slowReaderIsNotReset) }

func slowReaderIsNotReset(t *testing.T) {
	var log lockedBuffer
	s := startStalling(t, &log, servertest.Memory())
	peer := dialHTTP2(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 16 << 10})
	peer.call(t, 1, replayed, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
	end := time.Now().Add(1500 * time.Millisecond) // five times the stall timeout
	got := 0
	for time.Now().Before(end) {
		frame, err := peer.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v\n%s", got, err, log.String())
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			t.Fatalf("reset after %d bytes, want none", got)
		case *http2.DataFrame:
			n := len(frame.Data())
			got += n
			time.Sleep(100 * time.Millisecond) // slow reads
			if err := errors.Join(peer.WriteWindowUpdate(0, uint32(n)), peer.WriteWindowUpdate(1, uint32(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got == 0 {
		t.Error("received nothing")
	}
}

// A client that opens its window in small steps is not stalled, even if they are smaller than a message.
// Another stream of the connection that opens none is reset, as is the first once it stops.
func TestTricklingReaderIsNotReset(t *testing.T) { synctest.Test(t, tricklingReaderIsNotReset) }

func tricklingReaderIsNotReset(t *testing.T) {
	var log lockedBuffer
	s := startStalling(t, &log, servertest.Memory())
	peer := dialHTTP2(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	const trickling, still = 1, 3
	peer.call(t, trickling, replayed, &userv1.StreamUserActivitiesRequest{})
	peer.call(t, still, replayed, &userv1.StreamUserActivitiesRequest{})
	frames := make(chan http2.FrameHeader)
	go func() {
		defer close(frames)
		for {
			frame, err := peer.ReadFrame()
			if err != nil {
				return
			}
			select {
			case frames <- frame.Header():
			case <-t.Context().Done():
				return
			}
		}
	}()
	now := time.NewTicker(100 * time.Millisecond)
	defer now.Stop()
	got, cut := 0, make(map[uint32]int) // bytes of the trickling stream before each reset
	for cut[trickling] == 0 {
		select {
		case <-now.C:
			if got < 2000 { // two seconds, longer than the stall timeout
				if err := peer.WriteWindowUpdate(trickling, 100); err != nil {
					t.Fatal(err)
				}
			}
		case frame, ok := <-frames:
			if !ok {
				t.Fatalf("connection ended after %d bytes", got)
			}
			switch frame.Type {
			case http2.FrameData:
				got += int(frame.Length)
			case http2.FrameRSTStream:
				cut[frame.StreamID] = got
			default:
			}
		}
	}
	if cut[trickling] < 2000 {
		t.Errorf("trickling stream reset after %d bytes, want at least 2000", cut[trickling])
	}
	if after, ok := cut[still]; !ok || after >= 2000 {
		t.Errorf("stalled stream reset after %d bytes of the other, %v, want fewer than 2000", after, ok)
	}
}

// A client that stops reading its TCP connection is disconnected.
func TestStalledConnectionIsClosed(t *testing.T) {
	t.Parallel()
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		var log lockedBuffer
		s := startStalling(t, &log)
		peer := dialHTTP2(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
		if err := peer.WriteWindowUpdate(0, 1<<30); err != nil {
			t.Fatal(err)
		}
		peer.call(t, 1, replayed, &userv1.StreamUserActivitiesRequest{})
		log.await(t, "procedure="+replayed) // the handler has returned
	})
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		var log lockedBuffer
		s := startStalling(t, &log)
		conn := dialNarrow(t, s)
		body := envelope([]byte(`{}`))
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n%s",
			replayed, len(body), body); err != nil {
			t.Fatal(err)
		}
		log.await(t, "response write stalled, stream ended")
		log.await(t, "procedure="+replayed)
	})
}

func dialNarrow(t *testing.T, s *servertest.Server) net.Conn {
	t.Helper()
	conn, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetReadBuffer(8 << 10); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// http2Peer is an HTTP/2 client with control of single frames.
type http2Peer struct {
	*http2.Framer

	conn        net.Conn
	token       string // sent with each call; empty: none
	host        string // default: localhost
	contentType string // default: application/grpc
}

func dialHTTP2(t *testing.T, s *servertest.Server, settings ...http2.Setting) *http2Peer {
	t.Helper()
	conn := dialNarrow(t, s)
	peer := &http2Peer{Framer: http2.NewFramer(conn, conn), conn: conn}
	peer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := peer.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return peer
}

// call begins a gRPC call of one message.
func (p *http2Peer) call(t *testing.T, id uint32, path string, message proto.Message) {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: cmp.Or(p.host, "localhost")}, {Name: ":path", Value: path},
		{Name: "content-type", Value: cmp.Or(p.contentType, "application/grpc")}, {Name: "te", Value: "trailers"},
	}
	if p.token != "" {
		fields = append(fields, hpack.HeaderField{Name: "authorization", Value: "Bearer " + p.token})
	}
	for _, f := range fields {
		if err := encoder.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	body, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}),
		p.WriteData(id, true, envelope(body)),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// await reads frames until one matches.
func (p *http2Peer) await(t *testing.T, wanted func(http2.Frame) bool) http2.Frame {
	t.Helper()
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if wanted(frame) {
			return frame
		}
	}
}

func envelope(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}
