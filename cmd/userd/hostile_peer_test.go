package main_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const framesAhead = 1000

// rawPeer speaks HTTP/2 frame by frame.
type rawPeer struct {
	*http2.Framer

	conn net.Conn
	// ahead has room for the frames that may be sent before their resets have been read
	// by end, which closes it.
	ahead  chan struct{}
	header bytes.Buffer
	packed *hpack.Encoder
	// writing is held by those who write frames where several goroutines do.
	writing sync.Mutex
}

// connect opens a connection on which nothing is said yet, not even by TLS.
func (x *target) connect(t *testing.T) net.Conn {
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
	x.dialed = append(x.dialed, conn)
	return conn
}

// secure speaks TLS over the connection where the program does.
func (x *target) secure(conn net.Conn, protocol string) net.Conn {
	if x.trust == nil {
		return conn
	}
	config := x.trust.Clone()
	config.NextProtos = []string{protocol}
	return tls.Client(conn, config)
}

// dial opens a connection for HTTP/1.1, or whatever begins as HTTP does, and sends bytes.
func (x *target) dial(t *testing.T, begins string) net.Conn {
	t.Helper()
	conn := x.secure(x.connect(t), "http/1.1")
	if _, err := io.WriteString(conn, begins); err != nil {
		t.Fatal(err)
	}
	return conn
}

func (x *target) peer(t *testing.T, settings ...http2.Setting) *rawPeer {
	t.Helper()
	p, err := newRawPeer(x.secure(x.connect(t), "h2"), settings...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newRawPeer sends the connection preface.
func newRawPeer(conn net.Conn, settings ...http2.Setting) (*rawPeer, error) {
	p := &rawPeer{conn: conn, ahead: make(chan struct{}, framesAhead)}
	for range framesAhead {
		p.ahead <- struct{}{}
	}
	if _, err := io.WriteString(p.conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	p.Framer = http2.NewFramer(p.conn, p.conn)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.packed = hpack.NewEncoder(&p.header)
	err := p.WriteSettings(settings...)
	return p, err
}

// block returns the header of a gRPC call.
func (p *rawPeer) block(path string, more ...hpack.HeaderField) []byte {
	p.header.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"}, {Name: ":path", Value: path},
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
	defer close(p.ahead)
	for {
		frame, err := p.ReadFrame()
		if goAway, ok := frame.(*http2.GoAwayFrame); ok {
			last = &farewell{goAway.ErrCode, string(goAway.DebugData())}
		}
		if _, ok := frame.(*http2.RSTStreamFrame); ok {
			select {
			case p.ahead <- struct{}{}:
			default: // nobody waits for it
			}
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

// awaitPong reads until a ping is answered, which gives nil, or else to the end of the
// connection.
func (p *rawPeer) awaitPong() *farewell {
	for {
		frame, err := p.ReadFrame()
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if frame.IsAck() {
				return nil
			}
		case *http2.GoAwayFrame:
			return &farewell{frame.ErrCode, string(frame.DebugData())}
		default:
		}
		if err != nil {
			return &farewell{text: err.Error()}
		}
	}
}
